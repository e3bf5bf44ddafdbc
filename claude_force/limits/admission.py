"""Where attempts wait: for the limits of their model, then for those that all share, the end of a pause and
room on the wire.

Those of one model go in the order of arrival and do not wait for the limits of another. Where they wait for
the same, the first of each model take turns, so that small requests of one do not starve a large one of
another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Callable, Dict, List, Optional, Sequence, Type

from ..clock import Clock
from ..errors import CallError, ClosedError, RateLimitError
from ..transport.protocol import AttemptRecord
from .aimd import AdaptiveConcurrencyLimit
from .budget import Budget
from .call_context import CallContext
from .rate_limiter import RateLimiter, Rates, TokenCost
from .run_gate import RunGate
from .token_estimator import billable_usage

# The longest that the first in line sleeps without a look at what has changed.
_NAP_SECONDS = 1.0
_NOTHING = TokenCost(0.0)


@dataclass(frozen=True)
class Load:
    """What is on the wire now, out of `window`, and the limits that are known; `paused` is in seconds."""

    under_way: int
    window: int
    paused: float
    limits: Rates


@dataclass
class _ModelQueue:
    """Where the attempts of one model wait for its limits."""

    model: str
    rate_limiter: RateLimiter
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class AdmissionController:
    """Only the first in a line looks whether there is room, so that no herd wakes where one can go.

    `pace` has the limits that are set by hand, which all models share; each learns its own beside them.
    """

    def __init__(self, window: AdaptiveConcurrencyLimit, pace: RateLimiter, clock: Clock) -> None:
        self._window, self.rate_limiter, self._clock = window, pace, clock
        self._lanes: Dict[str, _ModelQueue] = {}
        self._turn, self._budget_turn = asyncio.Lock(), asyncio.Lock()
        self._changed = asyncio.Event()
        self.in_flight = 0
        self._waits_for_room = self._shut = False

    @property
    def limit(self) -> int:
        """How many attempts may be on the wire at present."""
        return int(self._window.size)

    def load(self) -> Load:
        paused = self._window.wait(self._clock.now())
        return Load(self.in_flight, self.limit, paused, self._rates())

    def _rates(self) -> Rates:
        return self.rate_limiter.rates(*(lane.rate_limiter for lane in self._lanes.values()))

    def queue_of(self, model: str) -> _ModelQueue:
        """Where this model's attempts wait."""
        lane = self._lanes.get(model)
        if lane is None:
            lane = self._lanes[model] = _ModelQueue(model, self.rate_limiter.share_manual_limits())
        return lane

    def slot(self, model: str, need: TokenCost, record: AttemptRecord, context: CallContext) -> Slot:
        """Entered when an attempt may be made. Raises ClosedError once the gate is shut, and the run gate's
        error once that is."""
        return Slot(self, self.queue_of(model), need, record, context)

    def reserve(self, budgets: Sequence[Budget], worst: float, spent: Callable[[], float]) -> Reservation:
        """Entered when each of `budgets` holds `worst` USD; left with what the attempt has `spent`."""
        return Reservation(budgets, worst, spent, self._budget_turn)

    async def enter(self, lane: _ModelQueue, need: TokenCost, run_gate: Optional[RunGate]) -> float:
        """Returns the time, when it is this one's turn and there is room."""
        async with lane.lock:
            while True:
                while lane.rate_limiter.wait_for_model_limits(need, self._clock.now()) and not self._shut:
                    if run_gate is not None:
                        run_gate.check(lane.model)
                    await self._sleep(lane.rate_limiter.wait_for_model_limits(need, self._clock.now()))
                async with self._turn:
                    while not self._opens(need, lane, run_gate):
                        await self._nap(need)
                    began = self._clock.now()
                    # Its own may have gone down meanwhile, and that is no reason for other lanes to wait.
                    if not lane.rate_limiter.wait(need, began):
                        lane.rate_limiter.take(need, began)
                        self.in_flight += 1
                        return began

    def leave(
        self,
        lane: _ModelQueue,
        need: TokenCost,
        record: AttemptRecord,
        began: float,
        beside: int,
        error: Optional[BaseException],
    ) -> float:
        """Takes note of how an attempt ended. Returns the seconds of a pause that it starts."""
        now, used, pause = self._clock.now(), need, 0.0
        self.in_flight -= 1
        if error is None:
            self._window.record_success(began, beside, self._waits_for_room)
        else:
            pause = self._window.record_failure(error, began, now)
            used = _NOTHING if isinstance(error, RateLimitError) else need
        if record.usage and record.usage.is_known:
            used = billable_usage(record.usage)
        # Settled first: what is left by the headers is without this one, which is no longer under way.
        lane.rate_limiter.settle(need, used, now)
        lane.rate_limiter.update_from_headers(record.headers, began, now, used.output_tokens)
        record.ended = now
        self._changed.set()
        return pause

    def reduce_ceiling(self, most: int) -> None:
        """No more than `most` attempts are on the wire at a time for now, as no more can be opened."""
        self._window.reduce_ceiling(most, self._clock.now())

    def close(self) -> None:
        """From now on nobody passes; what is on the wire goes on."""
        self._shut = True
        self._changed.set()

    async def wait_until_idle(self) -> None:
        """Returns when nothing is on the wire."""
        while self.in_flight:
            self._changed.clear()
            await self._changed.wait()

    def _opens(self, need: TokenCost, lane: _ModelQueue, run_gate: Optional[RunGate]) -> bool:
        if self._shut:
            raise ClosedError("The call had not been sent when the orchestrator was stopped")
        if run_gate is not None:
            run_gate.check(lane.model)
        self._waits_for_room = not self._window.has_room(self.in_flight)
        return not self._waits_for_room and not self._seconds(need)

    def _seconds(self, need: TokenCost) -> float:
        now = self._clock.now()
        return max(self._window.wait(now), self.rate_limiter.wait(need, now))

    async def _nap(self, need: TokenCost) -> None:
        if self._waits_for_room:
            self._changed.clear()
            await self._changed.wait()
        else:
            await self._sleep(self._seconds(need))

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(min(seconds, _NAP_SECONDS))


class Slot:
    """One attempt's way through the gate, there and back."""

    __slots__ = ("_began", "_beside", "_gate", "_lane", "_meter", "_need", "_terms")

    def __init__(
        self,
        gate: AdmissionController,
        lane: _ModelQueue,
        need: TokenCost,
        record: AttemptRecord,
        context: CallContext,
    ) -> None:
        self._gate, self._lane, self._need, self._meter, self._terms = gate, lane, need, record, context

    async def __aenter__(self) -> None:
        self._began = self._meter.began = await self._gate.enter(self._lane, self._need, self._terms.run_gate)
        self._beside, self._meter.window = self._gate.in_flight, self._gate.limit

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        pause = self._gate.leave(self._lane, self._need, self._meter, self._began, self._beside, error)
        if pause and isinstance(error, CallError):
            self._terms.listener.paused(pause, error)


class Reservation:
    """Money that one attempt holds of its budgets. Raises BudgetExceededError where it can never fit."""

    __slots__ = ("_budgets", "_held", "_spent", "_turn", "_worst")

    def __init__(
        self, budgets: Sequence[Budget], worst: float, spent: Callable[[], float], turn: asyncio.Lock
    ) -> None:
        self._budgets, self._worst, self._spent, self._turn = budgets, worst, spent, turn
        self._held: List[Budget] = []

    async def __aenter__(self) -> None:
        try:
            # In the order of arrival: small requests do not starve a large one.
            async with self._turn:
                for budget in self._budgets:
                    await _wait_to_reserve(budget, self._worst)
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


async def _wait_to_reserve(budget: Budget, worst: float) -> None:
    while not budget.reserve(worst):
        settled = asyncio.Event()
        budget.when_settled(settled.set)
        await settled.wait()


class _NoWait:
    """A context that is entered at once and does nothing."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


NO_WAIT = _NoWait()
