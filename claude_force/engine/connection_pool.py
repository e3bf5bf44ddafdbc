"""The door of this wing: a call goes in, its reply comes out, whatever the wire did in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import AsyncGenerator, Dict, List, NamedTuple, Optional
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from ..clock import Clock
from ..limits.admission import AdmissionController, Load
from ..limits.aimd import AdaptiveConcurrencyLimit
from ..limits.budget import Price, price_lookup
from ..limits.prices import cost, load_prices
from ..limits.rate_limiter import RateLimiter, Rates
from ..limits.token_estimator import TokenEstimator
from ..options import AUTO
from ..transport.network import connections_within
from ..transport.transport import Transport
from .call_sender import CallSender
from .call_settings import CallSettings
from .retry import RetryPolicy


class _Start:
    """The first time that this process prepares connections: nothing has been sent before it is over."""

    is_going_on = is_over = False

    def __enter__(self) -> None:
        self.is_going_on = not self.is_over

    def __exit__(self, *_: object) -> None:
        self.is_going_on, self.is_over = False, True


_first = _Start()


def is_starting() -> bool:
    """Whether this process prepares its first connections, and so has sent nothing yet."""
    return _first.is_going_on


class Endpoint(NamedTuple):
    """Where calls go.

    Attributes:
        service: its title.
        counts_tokens: whether it has the API's free endpoint for that.
        limits: the rate limits, as far as answers have told them.
    """

    service: str
    counts_tokens: bool
    url: str
    limits: Rates


class LoopBoundPool:
    """Opens a sender at the first call in an event loop, and again in the next loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self.token_estimator = TokenEstimator()
        self._open: Dict[asyncio.AbstractEventLoop, List[_Opened]] = {}

    async def sender(self, settings: CallSettings, model: str = "") -> CallSender:
        """The sender of this loop; opened by the first call, and again where the settings have changed."""
        loop = asyncio.get_running_loop()
        opened = self._open.get(loop)
        if opened and settings.has_sender_of(opened[-1].settings):
            opened[-1].settings = settings
            return opened[-1].sender
        async with self._turns.setdefault(loop, asyncio.Lock()):
            opened = self._open.get(loop)
            if not opened or not settings.has_sender_of(opened[-1].settings):
                sender = await self._open_sender(settings, model, opened[-1] if opened else None)
                # Calls in flight keep the sender that they began on; the new settings hold from here.
                opened = self._open.setdefault(loop, [])
                opened.append(_Opened(settings, sender, self._lifetime(sender)))
                await opened[-1].lifetime.__anext__()
                for before in [one for one in opened if one.sender is not sender and one.sender.is_idle]:
                    await before.lifetime.aclose()
            return self._open[loop][-1].sender

    def price(self, settings: CallSettings) -> Price:
        """What a model's tokens cost, in USD. Asked for the first time it takes a while."""
        return price_lookup(settings.options.prices or {}, cost)

    def load(self) -> Optional[Load]:
        """What is on the wire of this loop; None before its first call."""
        opened = self._open.get(asyncio.get_running_loop())
        return opened[-1].sender.admission.load() if opened else None

    async def drain(self, seconds: float) -> None:
        """Sends nothing new in this loop, and waits for what is on the wire, at most so long."""
        gates = [opened.sender.admission for opened in self._open.get(asyncio.get_running_loop(), [])]
        for gate in gates:
            gate.close()
        with anyio.move_on_after(seconds):
            for gate in gates:
                await gate.wait_until_idle()

    async def check_credentials(self, settings: CallSettings) -> None:
        """Raises AuthenticationError where the SDK finds no credentials. Sends nothing."""
        sender = await self.sender(settings)
        # A cloud's are looked for in files and on its own servers.
        await anyio.to_thread.run_sync(sender.transport.check_credentials)

    async def endpoint(self, settings: CallSettings) -> Endpoint:
        """What is known of it so far. Sends nothing."""
        sender = await self.sender(settings)
        transport = sender.transport
        return Endpoint(
            transport.service.title,
            transport.service.counts_tokens,
            transport.base_url,
            sender.admission.load().limits,
        )

    async def probe(self, settings: CallSettings, model: str) -> None:
        """A request that costs nothing. Raises CallError."""
        sender = await self.sender(settings)
        await sender.probe(model)

    async def close(self) -> None:
        """Ends this loop's calls in flight and closes its connections; a later call opens new ones."""
        loop = asyncio.get_running_loop()
        async with self._turns.setdefault(loop, asyncio.Lock()):
            for opened in self._open.pop(loop, []):
                await opened.lifetime.aclose()

    async def _open_sender(self, settings: CallSettings, model: str, before: Optional[_Opened]) -> CallSender:
        options, ceiling = settings.options, settings.ceiling

        def prepare() -> Transport:
            # Imports, certificates and prices take most of a second; the loop has other things to do.
            with _first:
                load_prices(model)
                given = (options.api_key, options.base_url, options.timeout_seconds, options.stream, ceiling)
                return Transport(*given, options.quiet_seconds)

        transport = await anyio.to_thread.run_sync(prepare)
        policy = RetryPolicy(attempts=options.max_retries)
        adaptive = options.max_concurrent == AUTO
        window = AdaptiveConcurrencyLimit(connections_within(ceiling, adaptive), adaptive)
        if before is not None and before.settings.rates == settings.rates:
            # What was used of the limits that are set by hand is used, whatever else has changed.
            pace = before.sender.admission.rate_limiter.share_manual_limits()
        else:
            pace = RateLimiter(settings.rates, self._clock.now())
        gate = AdmissionController(window, pace, self._clock)
        return CallSender(transport, gate, policy, self._clock, self.price(settings), self.token_estimator)

    async def _lifetime(self, sender: CallSender) -> AsyncGenerator[None, None]:
        # asyncio.run closes async generators before it closes the loop: a line whose user
        # forgot close() still closes its connections while the loop can.
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
