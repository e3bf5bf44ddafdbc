"""The progress of a bulk run on stderr: a live display for a person, a line now and then for a log."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from ..advice import for_shell
from ..bulk import Event, Finished, Paused, Progress, Retried
from ..costs import CostTotals
from ..engine.result_builder import is_unsent
from ..formatting import format_duration, format_duration_coarse, format_usd, pluralize
from ..limits.admission import Load
from ..workflow import StepEvent
from . import streams
from .bulk_report import ErrorSummary
from .logs import is_verbose
from .render import format_cost

_FRAME_SECONDS = 0.25
# Seconds between two lines of a log, by the time that the run has taken: few lines also for a long run.
_LINE_SECONDS = ((60.0, 10.0), (600.0, 30.0), (float("inf"), 60.0))
_WINDOW_SECONDS = 30.0
_ERROR_LINES = 3
_BAR_CELLS = 24
_KINDS = ("requests", "tokens in", "tokens out")


class ProgressDisplay:
    """Follows the events of a run.

    `load` returns the requests in flight; `kept` rows and `spent` USD were in the output before, `due` rows
    are to be run. `under_way` is what rows are that were begun and have not ended.

    Attributes:
        failures: errors of rows that failed; `retries`: errors after which an attempt followed.
    """

    def __init__(
        self,
        load: Callable[[], Optional[Load]],
        kept: int,
        spent: float,
        due: Optional[int] = None,
        quiet: bool = False,
        under_way: str = "in flight",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load, self._kept, self._spent, self._under_way = load, kept, spent, under_way
        # Log lines would tear a live display to pieces.
        self._live = sys.stderr.isatty() and not (quiet or streams.is_quiet() or is_verbose())
        # Not later: what rich puts in the place of stderr names no encoding.
        self._full, self._empty = ("█", "░") if streams.can_encode("█░", sys.stderr) else ("#", "-")
        self._now, self._began = now, now()
        self.progress = Progress(total=due)
        self.failures, self.retries = ErrorSummary(), ErrorSummary()
        # Rows that a stop left unsent have neither ended nor failed.
        self._unsent = 0
        self._pause = ""
        self._samples: Deque[Tuple[float, Tuple[int, int, int]]] = deque([(self._began, (0, 0, 0))])

    def on_event(self, event: Event) -> None:
        """To be given to the run."""
        self.progress = event.progress
        if isinstance(event, Retried):
            self.retries.add(event.index + 1, event.error)
        elif isinstance(event, Paused):
            self._pause = (
                f"all requests wait for {format_duration(event.seconds)}: {for_shell(event.error.message)}"
            )
        elif isinstance(event, Finished) and is_unsent(event.result):
            self._unsent += 1
        elif isinstance(event, Finished) and event.result.error is not None:
            self.failures.add(event.index + 1, event.result.error)

    async def show(self) -> None:
        """Until it is cancelled: live where the terminal can be drawn on, else in lines."""
        if self._live:
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
            # There, rich draws nothing before the end.
            return
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._drawn(), refresh=True)
                await asyncio.sleep(_FRAME_SECONDS)

    def _drawn(self) -> Any:
        """The display as a renderable, a line of it never longer than the terminal."""
        from rich.text import Text

        errors = [*self.failures.lines(_ERROR_LINES), *self._retried()]
        paused = [self._pause] if self._pause and self._paused() else []
        marked = [f"  ! {streams.one_line(one)}" for one in (*paused, *errors)]
        first, *more = self.lines()
        lines = [f"{self._bar()}{first}", *more, *marked]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    def _retried(self) -> List[str]:
        return [f"tried again: {line}" for line in self.retries.lines(1)]

    def _bar(self) -> str:
        share = self._share()
        if share is None:
            return ""
        cells = int(share * _BAR_CELLS)
        return self._full * cells + self._empty * (_BAR_CELLS - cells) + " "

    def _share(self) -> Optional[float]:
        """Rows that have ended, of all; None where their number is not known."""
        total = self.progress.total
        if total is None or not self._kept + total:
            return None
        return self._done() / (self._kept + total)

    def _done(self) -> int:
        return self._kept + self.progress.done - self._unsent

    def lines(self) -> List[str]:
        """Time, rows, money, speed."""
        now = self.progress
        share = self._share()
        # Rounded down: 100 % means all of them.
        percent = "" if share is None else f"{int(share * 100)} %, "
        return [f"{percent}{self._time(now)}", self._rows(now), self._money(now), self._speed(now)]

    def _rows(self, now: Progress) -> str:
        total = "" if now.total is None else f" of {self._kept + now.total:,}"
        text = (
            f"{self._done():,}{total} rows done, {now.failed - self._unsent:,} failed, {now.cached:,} cached"
        )
        return f"{text}, {self._in_flight(now)}"

    def _in_flight(self, now: Progress) -> str:
        load = self._load()
        # A row whose answer is being kept is still in flight for the run.
        on_wire = now.in_flight if load is None else load.under_way
        text = f"{on_wire:,} {self._under_way}"
        # A limit that was lowered just now is below what was sent before.
        if load is not None and on_wire <= load.window:
            text += f" (max {load.window:,})"
        paused = self._paused()
        return f"{text}, paused for {format_duration_coarse(paused)}" if paused else text

    def _paused(self) -> float:
        load = self._load()
        return 0.0 if load is None else load.paused or 0.0

    def _time(self, now: Progress) -> str:
        passed = self._now() - self._began
        left = self._seconds_left(now, passed)
        return f"{format_duration_coarse(passed)} elapsed" + (
            "" if left is None else f", {format_duration_coarse(left)} left"
        )

    def _seconds_left(self, now: Progress, passed: float) -> Optional[float]:
        # What is left is not run once the run is being stopped.
        if now.seconds_left is None or self._unsent:
            return None
        # Judged when the last event came. Once that time is over, the judgement was wrong.
        left = now.seconds_left - max(0.0, passed - now.elapsed)
        return left if left > 0 else None

    def _money(self, now: Progress) -> str:
        cost = f"{format_usd(self._spent + now.cost)} so far"
        if now.cost_expected is not None and not self._unsent:
            cost += f", about {format_usd(self._spent + now.cost_expected)} in all"
        if now.unpriced:
            cost += f", {pluralize(now.unpriced, 'answer')} of unknown price"
        return cost

    def _speed(self, now: Progress) -> str:
        load, rates = self._load(), self._per_minute(now)
        limits = load.limits if load else (None, None, None)
        parts = [
            f"{_compact(rate)}{'' if limit is None else f' of {_compact(limit)}'} {kind}"
            for rate, limit, kind in zip(rates, limits, _KINDS)
        ]
        return f"per minute: {', '.join(parts)}"

    def _per_minute(self, now: Progress) -> List[float]:
        counts = (now.attempts, now.input_tokens, now.output_tokens)
        self._samples.append((self._now(), counts))
        while self._samples[-1][0] - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        passed = self._samples[-1][0] - since
        return [(new - old) / passed * 60 if passed else 0.0 for new, old in zip(counts, before)]


# Columns from which on there is room for the names of agents.
_ROOMY = 60
_BLANKS = {ord(char): " " for char in "\n\r\t\v\f"}


class WorkflowDisplay:
    """A line for each step that has begun or ended, drawn anew at each change and each second."""

    def __init__(self, name: str, as_json: bool) -> None:
        self._name = name
        # What is logged of each step would tear it to pieces.
        self._is_live = sys.stderr.isatty() and not (as_json or streams.is_quiet() or is_verbose())
        self._events: Dict[str, StepEvent] = {}
        self._began: Dict[str, float] = {}
        self._start = time.monotonic()
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
        """For as long as something else is printed."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def on_step(self, event: StepEvent) -> None:
        """To be given to the run."""
        self._events[event.step] = event
        self._began.setdefault(event.step, time.monotonic())

    def _drawn(self) -> Any:
        from rich.text import Text

        width, height = self._console.size
        return Text("\n".join(self.lines(width, height)), no_wrap=True, overflow="ellipsis")

    def lines(self, width: int, height: int) -> List[str]:
        """The whole, then the steps. Where there is no room for all, those that have ended longest ago are
        left out; where it is narrow, the names of agents."""
        now = time.monotonic()
        rows = [self._row(event, now, width >= _ROOMY) for event in self._shown(max(1, height - 3))]
        hidden = len(self._events) - len(rows)
        more = [f"  and {pluralize(hidden, 'step')} before"] if hidden else []
        head = f"{self._name}: {format_duration_coarse(now - self._start)}, {self._cost()} so far"
        # Names and reasons are the project's: nothing of them may be an order, or take a second line.
        return [_on_one_line(line) for line in (head, *more, *rows)]

    def _shown(self, most: int) -> List[StepEvent]:
        ended = [event for event in self._events.values() if event.result is not None]
        dropped = {event.step for event in ended[: max(0, len(self._events) - most)]}
        return [event for event in self._events.values() if event.step not in dropped][-most:]

    def _cost(self) -> str:
        ended = [event.result for event in self._events.values() if event.result is not None]
        return format_cost(CostTotals.of(one for step in ended for one in step.tries).full_cost)

    def _row(self, event: StepEvent, now: float, with_agent: bool) -> str:
        width = max(len(one) for one in self._events)
        agents = max(len(one.agent) for one in self._events.values())
        agent = f"{event.agent.ljust(agents)}  " if with_agent else ""
        return f"  {event.step.ljust(width)}  {agent}{self._told(event, now)}"

    def _told(self, event: StepEvent, now: float) -> str:
        result = event.result
        if result is None:
            return f"running, {_parts(event)}{format_duration_coarse(now - self._began[event.step])}"
        if result.began is None or result.ended is None:
            return f"skipped: {result.reason}"
        took = format_duration(result.ended - result.began)
        return f"{result.status}, {_parts(event)}{took}, {format_cost(result.cost)}"


def _on_one_line(text: str) -> str:
    return streams.strip_control_chars(text.translate(_BLANKS))


def _parts(event: StepEvent) -> str:
    if event.parts == 1:
        return ""
    failed = f", {event.failed} failed" if event.failed else ""
    return f"{event.done} of {pluralize(event.parts, 'part')}{failed}, "


def _compact(value: float) -> str:
    """A count in few characters: "1.5", "980", "12k", "1.2M"."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        # As it is rounded: 999,999 is 1M and not 1000k.
        if value >= 9.995 * size:
            return f"{value / size:,.0f}{unit}"
        if value >= 0.9995 * size:
            return f"{value / size:.1f}".replace(".0", "") + unit
    # A limit of 1.5 a minute is not 2.
    return f"{value:.1f}".replace(".0", "") if value < 10 else f"{value:,.0f}"
