"""Runs the rows that a results file lacks, and writes each result as its row ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import AbstractSet, AsyncIterator, Callable, Dict, Iterator, Optional

from .. import settings
from ..costs import cost_or_bound
from ..errors import (
    MODEL,
    RUN,
    BudgetExceededError,
    CancelledCallError,
    ClaudeForceError,
    ClosedError,
    InputError,
)
from ..limits.run_gate import RunGate
from ..types import AgentResult, CallCompleted
from .disk_space import answer_bytes, line_bytes
from .progress import Event, Finished, OnEvent
from .result_lines import EarlierCost, SavedRow
from .results_file import OutputDisturbedError, Results
from .run_summary import RunSummary
from .task_file import RESULT_FIELDS, TOOL_FIELDS, TaskRow, TaskRows
from .task_stream import Task
from .unrunnable import CallChecks, ModelOf, UnknownModels, UnrunnableRows

# `AsyncAgentOrchestrator.stream_multiple` with all arguments but the tasks and `on_event`.
StreamTasks = Callable[[AsyncIterator[Task], OnEvent], AsyncIterator[AgentResult]]

_NO_COST = (0.0, 0.0)


class ResumableRun:
    """Runs rows and writes their results to `output`, which may have results of earlier runs.

    Call `begin` before `run`: it removes the results that are replaced.

    Args:
        options: a text of all that changes the answers, besides the rows.
        limit: how many rows of the input are run; None for all.
        restart: run all rows again; `retry_failed` runs the failed ones again.
        fail_fast: start no row after a failure.
        model_of: returns the model that an agent asks for, None where it can't be asked.
        max_tokens: the longest answer, for which disk space is reserved.
        load_checks: returns the checks that say why a row can't be sent; raises InputError where none can.

    Raises InputError where `output` holds results of other rows.

    Attributes:
        run_gate: for the run's calls; shut as soon as no row can be run or written any more.
        summary: up to date at each moment.

    Example:
        run = ResumableRun(TaskFile(Path("tasks.csv"), None), output)
        run.begin()
        await run.run(lambda tasks, listen: fleet.stream_multiple(tasks, on_event=listen), print)
        print(run.summary.succeeded)
    """

    def __init__(
        self,
        rows: TaskRows,
        output: Results,
        options: str = "",
        limit: Optional[int] = None,
        restart: bool = False,
        retry_failed: bool = False,
        fail_fast: bool = False,
        model_of: Optional[ModelOf] = None,
        max_tokens: Optional[int] = None,
        load_checks: Optional[Callable[[], CallChecks]] = None,
        uses_tools: bool = False,
    ) -> None:
        self._rows, self._output, self._options, self._fail_fast = rows, output, options, fail_fast
        self._limit = float("inf") if limit is None else limit
        self._fields = {*RESULT_FIELDS, *(TOOL_FIELDS if uses_tools else ())}
        self._answer_bytes = answer_bytes(max_tokens or settings.MAX_TOKENS)
        self._saved: Dict[int, SavedRow] = {} if restart else dict(output.saved)
        self._earlier = self._take_out_rerun(retry_failed)
        self.summary = self._compare(UnrunnableRows(load_checks))
        self._in_flight: Dict[int, TaskRow] = {}
        self.run_gate = RunGate()
        self._models = UnknownModels(self.pending_rows, model_of or str)
        self._ended = False
        self._row_ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def _take_out_rerun(self, retry_failed: bool) -> Dict[int, EarlierCost]:
        """Removes the rows to run again from the saved rows; returns what they have cost already."""
        rerun = {
            index: row
            for index, row in self._saved.items()
            if index < self._limit and (row.interrupted or (retry_failed and not row.success))
        }
        for index in rerun:
            del self._saved[index]
        return {index: (row.cost, row.cost_at_most) for index, row in rerun.items()}

    def _compare(self, unrunnable: UnrunnableRows) -> RunSummary:
        """Counts the rows, and checks that the saved ones are among them."""
        costs = [*self._earlier.values(), *((row.cost, row.cost_at_most) for row in self._saved.values())]
        known, doubtful = (sum(amounts) for amounts in zip(_NO_COST, *costs))
        summary, rows = RunSummary(cost=known, unpriced_at_most=doubtful), 0
        for row in self._rows:
            rows += 1
            saved = self._saved.get(row.index)
            unrunnable.add(row, saved is not None)
            _check_fields(row, self._fields)
            is_within = row.index < self._limit
            summary.total += is_within
            if saved is not None:
                if saved.key != row.key(self._options):
                    raise self._other_run(f"row {row.index + 1} is not the row that it answers")
                if is_within:
                    summary.add_saved(saved)
        unrunnable.expect_fewer_than(rows)
        last = max(self._saved, default=-1)
        if last >= rows:
            raise self._other_run(f"it answers {last + 1} rows and there are {rows}")
        return summary

    @property
    def pending(self) -> int:
        """How many rows are to be run."""
        return self.summary.total - self.summary.done_before

    def pending_rows(self) -> Iterator[TaskRow]:
        """Yields the rows that are to be run."""
        for row in self._rows:
            if row.index >= self._limit:
                return
            if row.index not in self._saved:
                yield row

    def begin(self) -> None:
        """Removes the rows that are run again from the results, all but their cost. Raises OSError."""
        self._output.retain(self._saved, [index for index, cost in self._earlier.items() if any(cost)])

    async def run(self, stream: StreamTasks, on_event: OnEvent) -> RunSummary:
        """Runs the pending rows, after `begin`."""

        def listen(event: Event) -> None:
            # Here and not where results are read: a result is written before the next row is sent.
            # An interrupted row ends before its event.
            row = self._in_flight.get(event.index)
            if isinstance(event, Finished) and row is not None:
                del self._in_flight[event.index]
                self._output.release(line_bytes(row, self._answer_bytes))
                self._take(row, event.result)
                self._row_ended.set()
            if event.progress.in_flight:
                self._idle.clear()
            else:
                self._idle.set()
            # The stream counts the pending rows; the listener gets the index in the input.
            on_event(event if row is None or row.index == event.index else replace(event, index=row.index))

        async for _ in stream(self._feed(), listen):
            pass
        try:
            self._output.check()
        except OutputDisturbedError as error:
            self._end_disturbed(error)
        for _, result in self._models.withheld[:1]:
            # No row of any other model was answered.
            if result.error is not None and not self.summary.stopped:
                self._end(result.error)
        return self.summary

    def stop(self) -> None:
        """Starts no further row."""
        self._ended = self.summary.stopped = True

    def row_id(self, number: int) -> str:
        """Returns a name of the stream's task `number` that stays the same when the run is resumed."""
        return str(self._in_flight[number].index)

    async def wait_until_saved(self) -> None:
        """Returns when no row has been sent whose result is not written."""
        await self._idle.wait()

    async def _feed(self) -> AsyncIterator[Task]:
        for number, row in enumerate(self.pending_rows()):
            if self._ended or not await self._reserve(row):
                return
            self._in_flight[number] = row
            # A task that is an error has that error as its result.
            yield InputError(row.problem) if row.problem else (row.agent, row.task)  # type: ignore[misc]

    async def _reserve(self, row: TaskRow) -> bool:
        """Waits until there is disk space for one result more; returns False where there never will be."""
        while not self._output.reserve(line_bytes(row, self._answer_bytes)):
            if not self._in_flight:
                self._end_unwritable(
                    f"there is no room for an answer of {self._answer_bytes // 1024:,} KiB. No further row "
                    "was sent. Make room on the disk, or name a file on another one."
                )
            if self._ended:
                return False
            self._row_ended.clear()
            await self._row_ended.wait()
        return True

    def _take(self, row: TaskRow, result: AgentResult) -> None:
        """Decides what the result of a row means for the run."""
        error, summary = result.error, self.summary
        if isinstance(error, ClosedError):
            self._save_cost(row, result)
        elif isinstance(error, CancelledCallError):
            summary.cancelled |= not self._ended
            self.stop()
        elif isinstance(error, BudgetExceededError) and not error.is_of_call:
            self._ended = summary.over_budget = True
            # What its attempts before this one cost, or the turns of an agent with tools.
            self._save_cost(row, _without_result(result, "The run was ended by its budget"))
        elif error is not None and error.fatal_for == RUN:
            reason = "The run was ended by an answer that no other row can survive"
            self._save_cost(row, _without_result(result, reason))
            self._end(error)
        elif error is not None and error.fatal_for == MODEL and self._models.withhold(row, result):
            if self._models.are_all_unknown():
                self._end(error)
        else:
            for withheld in self._models.release(row, result):
                self._save(*withheld)
            self._save(row, result)

    def _save(self, row: TaskRow, result: AgentResult) -> None:
        if self._write(row, result):
            self.summary.add(result)
            if self._fail_fast and not result.success:
                self._ended = True

    def _save_cost(self, row: TaskRow, result: AgentResult) -> None:
        """Writes what a row without a result cost. The next run runs it again and has to know."""
        if cost_or_bound(result.cost, result.cost_at_most) and self._write(row, result):
            self.summary.add_cost(result.cost, result.cost_at_most)

    def _write(self, row: TaskRow, result: AgentResult) -> bool:
        try:
            self._append(row, result)
        except OutputDisturbedError as error:
            # The result is still written, and saved under another name.
            self._end_disturbed(error)
        except OSError as error:
            self._end_unwritable(
                f"{error.strerror}. The results in it are complete; later answers are in the cache, if it is "
                "on."
            )
            self._save_lost(row, result)
            return False
        return True

    def _append(self, row: TaskRow, result: AgentResult) -> None:
        self._output.write(row, row.key(self._options), result, self._earlier.get(row.index, _NO_COST))

    def _save_lost(self, row: TaskRow, result: AgentResult) -> None:
        """Counts an answer that can't be written, and writes its cost if there is room for that."""
        if cost_or_bound(result.cost, result.cost_at_most):
            self.summary.add_lost(result.cost, result.cost_at_most)
            with suppress(OSError):
                # Else the summary alone has the cost.
                bare = replace(row, echo=None, fields={})
                self._append(bare, _without_result(result, "The answer could not be written"))

    def record_cancelled(self, completed: CallCompleted) -> None:
        """Observes the calls: writes the cost of one that was cancelled in flight, which has no result."""
        if not isinstance(completed.result.error, CancelledCallError):
            return
        call = completed.call
        task = call.task if call.arguments is None else call.arguments
        for number, row in self._in_flight.items():
            if row.task == task and row.agent == completed.result.agent_name:
                self._save_cost(self._in_flight.pop(number), completed.result)
                return

    def _end(self, error: ClaudeForceError) -> None:
        """Ends the run: no row can be run any more."""
        self._ended = True
        if self.summary.error is None:
            # A row that was skipped may end before the one that met the error.
            met = error.__cause__ if getattr(error, "skipped", False) else error
            self.summary.error = met if isinstance(met, ClaudeForceError) else error
        self.run_gate.shut(ClosedError(f"The run was ended: {self.summary.error}"))

    def _end_disturbed(self, error: OutputDisturbedError) -> None:
        self._end(error.explain())
        self.summary.is_resumable = error.is_resumable

    def _end_unwritable(self, reason: str) -> None:
        self._end(ClaudeForceError(f"{self._output.path} can't be written: {reason}"))

    def _other_run(self, how: str) -> InputError:
        return InputError(
            f"{self._output.path} is the output of other tasks or options: {how}. Name another file for the "
            "output, or start over with --no-resume; answers that are still the same come from the cache."
        )


def _without_result(result: AgentResult, reason: str) -> AgentResult:
    error = ClosedError(reason)
    return replace(result, success=False, output="", error=error, errors=[str(error)])


def _check_fields(row: TaskRow, own: AbstractSet[str]) -> None:
    """Raises InputError where a field of the row has the name of a field of each result."""
    taken = sorted(own & set(row.fields))
    if taken:
        raise InputError(
            f"Row {row.index + 1} has a field {taken[0]!r}, which each result has itself; rename it."
        )
