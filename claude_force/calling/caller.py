"""The door of this wing: a call goes in, its reply comes out, whatever the wire did in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import AsyncGenerator, Dict, List, Optional, Sequence

import anyio
import anyio.to_thread

from .. import settings
from ..types import Call, Reply
from .budget import Budget, Prices, price_by
from .clock import Clock
from .line import Line
from .pricing import cost
from .pricing import price_list as import_prices
from .retry import RetryPolicy
from .transport import Transport, import_sdk


@dataclass(frozen=True)
class CallerSettings:
    """How calls are made. `timeout_seconds` bounds silence; `max_attempts` counts the first one.

    `prices` are the caller's own, in USD per million tokens, by model.
    """

    api_key: Optional[str] = field(default=None, repr=False)
    base_url: Optional[str] = None
    max_concurrent: int = settings.MAX_CONCURRENT
    timeout_seconds: Optional[float] = settings.TIMEOUT_SECONDS
    max_attempts: int = settings.MAX_ATTEMPTS
    stream: bool = True
    prices: Prices = field(default_factory=dict)


class Caller:
    """Opens a line at the first call in an event loop, and again in the next loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loaded = False
        self._open: Dict[asyncio.AbstractEventLoop, List[_Opened]] = {}

    async def send(
        self,
        call: Call,
        how: CallerSettings,
        deadline_seconds: Optional[float] = None,
        budgets: Sequence[Budget] = (),
    ) -> Reply:
        """Raises InputError before anything is sent, CallError after; each request fits into `budgets`."""
        line = await self._line(how)
        return await line.send(call, deadline_seconds, budgets)

    async def check_credentials(self, how: CallerSettings) -> None:
        """Raises AuthenticationError where the SDK finds no credentials. Sends nothing."""
        line = await self._line(how)
        line.transport.check_credentials()

    async def close(self) -> None:
        """Ends this loop's calls in flight and closes its connections; a later call opens new ones."""
        for opened in self._open.pop(asyncio.get_running_loop(), []):
            await opened.lifetime.aclose()

    async def _line(self, how: CallerSettings) -> Line:
        await self._load()
        opened = self._open.setdefault(asyncio.get_running_loop(), [])
        if not opened or opened[-1].how != how:
            # Calls in flight keep the line that they began on; the new settings hold from here.
            opened.append(self._open_line(how))
            await opened[-1].lifetime.__anext__()
        return opened[-1].line

    async def _load(self) -> None:
        # The imports take most of a second, in which the loop has other things to do.
        if not self._loaded:
            await anyio.to_thread.run_sync(import_sdk)
            await anyio.to_thread.run_sync(import_prices)
            self._loaded = True

    def _open_line(self, how: CallerSettings) -> _Opened:
        policy = RetryPolicy(attempts=how.max_attempts)
        transport = Transport(how.api_key, how.base_url, how.timeout_seconds, how.stream, how.max_concurrent)
        line = Line(transport, how.max_concurrent, policy, self._clock, price_by(how.prices, cost))
        return _Opened(how, line, self._lifetime(line))

    async def _lifetime(self, line: Line) -> AsyncGenerator[None, None]:
        # asyncio.run closes async generators before it closes the loop: a line whose user
        # forgot close() still closes its connections while the loop can.
        try:
            yield
        finally:
            self._open.pop(asyncio.get_running_loop(), None)
            await line.close()


@dataclass
class _Opened:
    how: CallerSettings
    line: Line
    lifetime: AsyncGenerator[None, None]
