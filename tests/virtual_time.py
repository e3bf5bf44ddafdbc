"""An event loop whose time passes only where everybody waits, and a server that lives in it."""

import asyncio
import random
from collections import Counter

from claude_force.engine.call_sender import CallSender
from claude_force.engine.retry import RetryPolicy
from claude_force.limits.admission import AdmissionController
from claude_force.limits.aimd import AdaptiveConcurrencyLimit
from claude_force.limits.rate_limiter import RateLimiter, Rates
from claude_force.limits.token_estimator import TokenEstimator
from claude_force.testing.limits import Limiter
from claude_force.testing.replies import Refused
from claude_force.transport.error_mapping import from_status
from claude_force.transport.services import API
from claude_force.types import Clock, Reply, Usage

NO_RATES = Rates()


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0; ten simulated minutes take as long as their computation."""

    def __init__(self):
        super().__init__()
        self._virtual = 0.0
        selector, real = self._selector, self._selector.select

        def select(timeout=None):
            events = real(0)
            if not events and timeout:
                self._virtual += timeout
            return events

        selector.select = select

    def time(self):
        return self._virtual


def run_virtually(work):
    """What the coroutine returns."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class LoopClock(Clock):
    def now(self):
        return asyncio.get_event_loop().time()


class SimulatedServer:
    """Takes the place of the transport: answers after `latency(random)` seconds, within `limit`, which
    each model has for itself.

    `status(now)` makes it answer with an error status. `log` has (time, status) of each request;
    `tokens` (time, input, output) of each that was answered.
    """

    service = API

    def __init__(
        self, limit=None, latency=lambda chance: 1.0, status=lambda now: None, retry_after=None, seed=1
    ):
        self._limit, self._limiters = limit, {}
        self._latency, self._status, self._retry_after = latency, status, retry_after
        self._chance = random.Random(seed)
        self.log, self.tokens = [], []
        self.in_flight = self.most_in_flight = 0

    def check(self, call):
        pass

    async def attempt(self, call, record):
        now = LoopClock().now()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            status = self._status(now)
            if status is not None:
                self.log.append((now, status))
                await asyncio.sleep(0.05)
                headers = {} if self._retry_after is None else {"retry-after": str(self._retry_after)}
                raise from_status(status, {}, headers, 0.0)
            return await self._answer(call, record, now)
        finally:
            self.in_flight -= 1

    async def _answer(self, call, record, now):
        size = len(call.task) // 4
        wanted = call.options["answer"]
        if self._limit:
            # Not before: time is that of the loop that runs.
            limiter = self._limiters.setdefault(call.model, Limiter(self._limit, LoopClock().now))
            try:
                limiter.admit(size)
            except Refused as refused:
                self.log.append((now, 429))
                record.headers = limiter.headers()
                await asyncio.sleep(0.05)
                raise from_status(429, {}, {"retry-after": refused.retry_after}, 0.0) from None
            limiter.charge(wanted)
            record.headers = limiter.headers()
        self.log.append((now, 200))
        self.tokens.append((now, size, wanted))
        await asyncio.sleep(self._latency(self._chance))
        record.usage = Usage(size, wanted)
        return Reply("x", call.model, record.usage, "end_turn")

    async def close(self):
        pass

    def statuses(self):
        return Counter(status for _, status in self.log)


def sender_to(server, ceiling=100, adaptive=False, rates=NO_RATES, attempts=3, price=lambda *_: 0.0):
    """A sender as `SenderPool` opens it, over `server`."""
    clock = LoopClock()
    admission = AdmissionController(
        AdaptiveConcurrencyLimit(ceiling, adaptive), RateLimiter(rates, clock.now()), clock
    )
    return CallSender(server, admission, RetryPolicy(attempts), clock, price, TokenEstimator())
