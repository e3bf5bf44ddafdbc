"""How a workflow goes, on stderr: live, for a person."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

from ..costs import CostTotals
from ..formatting import format_duration, format_duration_coarse, pluralize
from ..workflow import StepEvent
from . import streams
from .logs import is_verbose
from .render import dollars

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
        return dollars(CostTotals.of(one for step in ended for one in step.tries).full_cost)

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
        return f"{result.status}, {_parts(event)}{took}, {dollars(result.cost)}"


def _on_one_line(text: str) -> str:
    return streams.harmless(text.translate(_BLANKS))


def _parts(event: StepEvent) -> str:
    if event.parts == 1:
        return ""
    failed = f", {event.failed} failed" if event.failed else ""
    return f"{event.done} of {pluralize(event.parts, 'part')}{failed}, "
