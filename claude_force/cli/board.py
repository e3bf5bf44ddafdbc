"""How a bulk run goes, on stderr: a live board for a person, a line now and then for a log."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Tuple

from ..bulk import Event, Finished, Paused, Progress, Retried
from ..calling import Load
from ..results import is_unsent
from ..spelled import about, count, dollars, duration
from . import streams
from .logs import is_verbose, without_attempts

_FRAME_SECONDS, _LINE_SECONDS = 0.25, 10.0
_WINDOW_SECONDS = 30.0
_ERRORS = 3
_KINDS = ("requests", "input tokens", "output tokens")


class Board:
    """Follows a run's events. `load` tells what is on the wire, `kept` and `spent` what was there before.

    `under_way` says where the rows are that were begun and have not ended.
    """

    def __init__(
        self,
        load: Callable[[], Optional[Load]],
        kept: int,
        spent: float,
        quiet: bool = False,
        under_way: str = "in flight",
    ) -> None:
        self._load, self._kept, self._spent, self._under_way = load, kept, spent, under_way
        # What is logged of each step would tear a board to pieces.
        self._live = sys.stderr.isatty() and not (quiet or streams.is_quiet() or is_verbose())
        self.progress = Progress()
        # Rows that a stop left as they were: neither done nor failed.
        self._unsent = 0
        self._errors: Deque[str] = deque(maxlen=_ERRORS)
        self._samples: Deque[Tuple[float, Tuple[int, int, int]]] = deque([(time.monotonic(), (0, 0, 0))])

    def on_event(self, event: Event) -> None:
        """To be given to the run."""
        self.progress = event.progress
        if isinstance(event, Retried):
            self._errors.append(f"row {event.index + 1}, attempt {event.attempt}: {event.error}")
        elif isinstance(event, Paused):
            self._errors.append(f"all wait for {duration(event.seconds)}: {event.error}")
        elif isinstance(event, Finished) and is_unsent(event.result):
            self._unsent += 1
        elif isinstance(event, Finished) and not event.result.success:
            self._errors.append(f"row {event.index + 1} failed: {event.result.error}")

    async def show(self) -> None:
        """Until it is cancelled."""
        if self._live:
            with without_attempts():
                await self._show_live()
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            streams.note("; ".join(self.lines()))

    async def _show_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._drawn(), refresh=True)
                await asyncio.sleep(_FRAME_SECONDS)

    def _drawn(self) -> Any:
        from rich.text import Text

        lines = [*self.lines(), *(f"  ! {streams.one_line(error)}" for error in self._errors)]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    def lines(self) -> List[str]:
        """Rows, speed, money."""
        now = self.progress
        return [self._rows(now), self._speed(now), self._money(now)]

    def _rows(self, now: Progress) -> str:
        done, failed = self._kept + now.done - self._unsent, now.failed - self._unsent
        total = "" if now.total is None else f" of {self._kept + now.total:,}"
        text = f"{done:,}{total} rows done, {failed:,} failed, {now.cached:,} cached"
        load = self._load()
        # A row that has its answer is still in flight for the run, until that is kept.
        on_wire = now.in_flight if load is None else load.under_way
        room = "" if load is None else f" of {load.window:,} at most"
        paused = f", paused for {about(load.paused)}" if load is not None and load.paused else ""
        return f"{text}, {on_wire:,} {self._under_way}{room}{paused}"

    def _speed(self, now: Progress) -> str:
        load, rates = self._load(), self._per_minute(now)
        limits = load.limits if load else (None, None, None)
        parts = [
            f"{rate:,.0f}{'' if limit is None else f' of {limit:,.0f}'} {kind}"
            for rate, limit, kind in zip(rates, limits, _KINDS)
        ]
        return f"each minute {', '.join(parts)}"

    def _per_minute(self, now: Progress) -> List[float]:
        counts = (now.attempts, now.input_tokens, now.output_tokens)
        self._samples.append((time.monotonic(), counts))
        while self._samples[-1][0] - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        passed = self._samples[-1][0] - since
        return [(new - old) / passed * 60 if passed else 0.0 for new, old in zip(counts, before)]

    def _money(self, now: Progress) -> str:
        cost = f"{dollars(self._spent + now.cost)} so far"
        # What is left is not run once the run is being stopped.
        if now.cost_expected is not None and not self._unsent:
            cost += f", about {dollars(self._spent + now.cost_expected)} in all"
        if now.unpriced:
            cost += f", {count(now.unpriced, 'answer')} of unknown price"
        left = "" if now.seconds_left is None or self._unsent else f"; {about(now.seconds_left)} left"
        return f"{cost}{left}"
