"""From a file of tasks to a file of results: what is missing is run, and each row is kept as it ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import AsyncIterator, Callable, Dict, Iterator, Optional, Union

from .. import settings
from ..costs import CostTotals, cost_or_bound
from ..errors import BudgetExceededError, CancelledCallError, ClaudeForceError, ClosedError, InputError
from ..limits.run_gate import RunGate
from ..types import AgentResult, CallCompleted
from .progress import Event, Finished, OnEvent
from .result_lines import EarlierCost, SavedRow
from .results_file import OutputDisturbedError, Results, check_fields
from .task_file import TaskRow, TaskRows
from .task_stream import Task
from .unknown_models import (
    MODEL,
    RUN,
    CallChecks,
    ModelOf,
    UnknownModels,
    UnrunnableRows,
    answer_bytes,
    changed,
    disturbed,
    line_bytes,
    no_room,
    not_written,
)

# `AsyncAgentOrchestrator.stream_multiple` with everything given but the tasks and who is told of events.
StreamTasks = Callable[[AsyncIterator[Task], OnEvent], AsyncIterator[AgentResult]]


@dataclass
class RunSummary(CostTotals):
    """How a run ended, and what it cost.

    Attributes:
        total: rows of the run; `kept` were in the output before, `ran` were added now.
        succeeded, failed: of all that the output holds; so are answers that are truncated, refused or empty.
        over_budget: some rows were not sent because the budget had no room for them.
        stopped: it was told to stop; `cancelled`, by somebody who cancelled its calls where they are made.
        error: why no row could be run any more.
        is_resumable: the same run again can go on from the output as it is.
        lost: answers that were paid for and could not be written; `lost_cost` is USD, and part of `cost`.
        cost: of all that the output holds, as `unpriced` and `unpriced_at_most`; `saved` and
            `prompt_cache_saving` are of what ran now.
    """

    total: int = 0
    kept: int = 0
    ran: int = 0
    succeeded: int = 0
    failed: int = 0
    truncated: int = 0
    refused: int = 0
    empty: int = 0
    over_budget: bool = False
    stopped: bool = False
    cancelled: bool = False
    error: Optional[ClaudeForceError] = None
    lost: int = 0
    lost_cost: float = 0.0
    is_resumable: bool = True

    def add(self, result: AgentResult) -> None:
        """Counts one that ran."""
        super().add(result)
        self.ran += 1
        self.succeeded += result.success
        self.failed += not result.success
        self._count_flags(result)

    def keep(self, done: SavedRow) -> None:
        """Counts one that stood in the output before. Its cost is counted already."""
        self.kept += 1
        self.succeeded += done.success
        self.failed += not done.success
        self.unpriced += done.unpriced
        self._count_flags(done)

    def _count_flags(self, one: Union[AgentResult, SavedRow]) -> None:
        self.truncated += one.truncated
        self.refused += one.refused
        self.empty += one.empty

    def note_cost(self, cost: Optional[float], at_most: Optional[float]) -> None:
        """Adds what a call that was broken off cost, in USD."""
        self.cost += cost or 0.0
        if cost is None:
            self.unpriced_at_most += at_most or 0.0

    def note_lost(self, cost: Optional[float], at_most: Optional[float]) -> None:
        """Counts an answer that was paid for and could not be written."""
        self.lost += 1
        self.lost_cost += cost_or_bound(cost, at_most)
        self.note_cost(cost, at_most)

    @property
    def budgeted(self) -> float:
        """USD that count against a budget: calls of unknown cost at their worst."""
        return self.cost + self.unpriced_at_most

    @property
    def missing(self) -> int:
        return self.total - self.succeeded - self.failed


class ResumableRun:
    """Raises InputError where the output holds rows that are not those of `rows`. Changes nothing yet.

    `options` is a text of all that changes the answers beside the rows, `limit` the rows that are run.
    `afresh` runs all of them, `retry_failed` those that failed too.
    After a failure, `fail_fast` begins no further row. `model_of` tells the model that an agent asks, None
    where it can't. `max_tokens` bounds an answer: so much room is held on the disk for each row under way.
    Where all rows are among the `refusals`, or those can't be had, that is an InputError too.

    Attributes:
        run_gate: to be given to the run; shut as soon as no row can be run or written any more.
    """

    def __init__(
        self,
        rows: TaskRows,
        output: Results,
        options: str = "",
        limit: Optional[int] = None,
        afresh: bool = False,
        retry_failed: bool = False,
        fail_fast: bool = False,
        model_of: Optional[ModelOf] = None,
        max_tokens: Optional[int] = None,
        refusals: Optional[Callable[[], CallChecks]] = None,
    ) -> None:
        self._rows, self._output, self._options = rows, output, options
        self._fail_fast = fail_fast
        self._answer_bytes = answer_bytes(max_tokens or settings.MAX_TOKENS)
        self._limit = float("inf") if limit is None else limit
        self._kept: Dict[int, SavedRow] = {} if afresh else dict(output.done)
        # What rows that are run again have cost already.
        self._before: Dict[int, EarlierCost] = {}
        self._drop(lambda done: done.broken_off or (retry_failed and not done.success))
        self.summary = self._compared(UnrunnableRows(refusals))
        self._under_way: Dict[int, TaskRow] = {}
        self.run_gate = RunGate()
        self._models = UnknownModels(self, model_of or str)
        self._ended = False
        self._row_ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pending(self) -> int:
        """Rows that are to be run."""
        return self.summary.total - self.summary.kept

    def pending_rows(self) -> Iterator[TaskRow]:
        """The rows that are to be run."""
        for row in self._rows:
            if row.index >= self._limit:
                return
            if row.index not in self._kept:
                yield row

    def begin(self) -> None:
        """Takes the rows that are run again out of the output, all but their cost. Raises OSError."""
        self._output.keep(self._kept, [index for index, cost in self._before.items() if any(cost)])

    async def run(self, stream: StreamTasks, on_event: OnEvent) -> RunSummary:
        """Runs what is missing, after `begin`; `outcome` is up to date at each moment."""

        def told(event: Event) -> None:
            # Here and not where the results are read: what is answered is kept before the next is asked.
            # One that was broken off is told of before it ends.
            row = self._under_way.get(event.index)
            if isinstance(event, Finished) and row is not None:
                del self._under_way[event.index]
                self._output.give_back(line_bytes(row, self._answer_bytes))
                self._take(row, event.result)
                self._row_ended.set()
            if event.progress.in_flight:
                self._idle.clear()
            else:
                self._idle.set()
            # The stream counts only what is run now; who listens is told the row of the input.
            on_event(event if row is None or row.index == event.index else replace(event, index=row.index))

        async for _ in stream(self._feed(), told):
            pass
        self._expect_output()
        for _, result in self._models.held[:1]:
            # No row of any other model was answered.
            if result.error is not None and not self.summary.stopped:
                self._end(result.error)
        return self.summary

    def _expect_output(self) -> None:
        try:
            self._output.expect_there()
        except OutputDisturbedError as error:
            self._end_disturbed(error)

    def stop(self) -> None:
        """No further row is begun."""
        self._ended = self.summary.stopped = True

    def row_id(self, number: int) -> str:
        """The row that is the run's task `number`, by a name that stays the same when the run goes on."""
        return str(self._under_way[number].index)

    async def wait_until_saved(self) -> None:
        """Returns when no row has been sent whose result is not written."""
        await self._idle.wait()

    async def _feed(self) -> AsyncIterator[Task]:
        for number, row in enumerate(self.pending_rows()):
            if self._ended:
                return
            if not await self._finds_room(row):
                return
            self._under_way[number] = row
            # The result of a row that can't be run is its problem.
            yield InputError(row.problem) if row.problem else (row.agent, row.task)  # type: ignore[misc]

    async def _finds_room(self, row: TaskRow) -> bool:
        """Waits until the output has room for one result more; False where it never will have."""
        while not self._output.hold(line_bytes(row, self._answer_bytes)):
            if not self._under_way:
                self._end(no_room(self._output, self._answer_bytes))
            if self._ended:
                return False
            self._row_ended.clear()
            await self._row_ended.wait()
        return True

    def _take(self, row: TaskRow, result: AgentResult) -> None:
        outcome = self.summary
        if isinstance(result.error, ClosedError):
            self._note_cost(row, result)
            return
        if isinstance(result.error, CancelledCallError):
            outcome.cancelled |= not self._ended
            self.stop()
            return
        if isinstance(result.error, BudgetExceededError):
            self._ended = outcome.over_budget = True
            return
        if result.error is not None and result.error.fatal_for == RUN:
            self._note_spent(row, result)
            self._end(result.error)
        elif result.error is not None and result.error.fatal_for == MODEL and self._models.holds(row, result):
            if self._models.are_all_unknown():
                self._end(result.error)
        else:
            for held in self._models.released_by(row, result):
                self._keep(*held)
            self._keep(row, result)

    def _end(self, error: ClaudeForceError) -> None:
        """No row can be run any more."""
        self._ended = True
        if self.summary.error is None:
            # A row that was not sent may end before the one that met the error.
            met = error.__cause__ if getattr(error, "skipped", False) else error
            self.summary.error = met if isinstance(met, ClaudeForceError) else error
        self.run_gate.shut(ClosedError(f"The run was ended: {self.summary.error}"))

    def _end_disturbed(self, error: OutputDisturbedError) -> None:
        self._end(disturbed(error))
        self.summary.is_resumable = error.is_resumable

    def _keep(self, row: TaskRow, result: AgentResult) -> None:
        if self._write(row, result):
            self.summary.add(result)
            if self._fail_fast and not result.success:
                self._ended = True

    def _write(self, row: TaskRow, result: AgentResult) -> bool:
        try:
            self._output.write(row, row.key(self._options), result, self._before.get(row.index, (0.0, 0.0)))
        except OutputDisturbedError as error:
            # It is written all the same, and saved under another name.
            self._end_disturbed(error)
        except OSError as error:
            # The next one may find room again, and is paid for already.
            self._end(not_written(self._output, error))
            self._note_lost(row, result)
            return False
        return True

    def _note_lost(self, row: TaskRow, result: AgentResult) -> None:
        """Counts an answer that is not written; its cost is written where there is room for that."""
        if not cost_or_bound(result.cost, result.cost_at_most):
            return
        self.summary.note_lost(result.cost, result.cost_at_most)
        error = ClosedError("The answer could not be written")
        cost = replace(result, success=False, output="", error=error, errors=[str(error)])
        alone = replace(row, echo=None, fields={})
        with suppress(OSError):
            # Else the report alone tells of it.
            self._output.write(alone, row.key(self._options), cost, self._before.get(row.index, (0.0, 0.0)))

    def record_cancelled(self, executed: CallCompleted) -> None:
        """To be told of each call that has ended: one that is cancelled under way is no row's result."""
        if not isinstance(executed.result.error, CancelledCallError):
            return
        call = executed.call
        task = call.task if call.arguments is None else call.arguments
        for number, row in self._under_way.items():
            if row.task == task and row.agent == executed.result.agent_name:
                self._note_cost(self._under_way.pop(number), executed.result)
                return

    def _note_cost(self, row: TaskRow, result: AgentResult) -> None:
        """The same row is run again by the next run, which has to know what is spent."""
        if cost_or_bound(result.cost, result.cost_at_most) and self._write(row, result):
            self.summary.note_cost(result.cost, result.cost_at_most)

    def _note_spent(self, row: TaskRow, result: AgentResult) -> None:
        """Writes down what a row cost that gets no result, as an answer ended the run."""
        error = ClosedError("The run was ended by an answer that no other row can survive")
        self._note_cost(row, replace(result, error=error, errors=[str(error)]))

    def _drop(self, unwanted: Callable[[SavedRow], bool]) -> None:
        for index, done in list(self._kept.items()):
            if unwanted(done) and index < self._limit:
                self._before[index] = done.cost, done.cost_at_most
                del self._kept[index]

    def _compared(self, problems: UnrunnableRows) -> RunSummary:
        """Counts the rows, and finds those that are kept among them."""
        before = [*self._before.values(), *((one.cost, one.cost_at_most) for one in self._kept.values())]
        known, doubtful = (sum(amounts) for amounts in zip((0.0, 0.0), *before))
        outcome, rows = RunSummary(cost=known, unpriced_at_most=doubtful), 0
        for row in self._rows:
            rows += 1
            done = self._kept.get(row.index)
            problems.add(row, done is not None)
            check_fields(row)
            within = row.index < self._limit
            outcome.total += within
            if done is None:
                continue
            if done.key != row.key(self._options):
                raise changed(self._output, f"row {row.index + 1} is not the one that it answers")
            if within:
                outcome.keep(done)
        problems.expect_fewer_than(rows)
        beyond = [index for index in self._kept if index >= rows]
        if beyond:
            raise changed(self._output, f"it answers {max(beyond) + 1} rows and there are {rows}")
        return outcome
