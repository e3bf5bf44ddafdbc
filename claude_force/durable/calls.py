"""The life of a call in the database, as operations: enqueued, started, released, cancelled, saved.

A call is one row. DBOS's queue holds a workflow for it, whose only arguments are the call's id and
generation: bodies and answers stay in our tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import CancelledCallError
from .database import QUEUE, WORKFLOW, Database
from .db_worker import DbOp, SingleDbOp
from .schema import BUDGETS, CALLS, RESULTS, RUNS, commit_without_fsync, now
from .serialization import FORMAT, dump_outcome, run_of

if TYPE_CHECKING:
    from dbos import EnqueueOptions

# Pinned: calls that one version enqueued are made by workers of the same version.
APP_VERSION = f"claude-force-{FORMAT}"
# A call that was started this often is started alone: it may be what killed its workers.
SUSPECT_STARTS = 2
_CHUNK = 5000

IS_DONE = sa.exists().where(RESULTS.c.id == CALLS.c.id)
_ID = sa.tuple_(CALLS.c.id, CALLS.c.generation)


def workflow_id(call_id: str, generation: int) -> str:
    """Returns DBOS's id for a generation: DBOS never runs a finished workflow again."""
    return call_id if generation == 1 else f"{call_id}#{generation}"


@dataclass(frozen=True)
class _CallOp:
    call_id: str

    @property
    def call_ids(self) -> Sequence[str]:
        return (self.call_id,)


@dataclass(frozen=True)
class Enqueue(_CallOp, DbOp[None]):
    """Enqueues a call, unless it is queued or done.

    A call that was cancelled, or whose failure was delivered, is enqueued again. The deadline of the last
    caller applies, and its body as long as no worker has started the call. `budgets` are ids with limits in
    nano-USD.
    """

    agent: str
    body: str
    seconds_left: Optional[float]
    budgets: Tuple[Tuple[str, int], ...] = ()

    @classmethod
    def execute_batch(
        cls, database: Database, connection: sa.Connection, ops: Sequence[Enqueue]
    ) -> Sequence[None]:
        moment = connection.execute(sa.select(now(connection))).scalar_one()
        wanted = {op.call_id: op for op in ops}
        runs = sorted(set(map(run_of, wanted)))
        _insert_missing(connection, RUNS, [{"id": run, "about": "{}", "created": moment} for run in runs])
        add_budgets(connection, {budget: limit for op in ops for budget, limit in op.budgets}, moment)
        new = _insert_missing(connection, CALLS, [op._row(moment) for op in wanted.values()])
        due = dict.fromkeys(new, 1)
        known = {call_id: op for call_id, op in wanted.items() if call_id not in due}
        _update_known(connection, known, moment)
        due.update(_start_generations(connection, known, moment))
        for call_id, generation in due.items():
            _enqueue(database, connection, call_id, generation)
        return [None] * len(ops)

    def _row(self, moment: float) -> Dict[str, Any]:
        return {
            "id": self.call_id,
            "run": run_of(self.call_id),
            "agent": self.agent,
            "body": self.body,
            "generation": 1,
            "starts": 0,
            "created": moment,
            "deadline": None if self.seconds_left is None else moment + self.seconds_left,
        }


def _enqueue(database: Database, connection: sa.Connection, call_id: str, generation: int) -> None:
    options: EnqueueOptions = {
        "workflow_name": WORKFLOW,
        "queue_name": QUEUE,
        "workflow_id": workflow_id(call_id, generation),
        "app_version": APP_VERSION,
    }
    database.client.enqueue_in_transaction(connection, options, call_id, generation)


def _update_known(connection: sa.Connection, ops: Dict[str, Enqueue], moment: float) -> None:
    # In one order everywhere, so that no two transactions wait for each other.
    for call_id in sorted(ops):
        op = ops[call_id]
        body = sa.case((CALLS.c.starts == 0, op.body), else_=CALLS.c.body)
        change = sa.update(CALLS).where(CALLS.c.id == call_id)
        connection.execute(change.values(deadline=op._row(moment)["deadline"], body=body))


def _start_generations(connection: sa.Connection, ops: Dict[str, Enqueue], moment: float) -> Dict[str, int]:
    """Resets the calls that failed, by id with their new generations."""
    failed = sa.and_(RESULTS.c.success.is_(False), sa.or_(RESULTS.c.delivered, RESULTS.c.cancelled))
    generations = {}
    for part in chunks(list(ops)):
        done = sa.delete(RESULTS).where(RESULTS.c.id.in_(part), failed).returning(RESULTS.c.id)
        for call_id in connection.execute(done).scalars().all():
            values = {**ops[call_id]._row(moment), "generation": CALLS.c.generation + 1}
            reset = sa.update(CALLS).where(CALLS.c.id == call_id).values(values)
            generations[call_id] = connection.execute(reset.returning(CALLS.c.generation)).scalar_one()
    return generations


def add_budgets(connection: sa.Connection, limits: Dict[str, int], moment: Any) -> None:
    """Adds missing budgets: ids with their limits in nano-USD."""
    rows = [
        {"id": budget, "most": limit, "spent": 0, "reserved": 0, "created": moment}
        for budget, limit in limits.items()
    ]
    _insert_missing(connection, BUDGETS, rows)


class StartedCall(NamedTuple):
    """A call to be made now. `starts` includes this one; `seconds_left` is None without a deadline."""

    body: str
    starts: int
    seconds_left: Optional[float]


@dataclass(frozen=True)
class StartCall(_CallOp, DbOp[Optional[StartedCall]]):
    """Counts a start and returns the call.

    Returns None for a call that is done or of another generation, and without `even_suspect` for one that
    was started `SUSPECT_STARTS` times.
    """

    generation: int
    worker: str
    even_suspect: bool = False

    @classmethod
    def execute_batch(
        cls, database: Database, connection: sa.Connection, ops: Sequence[StartCall]
    ) -> Sequence[Optional[StartedCall]]:
        suspects = [(op.call_id, op.generation) for op in ops if op.even_suspect]
        if not suspects:
            commit_without_fsync(connection)
        found = connection.execute(
            sa.update(CALLS)
            .where(_ID.in_([(op.call_id, op.generation) for op in ops]), ~IS_DONE)
            .where(sa.or_(CALLS.c.starts < SUSPECT_STARTS, _ID.in_(suspects)))
            .values(starts=CALLS.c.starts + 1, worker=ops[0].worker)
            .returning(
                *(CALLS.c[name] for name in ("id", "generation", "body", "starts")),
                (CALLS.c.deadline - now(connection)).label("seconds_left"),
            )
        )
        calls = {(row.id, row.generation): StartedCall(*row[2:]) for row in found}
        return [calls.get((op.call_id, op.generation)) for op in ops]


@dataclass(frozen=True)
class IsOpen(_CallOp, DbOp[bool]):
    """Whether a generation of a call is current and has no result."""

    generation: int

    @classmethod
    def execute_batch(
        cls, database: Database, connection: sa.Connection, ops: Sequence[IsOpen]
    ) -> Sequence[bool]:
        wanted = [(op.call_id, op.generation) for op in ops]
        still_open = _current(connection, wanted, ~IS_DONE)
        return [one in still_open for one in wanted]


def _current(
    connection: sa.Connection, wanted: List[Tuple[str, int]], *conditions: sa.ColumnElement[bool]
) -> Set[Tuple[str, int]]:
    """Those of the (id, generation) pairs that are current."""
    rows = sa.select(CALLS.c.id, CALLS.c.generation).where(_ID.in_(wanted), *conditions)
    return {(row.id, row.generation) for row in connection.execute(rows)}


@dataclass(frozen=True)
class SaveResult(_CallOp, DbOp[None]):
    """Saves a call's outcome, unless it has one.

    A failure of a `generation` that is no longer current is dropped; an answer is saved, as it was paid for.
    """

    figures: str
    text: str
    success: bool
    cancelled: bool = False
    delivered: bool = False
    generation: Optional[int] = None

    @classmethod
    def execute_batch(
        cls, database: Database, connection: sa.Connection, ops: Sequence[SaveResult]
    ) -> Sequence[None]:
        rows: Dict[str, Dict[str, Any]] = {}
        for op in _without_stale(connection, ops):
            fields = {key: value for key, value in op.__dict__.items() if key in RESULTS.c}
            row = {**fields, "id": op.call_id, "run": run_of(op.call_id), "created": now(connection)}
            rows.setdefault(op.call_id, row)
        _insert_missing(connection, RESULTS, list(rows.values()))
        return [None] * len(ops)


def _without_stale(connection: sa.Connection, ops: Sequence[SaveResult]) -> List[SaveResult]:
    failures = [(op.call_id, op.generation) for op in ops if op.generation is not None and not op.success]
    stale = set(failures) - _current(connection, failures) if failures else set()
    return [op for op in ops if op.success or (op.call_id, op.generation) not in stale]


def save_cancelled(call_id: str) -> SaveResult:
    """Ends a call that nobody waits for any more."""
    figures, text = dump_outcome(CancelledCallError("The call was cancelled"), 0.0)
    return SaveResult(call_id, figures, text, success=False, cancelled=True, delivered=True)


@dataclass(frozen=True)
class Release(_CallOp, SingleDbOp[None]):
    """Puts a call back into the queue; its start by this worker does not count."""

    generation: int

    def execute(self, database: Database, connection: sa.Connection) -> None:
        released = sa.update(CALLS).where(CALLS.c.id == self.call_id, CALLS.c.generation == self.generation)
        values = {"generation": CALLS.c.generation + 1, "starts": CALLS.c.starts - 1, "worker": None}
        found = connection.execute(released.values(values).returning(CALLS.c.generation))
        for generation in found.scalars().all():
            _enqueue(database, connection, self.call_id, generation)


@dataclass(frozen=True)
class CancelQueued(SingleDbOp[None]):
    """Cancels those of the calls that no worker has started."""

    ids: Tuple[str, ...]

    @property
    def call_ids(self) -> Sequence[str]:
        return self.ids

    def execute(self, database: Database, connection: sa.Connection) -> None:
        # A worker that is about to start one of them finds another generation and leaves it.
        queued = sa.update(CALLS).where(CALLS.c.id.in_(self.ids), CALLS.c.starts == 0)
        taken = queued.values(generation=CALLS.c.generation + 1).returning(CALLS.c.id)
        cancel(database, connection, connection.execute(taken).scalars(), "The call was withdrawn")


def cancel(database: Database, connection: sa.Connection, call_ids: Iterable[str], reason: str) -> None:
    """Saves a cancellation for each of the calls, to be delivered to its callers."""
    figures, text = dump_outcome(CancelledCallError(reason), 0.0)
    ends = [SaveResult(call_id, figures, text, success=False, cancelled=True) for call_id in call_ids]
    SaveResult.execute_batch(database, connection, ends)


def _insert_missing(connection: sa.Connection, table: sa.Table, rows: List[Dict[str, Any]]) -> List[str]:
    """Inserts rows whose ids are not there yet. Returns their ids."""
    if not rows:
        return []
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    # In one order everywhere, so that no two transactions wait for each other.
    rows = sorted(rows, key=lambda row: str(row["id"]))
    insert = dialect.insert(table).values(rows).on_conflict_do_nothing().returning(table.c.id)
    return list(connection.execute(insert).scalars())


def chunks(items: List[str]) -> Iterable[List[str]]:
    """Splits a list into parts that fit into one statement."""
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
