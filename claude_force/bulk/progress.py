"""The progress of a bulk run: frozen events, each with the state of the whole run at that moment."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Deque, Optional, Tuple

from ..costs import CostTotals
from ..errors import CallError
from ..limits.call_context import CallbackError, CallListener
from ..types import AgentResult, ToolCall, Turn

if TYPE_CHECKING:
    # A call without tools loads none of it.
    from ..conversation import ToolUse

# The rate is measured over the last minute, so that it follows a run that slows down.
_RATE_SECONDS, _SAMPLE_SECONDS = 60.0, 1.0


@dataclass(frozen=True)
class Progress:
    """The state of a run. Times are in seconds, money in USD.

    Attributes:
        total: number of rows, None where the tasks have no length.
        done: rows that have ended; `failed` and `cached` are among them.
        queued: rows that were taken from the tasks and are not in flight; `in_flight` rows are.
        cost: known cost, that of the turns of unfinished rows included; `unpriced` rows have an answer of
            unknown price.
        cost_expected: cost of the whole run if the rest costs what the rows so far did; None until known.
        saved: what cached and shared answers would have cost.
        prompt_cache_saving: what the API's prompt cache took off the cost.
        rate: rows answered by a request per second, over the last minute or since the last answer before it.
            Cached rows and rows that can't be run don't count: they say nothing about the rest.
        seconds_left: at that rate; None where `total` or the rate is unknown.

    Example:
        def on_event(event):
            print(f"{event.progress.done} of {event.progress.total}, {event.progress.cost:.2f} USD")
    """

    total: Optional[int] = None
    done: int = 0
    failed: int = 0
    cached: int = 0
    queued: int = 0
    in_flight: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    cost_expected: Optional[float] = None
    saved: float = 0.0
    prompt_cache_saving: float = 0.0
    elapsed: float = 0.0
    rate: float = 0.0
    seconds_left: Optional[float] = None


@dataclass(frozen=True)
class Event:
    """Something that happened to the row `index`; its subclasses say what.

    Example:
        def on_event(event):
            if isinstance(event, Retried):
                print(f"row {event.index}: {event.error}; again in {event.delay:.1f} s")
            elif isinstance(event, Finished) and not event.result.success:
                print(f"row {event.index} failed: {event.result.error}")
    """

    index: int
    agent_name: str
    progress: Progress


@dataclass(frozen=True)
class Queued(Event):
    """The row was taken from the tasks."""


@dataclass(frozen=True)
class Started(Event):
    """Attempt number `attempt` was sent."""

    attempt: int


@dataclass(frozen=True)
class Retried(Event):
    """Attempt number `attempt` failed with `error`; another follows after `delay` seconds."""

    attempt: int
    delay: float
    error: BaseException


@dataclass(frozen=True)
class Paused(Event):
    """No row starts an attempt for `seconds`, because of the `error` that this row met."""

    seconds: float
    error: CallError


@dataclass(frozen=True)
class TurnBegan(Event):
    """Turn number `turn` of an agent with tools begins, from 1; attempts count from 1 in each turn."""

    turn: int


@dataclass(frozen=True)
class TurnEnded(Event):
    """Turn number `turn` has ended, as `result` says; the tools that its answer called run next."""

    turn: int
    result: Turn


@dataclass(frozen=True)
class ToolStarted(Event):
    """A tool that the answer of turn number `turn` called begins to run, with the `input` of the model."""

    turn: int
    name: str
    input: Any


@dataclass(frozen=True)
class ToolEnded(Event):
    """A tool has ended; `call.error` says whether it failed."""

    call: ToolCall


@dataclass(frozen=True)
class Cached(Event):
    """The row was answered without its own request: from the cache, or by the request of an equal row."""

    result: AgentResult


@dataclass(frozen=True)
class Finished(Event):
    """The row has ended. Sent once for each row, also after `Cached`."""

    result: AgentResult


OnEvent = Callable[[Event], None]


class ProgressTracker:
    """Counts the rows of a run and calls `on_event` with each change."""

    def __init__(self, on_event: OnEvent, total: Optional[int], now: Callable[[], float]) -> None:
        self.on_event = on_event
        self._now, self._began = now, now()
        self._total = total
        self._done = self._failed = self._cached = self._taken = self._in_flight = 0
        self._attempts = self._input = self._output = self._priced = 0
        self._spent = CostTotals()
        # Of the turns of rows that have not ended.
        self._spent_on_turns = 0.0
        self._answered = 0
        # Times with the number of rows answered by then; the first time is when the first request began.
        self._samples: Deque[Tuple[float, int]] = deque()

    def row(self, index: int, agent_name: str) -> RowListener:
        """Returns the listener of the calls of a new row."""
        self._taken += 1
        self.on_event(Queued(index, agent_name, self.progress()))
        return RowListener(self, index, agent_name)

    def attempt_started(self) -> None:
        """Counts an attempt in flight."""
        self._in_flight += 1
        self._attempts += 1
        if not self._samples:
            self._samples.append((self._now(), 0))

    def attempt_ended(self) -> None:
        """Counts the end of an attempt."""
        self._in_flight -= 1

    def add_turn_cost(self, usd: float) -> None:
        """Adds the cost of a turn; `usd` is below 0 where the row has ended, whose result has it."""
        self._spent_on_turns += usd

    def count(self, result: AgentResult) -> None:
        """Counts the result of a row."""
        self._done += 1
        self._failed += not result.success
        self._cached += result.cached or result.shared
        self._spent.add(result)
        self._priced += result.cost is not None
        if not (result.cached or result.shared):
            self._input += result.usage.prompt_tokens
            self._output += result.usage.output_tokens
        if _is_answered(result):
            self._answered += 1
            self._sample()

    def _sample(self) -> None:
        if not self._samples:
            # Where other processes send the requests, the start of the first is not seen.
            self._samples.append((self._began, 0))
        if self._now() - self._samples[-1][0] >= _SAMPLE_SECONDS:
            self._samples.append((self._now(), self._answered))

    def progress(self) -> Progress:
        """Returns the state of the run."""
        now, spent = self._now(), self._spent
        rate = self._rate(now)
        left = None if self._total is None else max(0, self._total - self._done)
        return Progress(
            total=self._total,
            done=self._done,
            failed=self._failed,
            cached=self._cached,
            queued=self._taken - self._done - self._in_flight,
            in_flight=self._in_flight,
            attempts=self._attempts,
            input_tokens=self._input,
            output_tokens=self._output,
            cost=spent.cost + self._spent_on_turns,
            unpriced=spent.unpriced,
            cost_expected=self._cost_expected(left),
            saved=spent.saved,
            prompt_cache_saving=spent.prompt_cache_saving,
            elapsed=now - self._began,
            rate=rate,
            seconds_left=left / rate if left is not None and rate else None,
        )

    def _rate(self, now: float) -> float:
        while len(self._samples) > 1 and self._samples[1][0] <= now - _RATE_SECONDS:
            self._samples.popleft()
        since, answered = self._samples[0] if self._samples else (now, 0)
        return (self._answered - answered) / (now - since) if now > since else 0.0

    def _cost_expected(self, left: Optional[int]) -> Optional[float]:
        if left is None or self._spent.unpriced or not self._priced:
            return None
        return self._spent.cost + left * self._spent.cost / self._priced


def _is_answered(result: AgentResult) -> bool:
    """Returns whether a request was made for the row."""
    return not (result.cached or result.shared) and (result.success or result.attempts > 0)


class RowListener(CallListener):
    """Sends the events of one row."""

    def __init__(self, tracker: ProgressTracker, index: int, agent_name: str) -> None:
        self._tracker, self._index, self._agent = tracker, index, agent_name
        self._is_in_flight = False
        self._turn_cost = 0.0

    def started(self, attempt: int) -> None:
        self._is_in_flight = True
        self._tracker.attempt_started()
        self._emit_in_call(Started(*self._head(), attempt))

    def retried(self, attempt: int, delay: float, error: BaseException) -> None:
        self._end_attempt()
        self._emit_in_call(Retried(*self._head(), attempt, delay, error))

    def paused(self, seconds: float, error: CallError) -> None:
        self._emit_in_call(Paused(*self._head(), seconds, error))

    def turn_began(self, turn: int) -> None:
        self._emit(TurnBegan(*self._head(), turn))

    def turn_ended(self, turn: int, result: Turn) -> None:
        self._end_attempt()
        self._turn_cost += result.cost or 0.0
        self._tracker.add_turn_cost(result.cost or 0.0)
        self._emit(TurnEnded(*self._head(), turn, result))

    def tool_started(self, turn: int, use: ToolUse) -> None:
        self._emit(ToolStarted(*self._head(), turn, use.name, use.input))

    def tool_ended(self, call: ToolCall) -> None:
        self._emit(ToolEnded(*self._head(), call))

    def finished(self, result: AgentResult) -> None:
        """Counts the result and sends the last event."""
        self._end_attempt()
        if self._turn_cost:
            self._tracker.add_turn_cost(-self._turn_cost)
        self._tracker.count(result)
        if result.cached or result.shared:
            self._emit(Cached(*self._head(), result))
        self._emit(Finished(*self._head(), result))

    def _end_attempt(self) -> None:
        if self._is_in_flight:
            self._is_in_flight = False
            self._tracker.attempt_ended()

    def _head(self) -> Tuple[int, str, Progress]:
        return self._index, self._agent, self._tracker.progress()

    def _emit(self, event: Event) -> None:
        self._tracker.on_event(event)

    def _emit_in_call(self, event: Event) -> None:
        """Emits an event in the middle of a call. Raises CallbackError."""
        try:
            self._emit(event)
        except BaseException as error:
            raise CallbackError(error) from error
