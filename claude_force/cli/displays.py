"""Shows the progress of bulk runs and workflows on stderr, live on a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from ..bulk import Event, Finished, Paused, Progress, Retried
from ..costs import CostTotals
from ..engine.result_builder import is_unsent
from ..formatting import for_shell, format_duration, format_duration_coarse, format_usd, pluralize
from ..limits.admission import Load
from ..limits.call_context import CallListener
from ..workflow import StepEvent
from ..workflow.step_calls import StepCall
from . import streams
from .agent_activity import ActivityBoard
from .bulk_report import ErrorSummary
from .logs import is_verbose
from .render import format_cost
from .tool_lines import ToolTally

_FRAME_SECONDS = 0.25
# Seconds between two lines of a log, by the age of the run: a long run does not fill its log.
_LINE_SECONDS = ((60.0, 10.0), (600.0, 30.0), (float("inf"), 60.0))
# Rates are averages over this time.
_RATE_SECONDS = 30.0
_MAX_ERROR_LINES = 3
_MAX_AGENT_LINES = 12
_BAR_CELLS = 24
_RATE_UNITS = ("requests", "tokens in", "tokens out")


class ProgressDisplay:
    """The progress of a bulk run: live on a terminal, else a line from time to time.

    Args:
        load: returns the requests in flight and the limits.
        done_before: rows that were in the output before.
        spent: USD that they cost.
        pending: rows to be run.
        in_flight_label: the word for rows that have begun and not ended.
        now: a clock in seconds.

    Attributes:
        failures: errors of rows that failed.
        retries: errors of attempts that were followed by another one.
        tools: what agents did with their tools.
    """

    def __init__(
        self,
        load: Callable[[], Optional[Load]],
        done_before: int,
        spent: float,
        pending: Optional[int] = None,
        quiet: bool = False,
        in_flight_label: str = "in flight",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._in_flight_label = load, in_flight_label
        self._done_before, self._spent = done_before, spent
        # Log lines would break a live display.
        self._is_live = sys.stderr.isatty() and not (quiet or streams.is_quiet() or is_verbose())
        # Looked up now: rich replaces stderr by an object without an encoding.
        self._full, self._empty = ("█", "░") if streams.can_encode("█░", sys.stderr) else ("#", "-")
        self._now, self._began = now, now()
        self.progress = Progress(total=pending)
        self.failures, self.retries, self.tools = ErrorSummary(), ErrorSummary(), ToolTally()
        self._agents = ActivityBoard(now)
        # Rows that a stop left unsent have neither ended nor failed.
        self._unsent = 0
        self._pause_reason = ""
        self._samples: Deque[Tuple[float, Tuple[int, int, int]]] = deque([(self._began, (0, 0, 0))])

    def on_event(self, event: Event) -> None:
        """Takes an event of the run."""
        self.progress = event.progress
        if self._is_live:
            self._agents.on_event(event)
        if isinstance(event, Retried):
            self.retries.add(event.index + 1, event.error)
        elif isinstance(event, Paused):
            self._pause_reason = (
                f"all requests wait for {format_duration(event.seconds)}: {for_shell(event.error.message)}"
            )
        elif isinstance(event, Finished):
            self._add_result(event)

    def _add_result(self, event: Finished) -> None:
        self.tools.add(event.result)
        if is_unsent(event.result):
            self._unsent += 1
        elif event.result.error is not None:
            self.failures.add(event.index + 1, event.result.error)

    async def show(self) -> None:
        """Shows the progress until it is cancelled."""
        if self._is_live:
            await self._show_live()
        while True:
            passed = self._now() - self._began
            await asyncio.sleep(next(every for until, every in _LINE_SECONDS if passed < until))
            streams.status("; ".join(self.lines()))

    async def _show_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        if console.is_dumb_terminal:
            # rich would draw nothing before the end.
            return
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self.drawn(console.size.height), refresh=True)
                await asyncio.sleep(_FRAME_SECONDS)

    def drawn(self, height: int = 24) -> Any:
        """Returns the live display for rich. Its lines are cut at the width of the terminal.

        Agents that use tools have a line each, as many as fit into `height` lines.
        """
        from rich.text import Text

        retries = [f"tried again: {line}" for line in self.retries.lines(1)]
        pause = [self._pause_reason] if self._pause_reason and self._paused_seconds() else []
        notes = (*pause, *self.failures.lines(_MAX_ERROR_LINES), *retries)
        first, *more = self.lines()
        lines = [f"{self._bar()}{first}", *more, *(f"  ! {streams.one_line(one)}" for one in notes)]
        # One line less than there are: the cursor has one of its own.
        lines += [f"  {one}" for one in self._agents.lines(min(_MAX_AGENT_LINES, height - len(lines) - 1))]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    def _bar(self) -> str:
        share = self._share()
        if share is None:
            return ""
        cells = int(share * _BAR_CELLS)
        return self._full * cells + self._empty * (_BAR_CELLS - cells) + " "

    def _share(self) -> Optional[float]:
        """Returns the share of rows that have ended; None if the number of rows is unknown."""
        total = self.progress.total
        if total is None or not self._done_before + total:
            return None
        return self._done() / (self._done_before + total)

    def _done(self) -> int:
        return self._done_before + self.progress.done - self._unsent

    def lines(self) -> List[str]:
        """Returns the lines about time, rows, cost and rates."""
        progress = self.progress
        share = self._share()
        # Rounded down: 100 % means all of them.
        percent = "" if share is None else f"{int(share * 100)} %, "
        return [
            f"{percent}{self._time(progress)}",
            self._rows(progress),
            self._cost(progress),
            self._rates(progress),
        ]

    def _rows(self, progress: Progress) -> str:
        total = "" if progress.total is None else f" of {self._done_before + progress.total:,}"
        failed = progress.failed - self._unsent
        counts = f"{self._done():,}{total} rows done, {failed:,} failed, {progress.cached:,} cached"
        return f"{counts}, {self._in_flight(progress)}"

    def _in_flight(self, progress: Progress) -> str:
        load = self._load()
        # For the run, a row whose answer is being cached is still in flight.
        in_flight = progress.in_flight if load is None else load.under_way
        text = f"{in_flight:,} {self._in_flight_label}"
        # A limit may just have been lowered below what was sent before.
        if load is not None and in_flight <= load.window:
            text += f" (max {load.window:,})"
        paused = self._paused_seconds()
        return f"{text}, paused for {format_duration_coarse(paused)}" if paused else text

    def _paused_seconds(self) -> float:
        load = self._load()
        return 0.0 if load is None else load.paused or 0.0

    def _time(self, progress: Progress) -> str:
        elapsed = self._now() - self._began
        left = self._seconds_left(progress, elapsed)
        return f"{format_duration_coarse(elapsed)} elapsed" + (
            "" if left is None else f", {format_duration_coarse(left)} left"
        )

    def _seconds_left(self, progress: Progress, elapsed: float) -> Optional[float]:
        # A run that is being stopped does not run what is left.
        if progress.seconds_left is None or self._unsent:
            return None
        # Estimated at the last event. An estimate that has run out was wrong, and is not shown.
        left = progress.seconds_left - max(0.0, elapsed - progress.elapsed)
        return left if left > 0 else None

    def _cost(self, progress: Progress) -> str:
        cost = f"{format_usd(self._spent + progress.cost)} so far"
        if progress.cost_expected is not None and not self._unsent:
            cost += f", about {format_usd(self._spent + progress.cost_expected)} in all"
        if progress.unpriced:
            cost += f", {pluralize(progress.unpriced, 'answer')} of unknown price"
        return cost

    def _rates(self, progress: Progress) -> str:
        load, rates = self._load(), self._per_minute(progress)
        limits = load.limits if load else (None, None, None)
        parts = [
            f"{_compact(rate)}{'' if limit is None else f' of {_compact(limit)}'} {kind}"
            for rate, limit, kind in zip(rates, limits, _RATE_UNITS)
        ]
        return f"per minute: {', '.join(parts)}"

    def _per_minute(self, progress: Progress) -> List[float]:
        counts = (progress.attempts, progress.input_tokens, progress.output_tokens)
        self._samples.append((self._now(), counts))
        while self._samples[-1][0] - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        passed = self._samples[-1][0] - since
        return [(new - old) / passed * 60 if passed else 0.0 for new, old in zip(counts, before)]


def _compact(value: float) -> str:
    """Returns a count in few characters: "1.5", "980", "12k", "1.2M"."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        # Compared as it is rounded: 999,999 is 1M, not 1000k.
        if value >= 9.995 * size:
            return f"{value / size:,.0f}{unit}"
        if value >= 0.9995 * size:
            return f"{value / size:.1f}".replace(".0", "") + unit
    # A limit of 1.5 per minute is not 2.
    return f"{value:.1f}".replace(".0", "") if value < 10 else f"{value:,.0f}"


# Narrower terminals don't show the names of agents.
_MIN_COLUMNS_FOR_AGENTS = 60
_LINE_BREAKS = {ord(char): " " for char in "\n\r\t\v\f"}


class WorkflowDisplay:
    """The steps of a workflow, live on a terminal: a line for each step that has begun."""

    def __init__(self, name: str, as_json: bool) -> None:
        self._name = name
        # Log lines would break a live display.
        self._is_live = sys.stderr.isatty() and not (as_json or streams.is_quiet() or is_verbose())
        self._events: Dict[str, StepEvent] = {}
        self._began: Dict[str, float] = {}
        self._start = time.monotonic()
        self._agents = ActivityBoard()
        self._live: Any = None
        self._console: Any = None

    def __enter__(self) -> WorkflowDisplay:
        if self._is_live:
            from rich.console import Console
            from rich.live import Live

            self._console = self._console or Console(stderr=True)
            self._live = Live(
                console=self._console, get_renderable=self._drawn, refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Removes the display while something else is printed."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    @contextmanager
    def watch(self, call: StepCall) -> Iterator[CallListener]:
        """Shows what the agent of a call does with its tools, while it runs. Yields its listener."""
        step, number = call.step, call.number
        part = f"{step.id} part {number + 1}" if step.foreach is not None else step.id
        try:
            yield self._agents.begin((step.id, number), part)
        finally:
            self._agents.end((step.id, number))

    def on_step(self, event: StepEvent) -> None:
        """Takes an event of the workflow."""
        self._events[event.step] = event
        self._began.setdefault(event.step, time.monotonic())

    def _drawn(self) -> Any:
        from rich.text import Text

        width, height = self._console.size
        return Text("\n".join(self.lines(width, height)), no_wrap=True, overflow="ellipsis")

    def lines(self, width: int, height: int) -> List[str]:
        """Returns a line about the run and one per step; if there are too many, without the oldest."""
        now = time.monotonic()
        shown = self._newest(max(1, height - 3))
        rows = [self._row(event, now, width >= _MIN_COLUMNS_FOR_AGENTS) for event in shown]
        hidden = len(self._events) - len(rows)
        more = [f"  and {pluralize(hidden, 'step')} before"] if hidden else []
        rows += [f"    {one}" for one in self._part_lines(height - len(rows) - len(more) - 2)]
        head = f"{self._name}: {format_duration_coarse(now - self._start)}, {self._cost()} so far"
        # Names and reasons come from the project: no control characters, no second line.
        return [streams.strip_control_chars(one.translate(_LINE_BREAKS)) for one in (head, *more, *rows)]

    def _part_lines(self, room: int) -> List[str]:
        """Returns a line for each agent in a step of several parts; that of a step with one is its row."""
        if not any(event.parts > 1 and event.result is None for event in self._events.values()):
            return []
        return self._agents.lines(min(_MAX_AGENT_LINES, room))

    def _newest(self, limit: int) -> List[StepEvent]:
        """Returns at most `limit` steps; drops those first that ended first."""
        ended = [event for event in self._events.values() if event.result is not None]
        dropped = {event.step for event in ended[: max(0, len(self._events) - limit)]}
        return [event for event in self._events.values() if event.step not in dropped][-limit:]

    def _cost(self) -> str:
        ended = [event.result for event in self._events.values() if event.result is not None]
        return format_cost(CostTotals.of(one for step in ended for one in step.tries).full_cost)

    def _row(self, event: StepEvent, now: float, with_agent: bool) -> str:
        width = max(len(one) for one in self._events)
        agents = max(len(one.agent) for one in self._events.values())
        agent = f"{event.agent.ljust(agents)}  " if with_agent else ""
        return f"  {event.step.ljust(width)}  {agent}{self._state(event, now)}"

    def _state(self, event: StepEvent, now: float) -> str:
        result = event.result
        if result is None:
            agent = self._agents.find((event.step, 0)) if event.parts == 1 else None
            if agent is not None:
                return f"running, {agent.state()}"
            return f"running, {_parts(event)}{format_duration_coarse(now - self._began[event.step])}"
        if result.began is None or result.ended is None:
            return f"skipped: {result.reason}"
        duration = format_duration(result.ended - result.began)
        return f"{result.status}, {_parts(event)}{duration}, {format_cost(result.cost)}"


def _parts(event: StepEvent) -> str:
    if event.parts == 1:
        return ""
    failed = f", {event.failed} failed" if event.failed else ""
    return f"{event.done} of {pluralize(event.parts, 'part')}{failed}, "
