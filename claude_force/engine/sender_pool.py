"""Opens a call sender, with its connections and limits, for each event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import AsyncGenerator, Dict, List, Optional
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from ..limits.admission import AdmissionController, Load
from ..limits.aimd import AdaptiveConcurrencyLimit
from ..limits.prices import Price, cost, load_prices, price_lookup
from ..limits.rate_limiter import RateLimiter
from ..limits.token_estimator import TokenEstimator
from ..options import AUTO
from ..transport.network import connections_within
from ..transport.transport import Transport
from ..types import Clock
from .call_sender import CallSender
from .call_settings import CallSettings
from .retry import RetryPolicy


class _Startup:
    """The first preparation of connections in this process, before which nothing was sent."""

    is_under_way = is_over = False

    def __enter__(self) -> None:
        self.is_under_way = not self.is_over

    def __exit__(self, *_: object) -> None:
        self.is_under_way, self.is_over = False, True


_startup = _Startup()


def is_starting() -> bool:
    """Whether this process prepares its first connections, and so has sent nothing yet."""
    return _startup.is_under_way


class SenderPool:
    """Holds a call sender for each event loop, since connections belong to the loop that opened them.

    Attributes:
        token_estimator: what was learned of requests, in all loops.

    Example:
        pool = SenderPool(Clock())
        sender = await pool.sender(settings, "claude-sonnet-5-5")
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self.token_estimator = TokenEstimator()
        self._open: Dict[asyncio.AbstractEventLoop, List[_Opened]] = {}

    async def sender(self, settings: CallSettings, model: str = "") -> CallSender:
        """Returns the sender of this loop: opened by the first call, and again when its settings change.

        The price of `model` is loaded with it. Raises InvalidOptionError, ConfigurationError.
        """
        loop = asyncio.get_running_loop()
        opened = self._open.get(loop)
        if opened and settings.has_sender_of(opened[-1].settings):
            opened[-1].settings = settings
            return opened[-1].sender
        async with self._locks.setdefault(loop, asyncio.Lock()):
            opened = self._open.get(loop)
            if not opened or not settings.has_sender_of(opened[-1].settings):
                sender = await self._open_sender(settings, model, opened[-1] if opened else None)
                # Calls in flight go on with the sender that they have.
                opened = self._open.setdefault(loop, [])
                opened.append(_Opened(settings, sender, self._lifetime(sender)))
                await opened[-1].lifetime.__anext__()
                for before in [one for one in opened if one.sender is not sender and one.sender.is_idle]:
                    await before.lifetime.aclose()
            return self._open[loop][-1].sender

    def price(self, settings: CallSettings) -> Price:
        """Returns what prices tokens. Its first use loads the price list, which takes a while."""
        return price_lookup(settings.options.prices or {}, cost)

    def load(self) -> Optional[Load]:
        """What is in flight in this loop; None before its first call."""
        opened = self._open.get(asyncio.get_running_loop())
        return opened[-1].sender.admission.load() if opened else None

    async def drain(self, seconds: float) -> None:
        """Sends nothing new in this loop, and waits up to `seconds` for what is in flight."""
        admissions = [opened.sender.admission for opened in self._open.get(asyncio.get_running_loop(), [])]
        for admission in admissions:
            admission.close()
        with anyio.move_on_after(seconds):
            for admission in admissions:
                await admission.wait_until_idle()

    async def close(self) -> None:
        """Ends this loop's calls in flight and closes its connections; a later call opens new ones."""
        loop = asyncio.get_running_loop()
        async with self._locks.setdefault(loop, asyncio.Lock()):
            for opened in self._open.pop(loop, []):
                await opened.lifetime.aclose()

    async def _open_sender(self, settings: CallSettings, model: str, before: Optional[_Opened]) -> CallSender:
        options, ceiling = settings.options, settings.ceiling

        def prepare() -> Transport:
            # Imports, certificates and prices take part of a second, in which the loop goes on.
            with _startup:
                load_prices(model)
                given = (options.api_key, options.base_url, options.timeout_seconds, options.stream, ceiling)
                return Transport(*given, options.quiet_seconds)

        transport = await anyio.to_thread.run_sync(prepare)
        policy = RetryPolicy(attempts=options.max_retries)
        adaptive = options.max_concurrent == AUTO
        concurrency_limit = AdaptiveConcurrencyLimit(connections_within(ceiling, adaptive), adaptive)
        if before is not None and before.settings.rates == settings.rates:
            # What was used of the limits set by hand stays used, whatever else has changed.
            rate_limiter = before.sender.admission.rate_limiter.share_manual_limits()
        else:
            rate_limiter = RateLimiter(settings.rates, self._clock.now())
        admission = AdmissionController(concurrency_limit, rate_limiter, self._clock)
        price, estimator = self.price(settings), self.token_estimator
        return CallSender(transport, admission, policy, self._clock, price, estimator)

    async def _lifetime(self, sender: CallSender) -> AsyncGenerator[None, None]:
        # asyncio.run closes async generators before it closes the loop: if the user forgot close(), the
        # connections are still closed while the loop runs.
        try:
            yield
        finally:
            loop = asyncio.get_running_loop()
            left = [one for one in self._open.pop(loop, []) if one.sender is not sender]
            if left:
                self._open[loop] = left
            await sender.close()


@dataclass
class _Opened:
    settings: CallSettings
    sender: CallSender
    lifetime: AsyncGenerator[None, None]
