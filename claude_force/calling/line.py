"""One pool of connections and its slots, bound to the event loop that it is made in."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Optional, Set

import anyio

from ..errors import CallError, ClosedError, DeadlineExceededError
from ..types import Call, Reply
from .attempts import Attempts
from .clock import Clock
from .pricing import cost
from .retry import RetryPolicy
from .transport import Transport


class Line:
    """Sends calls over one transport, at most `max_concurrent` attempts at a time.

    A slot belongs to an attempt: a call that waits for its next attempt holds none.
    """

    def __init__(self, transport: Transport, max_concurrent: int, policy: RetryPolicy, clock: Clock) -> None:
        self.transport = transport
        self._slots = asyncio.Semaphore(max_concurrent)
        self._policy = policy
        self._clock = clock
        self._live: Set[anyio.CancelScope] = set()
        self._closed = False

    async def send(self, call: Call, deadline_seconds: Optional[float] = None) -> Reply:
        """Raises InvalidOptionError before anything is sent, CallError after."""
        self.transport.check(call)
        attempts = Attempts(call, self._policy, self._clock, deadline_seconds)
        with anyio.move_on_after(deadline_seconds) as scope:
            self._live.add(scope)
            try:
                reply = await attempts.run(self._attempt)
                return replace(
                    reply, attempts=attempts.made, cost=cost(reply.model or call.model, reply.usage)
                )
            finally:
                self._live.discard(scope)
        raise self._cut_short(attempts, deadline_seconds) from attempts.last_error

    async def _attempt(self, call: Call) -> Reply:
        async with self._slots:
            return await self.transport.attempt(call)

    def _cut_short(self, attempts: Attempts, deadline_seconds: Optional[float]) -> CallError:
        error: CallError
        if self._closed:
            error = ClosedError("The orchestrator was closed during the call")
        else:
            error = DeadlineExceededError(f"No answer within the deadline of {deadline_seconds:g} s")
        error.attempts = attempts.made
        return error

    async def close(self) -> None:
        """Ends the calls in flight, then closes the connections."""
        self._closed = True
        for scope in list(self._live):
            scope.cancel()
        await self.transport.close()
