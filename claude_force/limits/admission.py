"""Admission of attempts: the order in which they reserve money, wait for rate limits and take a slot.

Attempts of one model are admitted in the order of arrival, and do not wait for the rate limits of another
model. Where all models wait for the same thing (limits set by hand, a pause, a free slot), the first attempts
of each take turns, so that small requests of one model do not starve a large one of another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Callable, Dict, List, Optional, Sequence, Type

from ..errors import CallError, ClosedError, RateLimitError
from ..transport.protocol import AttemptRecord
from ..types import Clock
from .aimd import AdaptiveConcurrencyLimit
from .budget import Budget
from .call_context import CallContext
from .rate_limiter import RateLimiter, Rates, TokenCost
from .token_estimator import billable_usage

# The longest that the first in a queue sleeps before it looks at the limits again.
_MAX_SLEEP_SECONDS = 1.0
_NOTHING = TokenCost(0.0)


@dataclass(frozen=True)
class Load:
    """The attempts in flight, and the limits that they meet.

    Attributes:
        under_way: attempts in flight.
        window: how many may be in flight now.
        paused: seconds until the next attempt may begin.
        limits: the known rate limits, for each minute.

    Example:
        load = orchestrator.load()
        if load is not None:
            print(f"{load.under_way} of {load.window} in flight, {load.limits.requests} requests a minute")
    """

    under_way: int
    window: int
    paused: float
    limits: Rates


@dataclass
class _ModelQueue:
    """The attempts of one model that wait for its rate limits."""

    model: str
    rate_limiter: RateLimiter
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class AdmissionController:
    """Admits attempts within the budgets, the rate limits and the concurrency limit.

    Only the first attempt in each queue checks for room: where one can go, the others do not wake up.

    Example:
        admission = AdmissionController(concurrency_limit, rate_limiter, Clock())
        async with admission.reserve(budgets, 0.5, spent), admission.slot(model, cost, record, context):
            await transport.attempt(call, record)
    """

    def __init__(
        self, concurrency_limit: AdaptiveConcurrencyLimit, rate_limiter: RateLimiter, clock: Clock
    ) -> None:
        """`rate_limiter` has the limits set by hand, which all models share."""
        self.concurrency_limit, self.rate_limiter, self.clock = concurrency_limit, rate_limiter, clock
        self._queues: Dict[str, _ModelQueue] = {}
        self._lock, self._budget_lock = asyncio.Lock(), asyncio.Lock()
        self._changed = asyncio.Event()
        self.in_flight = 0
        self.is_full = self._closed = False

    def load(self) -> Load:
        """The state now."""
        limits = self.rate_limiter.rates(*(queue.rate_limiter for queue in self._queues.values()))
        paused = self.concurrency_limit.wait(self.clock.now())
        return Load(self.in_flight, int(self.concurrency_limit.size), paused, limits)

    def queue_of(self, model: str) -> _ModelQueue:
        """Where the attempts of this model wait."""
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = _ModelQueue(model, self.rate_limiter.share_manual_limits())
        return queue

    def reserve(self, budgets: Sequence[Budget], worst: float, spent: Callable[[], float]) -> Reservation:
        """Returns a context that holds `worst` USD of each budget until the attempt has `spent` its share."""
        return Reservation(budgets, worst, spent, self._budget_lock)

    def slot(
        self,
        model: str,
        token_cost: TokenCost,
        record: AttemptRecord,
        context: CallContext,
        check: Optional[Callable[[], None]] = None,
    ) -> Slot:
        """Returns a context that is entered when the attempt may be sent.

        `check` is called right before; what it raises leaves the queue, with nothing taken. Entering raises
        ClosedError once this is closed, and the run gate's error once that is shut.
        """
        return Slot(self, self.queue_of(model), token_cost, record, context, check)

    async def wait_for_room(
        self,
        queue: _ModelQueue,
        token_cost: TokenCost,
        context: CallContext,
        check: Optional[Callable[[], None]] = None,
    ) -> float:
        """Waits for the turn of an attempt, and takes what it needs; returns the time."""
        rate_limiter, now = queue.rate_limiter, self.clock.now
        async with queue.lock:
            while True:
                while rate_limiter.wait_for_model_limits(token_cost, now()) and not self._closed:
                    if context.run_gate is not None:
                        context.run_gate.check(queue.model)
                    await self._sleep(rate_limiter.wait_for_model_limits(token_cost, now()))
                async with self._lock:
                    while not self._has_room(queue, token_cost, context):
                        await self._wait_for_change(token_cost)
                    if check is not None:
                        check()
                    began = now()
                    # The model's limits may have tightened meanwhile: other models need not wait for that.
                    if not rate_limiter.wait(token_cost, began):
                        rate_limiter.take(token_cost, began)
                        self.in_flight += 1
                        return began

    def _has_room(self, queue: _ModelQueue, token_cost: TokenCost, context: CallContext) -> bool:
        if self._closed:
            raise ClosedError("The call had not been sent when the orchestrator was stopped")
        if context.run_gate is not None:
            context.run_gate.check(queue.model)
        self.is_full = not self.concurrency_limit.has_room(self.in_flight)
        return not self.is_full and not self._wait_seconds(token_cost)

    def _wait_seconds(self, token_cost: TokenCost) -> float:
        now = self.clock.now()
        return max(self.concurrency_limit.wait(now), self.rate_limiter.wait(token_cost, now))

    async def _wait_for_change(self, token_cost: TokenCost) -> None:
        if self.is_full:
            self._changed.clear()
            await self._changed.wait()
        else:
            await self._sleep(self._wait_seconds(token_cost))

    async def _sleep(self, seconds: float) -> None:
        await self.clock.sleep(min(seconds, _MAX_SLEEP_SECONDS))

    def free_slot(self) -> None:
        """An attempt has ended."""
        self.in_flight -= 1
        self._changed.set()

    def reduce_ceiling(self) -> None:
        """Lets no more attempts be in flight than there are, as no more connections can be opened."""
        self.concurrency_limit.reduce_ceiling(self.in_flight, self.clock.now())

    def close(self) -> None:
        """Admits nothing any more; attempts in flight go on."""
        self._closed = True
        self._changed.set()

    async def wait_until_idle(self) -> None:
        """Returns when nothing is in flight."""
        while self.in_flight:
            self._changed.clear()
            await self._changed.wait()


class Slot:
    """The permission to have one attempt in flight; limits learn from the attempt when it ends."""

    __slots__ = (
        "_admission",
        "_began",
        "_check",
        "_context",
        "_in_flight_at_start",
        "_queue",
        "_record",
        "_token_cost",
    )

    def __init__(
        self,
        admission: AdmissionController,
        queue: _ModelQueue,
        token_cost: TokenCost,
        record: AttemptRecord,
        context: CallContext,
        check: Optional[Callable[[], None]],
    ) -> None:
        self._admission, self._queue, self._token_cost = admission, queue, token_cost
        self._record, self._context, self._check = record, context, check

    async def __aenter__(self) -> None:
        admission, record = self._admission, self._record
        self._began = record.began = await admission.wait_for_room(
            self._queue, self._token_cost, self._context, self._check
        )
        self._in_flight_at_start = admission.in_flight
        record.window = int(admission.concurrency_limit.size)

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        admission, record, token_cost = self._admission, self._record, self._token_cost
        now, used, pause = admission.clock.now(), token_cost, 0.0
        limit = admission.concurrency_limit
        if error is None:
            limit.record_success(self._began, self._in_flight_at_start, admission.is_full)
        else:
            pause = limit.record_failure(error, self._began, now)
            used = _NOTHING if isinstance(error, RateLimitError) else token_cost
        if record.usage and record.usage.is_known:
            used = billable_usage(record.usage)
        rate_limiter = self._queue.rate_limiter
        # Settled first: the headers' remainder does not count this attempt, which is no longer in flight.
        rate_limiter.settle(token_cost, used, now)
        rate_limiter.update_from_headers(record.headers, self._began, now, used.output_tokens)
        record.ended = now
        admission.free_slot()
        if pause and isinstance(error, CallError):
            self._context.listener.paused(pause, error)


class Reservation:
    """Money of the call's budgets that is held for one attempt.

    Entering waits until it fits, and raises BudgetExceededError if it never can.
    """

    __slots__ = ("_budgets", "_held", "_lock", "_spent", "_worst")

    def __init__(
        self, budgets: Sequence[Budget], worst: float, spent: Callable[[], float], lock: asyncio.Lock
    ) -> None:
        self._budgets, self._worst, self._spent, self._lock = budgets, worst, spent, lock
        self._held: List[Budget] = []

    async def __aenter__(self) -> None:
        try:
            # In the order of arrival: small requests do not starve a large one.
            async with self._lock:
                for budget in self._budgets:
                    while not budget.reserve(self._worst):
                        settled = asyncio.Event()
                        budget.when_settled(settled.set)
                        await settled.wait()
                    self._held.append(budget)
        except BaseException:
            self._settle()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._settle()

    def _settle(self) -> None:
        spent = self._spent()
        for budget in self._held:
            budget.settle(self._worst, spent)


class _NoWait:
    """A context that is entered at once and does nothing."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


NO_WAIT = _NoWait()
