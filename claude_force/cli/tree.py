"""How a workflow goes, on stderr: live, for a person."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

from ..workflow import StepEvent
from . import streams
from .logs import is_verbose
from .render import count, dollars


class Tree:
    """A line for each step that has begun or ended, drawn anew at each change and each second."""

    def __init__(self, name: str, as_json: bool) -> None:
        self._name = name
        # What is logged of each step would tear it to pieces.
        self._is_live = sys.stderr.isatty() and not (as_json or streams.is_quiet() or is_verbose())
        self._events: Dict[str, StepEvent] = {}
        self._began: Dict[str, float] = {}
        self._start = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> Tree:
        if self._is_live:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True), get_renderable=self._drawn, refresh_per_second=4, transient=True
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

        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

    def lines(self) -> List[str]:
        """The whole, then each step."""
        now = time.monotonic()
        costs = [event.result.cost for event in self._events.values() if event.result is not None]
        cost = sum(one or 0.0 for one in costs)
        head = f"{self._name}: {now - self._start:.0f} s, ${cost:.4f} so far"
        width = max((len(one) for one in self._events), default=0)
        agents = max((len(event.agent) for event in self._events.values()), default=0)
        rows = [
            f"  {event.step.ljust(width)}  {event.agent.ljust(agents)}  {self._told(event, now)}"
            for event in self._events.values()
        ]
        return [head, *rows]

    def _told(self, event: StepEvent, now: float) -> str:
        result = event.result
        if result is None:
            return f"running, {_parts(event)}{now - self._began[event.step]:.0f} s"
        if result.began is None or result.ended is None:
            return f"skipped: {result.reason}"
        return f"{result.status}, {_parts(event)}{result.ended - result.began:.1f} s, {dollars(result.cost)}"


def _parts(event: StepEvent) -> str:
    if event.parts == 1:
        return ""
    failed = f", {event.failed} failed" if event.failed else ""
    return f"{event.done} of {count(event.parts, 'part')}{failed}, "
