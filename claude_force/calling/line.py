"""One pool of connections and its slots, bound to the event loop that it is made in."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import AsyncIterator, Optional, Sequence, Set

import anyio

from ..errors import CallError, ClosedError, DeadlineExceededError, UnknownPriceError
from ..types import Call, Reply
from .attempts import Attempts
from .budget import Budget, Price, worst_cost
from .clock import Clock
from .pause import Pause
from .retry import RetryPolicy
from .transport import Meter, Transport


class Line:
    """Sends calls over one transport, at most `max_concurrent` attempts at a time.

    A slot belongs to an attempt: a call that waits for its next attempt holds none.
    """

    def __init__(
        self, transport: Transport, max_concurrent: int, policy: RetryPolicy, clock: Clock, price: Price
    ) -> None:
        self.transport = transport
        self._price = price
        self._turn = asyncio.Lock()
        self._pause = Pause(clock)
        self._slots = asyncio.Semaphore(max_concurrent)
        self._policy = policy
        self._clock = clock
        self._live: Set[anyio.CancelScope] = set()
        self._closed = False

    async def send(
        self, call: Call, deadline_seconds: Optional[float] = None, budgets: Sequence[Budget] = ()
    ) -> Reply:
        """Raises InputError before anything is sent, CallError after."""
        self.transport.check(call)
        worst = self._worst(call) if budgets else 0.0

        async def attempt(call: Call) -> Reply:
            async with self._reserved(budgets, worst, call.model) as meter:
                return await self._attempt(call, meter)

        attempts = Attempts(call, self._policy, self._clock, deadline_seconds)
        with anyio.move_on_after(deadline_seconds) as scope:
            self._live.add(scope)
            try:
                reply = await attempts.run(attempt)
                return replace(reply, attempts=attempts.made, cost=self._cost(call.model, reply))
            finally:
                self._live.discard(scope)
        raise self._cut_short(attempts, deadline_seconds) from attempts.last_error

    async def _attempt(self, call: Call, meter: Meter) -> Reply:
        await self._pause.over()
        async with self._slots:
            # While this one waited for its slot, another may have been told to come later.
            await self._pause.over()
            try:
                return await self.transport.attempt(call, meter)
            except CallError as error:
                self._pause.after(error)
                raise

    def _worst(self, call: Call) -> float:
        worst = worst_cost(call, self._price)
        if worst is None:
            raise UnknownPriceError(
                f"The price of {call.model} is not known, so no budget can be kept. Give "
                f"prices={{{call.model!r}: {{'input': ..., 'output': ...}}}} in USD per million tokens."
            )
        return worst

    def _cost(self, asked: str, reply: Reply) -> Optional[float]:
        known = self._price(reply.model or asked, reply.usage)
        # A server may name the model more exactly than the prices do.
        return known if known is not None else self._price(asked, reply.usage)

    @asynccontextmanager
    async def _reserved(self, budgets: Sequence[Budget], worst: float, model: str) -> AsyncIterator[Meter]:
        meter, held = Meter(), []
        try:
            if budgets:
                # In the order of arrival: small requests do not starve a large one.
                async with self._turn:
                    for budget in budgets:
                        await _fits(budget, worst)
                        held.append(budget)
            yield meter
        finally:
            spent = self._price(model, meter.usage) if meter.usage else None
            for budget in held:
                budget.settle(worst, spent or 0.0)

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


async def _fits(budget: Budget, worst: float) -> None:
    while not budget.reserve(worst):
        settled = asyncio.Event()
        budget.when_settled(settled.set)
        await settled.wait()
