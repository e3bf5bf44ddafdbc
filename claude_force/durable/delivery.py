"""Delivers outcomes to the callers who wait for them, and charges the callers' budgets."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import AsyncIterator, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union
from weakref import WeakKeyDictionary

import anyio
import sqlalchemy as sa
from anyio.abc import TaskGroup

from ..costs import clear_cost, cost_or_bound, without_cost
from ..errors import CallError, ClaudeForceError
from ..limits.budget import Budget
from ..limits.call_context import CallbackError, CallContext
from ..limits.call_cost import at_most
from ..types import Clock, Reply
from .calls import add_budgets, chunks
from .database import Database
from .db_worker import DbOp, DbWorker
from .schema import BUDGETS, RESULTS, now
from .serialization import Outcome, charged_budgets, load_outcome


class ResultRow(NamedTuple):
    """A saved result. `age` is in seconds; `delivered` says that a caller has had it."""

    call_id: str
    figures: str
    text: str
    success: bool
    delivered: bool
    age: float


class BudgetCharge(NamedTuple):
    """What an outcome takes from a budget. `limit` is the budget's; both are in nano-USD."""

    budget: str
    limit: int
    amount: int


class Delivered(NamedTuple):
    """A call whose outcome was delivered; `charges` apply if that was its first delivery."""

    call_id: str
    charges: Tuple[BudgetCharge, ...] = ()


@dataclass(frozen=True)
class Collect(DbOp[Dict[str, ResultRow]]):
    """Returns the results that exist of `wanted`, by call id; marks others as delivered."""

    wanted: Tuple[str, ...]
    delivered: Tuple[Delivered, ...] = ()

    @property
    def call_ids(self) -> Sequence[str]:
        return (*self.wanted, *(one.call_id for one in self.delivered))

    @classmethod
    def execute_batch(
        cls, database: Database, connection: sa.Connection, ops: Sequence[Collect]
    ) -> Sequence[Dict[str, ResultRow]]:
        _mark_delivered(connection, {one.call_id: one.charges for op in ops for one in op.delivered})
        age = (now(connection) - RESULTS.c.created).label("age")
        columns = (*(RESULTS.c[name] for name in ("id", "figures", "text", "success", "delivered")), age)
        rows: Dict[str, ResultRow] = {}
        for part in chunks([call_id for op in ops for call_id in op.wanted]):
            for row in connection.execute(sa.select(*columns).where(RESULTS.c.id.in_(part))):
                rows[row.id] = ResultRow(*row)
        return [{call_id: rows[call_id] for call_id in op.wanted if call_id in rows} for op in ops]


def _mark_delivered(connection: sa.Connection, delivered: Dict[str, Tuple[BudgetCharge, ...]]) -> None:
    charges: List[BudgetCharge] = []
    for part in chunks(sorted(delivered)):
        first = sa.update(RESULTS).where(RESULTS.c.id.in_(part), RESULTS.c.delivered.is_(False))
        for call_id in connection.execute(first.values(delivered=True).returning(RESULTS.c.id)).scalars():
            charges += delivered[call_id]
    if not charges:
        return
    add_budgets(connection, {one.budget: one.limit for one in charges}, now(connection))
    for budget in sorted({one.budget for one in charges}):
        amount = sum(one.amount for one in charges if one.budget == budget)
        change = sa.update(BUDGETS).where(BUDGETS.c.id == budget)
        connection.execute(change.values(spent=BUDGETS.c.spent + amount))


def outcome_of(row: ResultRow, at: float) -> Outcome:
    """Returns the outcome in a row, delivered `at`; it costs nothing where another caller has had it."""
    outcome = load_outcome(row.figures, row.text, at)
    return without_its_cost(outcome, row.age) if row.delivered else outcome


def without_its_cost(outcome: Outcome, age: float) -> Outcome:
    """Returns the outcome for a caller who does not pay for it. `age` is in seconds."""
    if isinstance(outcome, Reply):
        return replace(
            outcome,
            **without_cost(outcome),
            wasted_cost=0.0,
            cached=True,
            cache_age=max(0.0, age),
        )
    if isinstance(outcome, CallError):
        clear_cost(outcome)
    return outcome


def budget_cost(outcome: Outcome) -> float:
    """Returns the USD that count against a budget, with failed attempts: an upper bound where unknown."""
    if isinstance(outcome, Reply):
        return at_most(outcome) or 0.0
    return cost_or_bound(outcome.cost, outcome.cost_at_most) if isinstance(outcome, CallError) else 0.0


class BudgetIds:
    """Gives this process's budgets ids that no other process uses."""

    def __init__(self) -> None:
        self._ids: WeakKeyDictionary[Budget, str] = WeakKeyDictionary()

    def id_of(self, budget: Budget) -> str:
        return self._ids.setdefault(budget, uuid.uuid4().hex)

    def of(self, context: CallContext) -> Tuple[str, ...]:
        return tuple(map(self.id_of, context.budgets))

    def uncharged(self, context: CallContext, row: ResultRow) -> List[Budget]:
        """Returns the call's budgets that the result was not charged to: another process enqueued it."""
        charged = charged_budgets(row.figures) if context.budgets else ()
        return [budget for budget in context.budgets if self.id_of(budget) not in charged]


# Is called in the event loop with a call's result, or with the error that ends the wait for it.
OnResult = Callable[[Union[ResultRow, ClaudeForceError]], None]


@dataclass(eq=False)
class _Watch:
    call_id: str
    on_result: OnResult
    tasks: TaskGroup


class ResultPoller:
    """Looks for the results of all calls that an event loop waits for, with one query for all of them.

    No task outlives the calls: the poll runs in the task group of one of them, and moves to another's when
    that call ends.

    Example:
        async with poller.watch(call_id, on_result):
            await result
    """

    def __init__(self, worker: DbWorker, clock: Clock, seconds: float) -> None:
        self._worker, self._clock, self._seconds = worker, clock, seconds
        self._watches: Dict[asyncio.AbstractEventLoop, List[_Watch]] = {}
        self._delivered: List[Delivered] = []
        self._next_look = 0.0

    @property
    def call_ids(self) -> Tuple[str, ...]:
        """The calls that the running event loop waits for."""
        return tuple({watch.call_id: None for watch in self._running()})

    def _running(self) -> List[_Watch]:
        return self._watches.get(asyncio.get_running_loop(), [])

    @asynccontextmanager
    async def watch(self, call_id: str, on_result: OnResult) -> AsyncIterator[None]:
        """Calls `on_result` at each look that finds the call's result, for as long as the block runs."""
        failure: Optional[BaseException] = None
        async with anyio.create_task_group() as tasks:
            watch = _Watch(call_id, on_result, tasks)
            watches = self._watches.setdefault(asyncio.get_running_loop(), [])
            watches.append(watch)
            if watches[0] is watch:
                tasks.start_soon(self._poll)
            try:
                yield
            except (Exception, CallbackError) as error:
                # Raised below: the task group would wrap it in an exception group.
                failure = error
            finally:
                self._remove(watch)
        if failure is not None:
            raise failure

    def _remove(self, watch: _Watch) -> None:
        watches = self._running()
        # The first one's task group runs the poll.
        polls = watches[0] is watch
        watches.remove(watch)
        if polls:
            watch.tasks.cancel_scope.cancel()
            if watches:
                watches[0].tasks.start_soon(self._poll)
            else:
                del self._watches[asyncio.get_running_loop()]
                self.flush()

    async def _poll(self) -> None:
        while True:
            # Kept when the poll moves to another task group, which happens with most looks.
            await self._clock.sleep(max(0.0, self._next_look - self._clock.now()))
            self._next_look = self._clock.now() + self._seconds
            try:
                found = await self._worker.submit(Collect(self.call_ids, self._take_delivered()))
            except ClaudeForceError as error:
                self.fail(error)
            else:
                for watch in self._running():
                    if watch.call_id in found:
                        watch.on_result(found[watch.call_id])

    def mark_delivered(self, delivered: Delivered) -> None:
        """Marks a result with the next look, to save a transaction; at once where a budget is charged."""
        self._delivered.append(delivered)
        if delivered.charges or not self._watches:
            self.flush()

    def flush(self) -> None:
        """Marks what was delivered since the last look."""
        if self._delivered:
            self._worker.submit_nowait(Collect((), self._take_delivered()))

    def _take_delivered(self) -> Tuple[Delivered, ...]:
        taken, self._delivered = tuple(self._delivered), []
        return taken

    def fail(self, error: ClaudeForceError) -> None:
        """Ends the waits of the running event loop."""
        for watch in self._running():
            watch.on_result(error)
