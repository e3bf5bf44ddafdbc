"""A bulk run as it goes: the board, Ctrl-C, and the workers where they make the calls."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Optional

import anyio

from ..async_orchestrator import AsyncAgentOrchestrator
from ..bulk import OnEvent, ResumableRun
from ..formatting import pluralize
from ..types import AgentResult
from . import streams
from .database import Crew
from .logs import few_warnings
from .progress_display import ProgressDisplay
from .signals import caught


class BulkRun:
    """`options` are those of the calls, `crew` is there where the run `run_id` is a durable one."""

    def __init__(
        self,
        run: ResumableRun,
        running: AsyncAgentOrchestrator,
        options: Dict[str, Any],
        grace: float,
        quiet: bool,
        crew: Optional[Crew] = None,
        run_id: Optional[str] = None,
    ) -> None:
        self._run, self._running, self._options, self._grace = run, running, options, grace
        self._crew, self._run_id = crew, run_id
        away = "handed over" if crew is not None and crew.is_away else "in flight"
        self.board = ProgressDisplay(
            running.load, run.summary.kept, run.summary.cost, run.pending, quiet, away
        )

    async def follow(self) -> None:
        """Until the run has ended or was stopped; its outcome is then up to date."""
        with few_warnings():
            await self._follow()

    async def _follow(self) -> None:
        self._running.observers.append(self._run.record_cancelled)
        self._working = working = asyncio.ensure_future(self._run.run(self._stream, self.board.on_event))
        beside = [asyncio.ensure_future(self.board.show())]
        if self._crew is not None:
            beside.append(asyncio.ensure_future(self._crew.watch()))
        try:
            with _interrupted(self._stop, working.cancel, self._has_nothing):
                await asyncio.wait([working])
        except asyncio.CancelledError:
            self._run.stop()
        finally:
            for one in (working, *beside):
                one.cancel()
            await asyncio.gather(working, *beside, return_exceptions=True)
        if not working.cancelled():
            working.result()

    def _stream(self, tasks: AsyncIterator[Any], on_event: OnEvent) -> AsyncIterator[AgentResult]:
        durable: Dict[str, Any] = {}
        if self._run_id is not None:
            durable = {"run_id": self._run_id, "place": self._run.row_id}
        return self._running.stream_multiple(
            tasks,
            on_event=on_event,
            total=self._run.pending,
            run_gate=self._run.run_gate,
            **durable,
            **self._options,
        )

    def _has_nothing(self) -> bool:
        """Whether no row has ended and no call is in a queue: nothing is to be told or taken back."""
        return self._run_id is None and not self._run.summary.ran

    async def _stop(self) -> None:
        self._run.stop()
        self._tell_stopping()
        with anyio.move_on_after(self._grace):
            await self._running.drain(self._grace)
            # An answer that has come is kept in the cache before it is a result.
            await self._run.wait_until_saved()
        # What is left has not been sent, or did not end in time.
        self._working.cancel()

    def _tell_stopping(self) -> None:
        what = f"{pluralize(self.board.progress.in_flight, 'request')} in flight"
        if self._crew is not None and self._crew.is_away:
            what = "what no worker has begun is taken back, and what one has begun"
        streams.status(f"stopping; {what} may end within {self._grace:g} s (Ctrl-C again: now)")


@contextmanager
def _interrupted(
    stop: Callable[[], Any], stop_now: Callable[[], Any], has_nothing: Callable[[], bool]
) -> Iterator[None]:
    """The first Ctrl-C calls `stop`, the second `stop_now`. Within the import of the SDK the first ends the
    process where the run `has_nothing`, and the second in any case."""
    stopping: List[asyncio.Future[None]] = []

    def interrupt() -> None:
        if stopping:
            stop_now()
        else:
            stopping.append(asyncio.ensure_future(stop()))

    try:
        with caught(interrupt, lambda: bool(stopping) or has_nothing()):
            yield
    finally:
        for one in stopping:
            one.cancel()
