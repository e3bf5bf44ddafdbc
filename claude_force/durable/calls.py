"""What becomes of a call in the database, as jobs for the desk: handed over, begun, finished.

A call is one row, and DBOS's queue has a workflow for it whose id is the call's ticket and whose only
arguments are that ticket and a number: bodies stay here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ..errors import CancelledCallError
from .database import QUEUE, WORKFLOW, Database
from .db_worker import DbOp
from .serialization import FORMAT, outcome_texts
from .tables import BUDGETS, CALLS, RESULTS, RUNS, need_not_wait, now

# Pinned: what a version enqueues is run by workers of that version, whatever else is installed.
APP_VERSION = f"claude-force-{FORMAT}"
# A call that was begun so often is begun alone from then on, so that it takes no others with it.
SUSPECT_STARTS = 2
_CHUNK = 5000


def workflow_id(call_id: str, generation: int) -> str:
    """DBOS never runs a workflow again that has ended, so that a call's second generation is another one."""
    return call_id if generation == 1 else f"{call_id}#{generation}"


def run_of(call_id: str) -> str:
    return call_id.partition(":")[0]


class Work(NamedTuple):
    """A call that was begun. `left` is in seconds, None without a deadline."""

    body: str
    starts: int
    left: Optional[float]


@dataclass(frozen=True)
class _OfOneCall:
    call_id: str

    @property
    def about(self) -> Sequence[str]:
        return (self.call_id,)


@dataclass(frozen=True)
class Enqueue(_OfOneCall, DbOp[None]):
    """Puts a call into the queue, unless it is there or done. One that failed, of which the driver was told,
    or that was cancelled, is queued anew. `budgets` are ids with their nano-USD: those of the last one who
    asks hold for a call that no worker has begun."""

    agent: str
    body: str
    left: Optional[float]
    budgets: Tuple[Tuple[str, int], ...] = ()

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Enqueue]
    ) -> Sequence[None]:
        moment = connection.execute(sa.select(now(connection))).scalar_one()
        wanted = {job.call_id: job for job in jobs}
        _add(connection, RUNS, [{"id": run, "about": "{}", "created": moment} for run in _runs(wanted)])
        most = {identity: nano for job in jobs for identity, nano in job.budgets}
        add_budgets(connection, most, moment)
        new = _add(connection, CALLS, [job._row(moment) for job in wanted.values()])
        due = dict.fromkeys(new, 1)
        known = [job for call_id, job in wanted.items() if call_id not in due]
        _ask_again(connection, known, moment)
        due.update(_anew(connection, known, moment))
        for call_id, generation in due.items():
            enqueue(database, connection, call_id, generation)
        return [None] * len(jobs)

    def _row(self, moment: float) -> Dict[str, Any]:
        return {
            "id": self.call_id,
            "run": run_of(self.call_id),
            "agent": self.agent,
            "body": self.body,
            "generation": 1,
            "starts": 0,
            "created": moment,
            "deadline": None if self.left is None else moment + self.left,
        }


def enqueue(database: Database, connection: sa.Connection, call_id: str, generation: int) -> None:
    """Part of the connection's transaction."""
    database.client.enqueue_in_transaction(
        connection,
        {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": workflow_id(call_id, generation),
            "app_version": APP_VERSION,
        },
        call_id,
        generation,
    )


def _ask_again(connection: sa.Connection, jobs: List[Enqueue], moment: float) -> None:
    """A call that is handed over again has the time that it is given now, and what else holds for it."""
    # In one order everywhere, so that no two transactions wait for each other.
    for job in sorted(jobs, key=lambda job: job.call_id):
        idle = sa.case((CALLS.c.starts == 0, job.body), else_=CALLS.c.body)
        change = sa.update(CALLS).where(CALLS.c.id == job.call_id)
        connection.execute(change.values(deadline=job._row(moment)["deadline"], body=idle))


def _anew(connection: sa.Connection, jobs: List[Enqueue], moment: float) -> Dict[str, int]:
    """Those of the calls, known before, that are to be made again, with their new generation."""
    failed = sa.and_(RESULTS.c.success.is_(False), sa.or_(RESULTS.c.delivered, RESULTS.c.cancelled))
    found = {}
    for part in chunks([job.call_id for job in jobs]):
        done = sa.delete(RESULTS).where(RESULTS.c.id.in_(part), failed).returning(RESULTS.c.id)
        for call_id in connection.execute(done).scalars().all():
            job = next(one for one in jobs if one.call_id == call_id)
            fresh = sa.update(CALLS).where(CALLS.c.id == call_id)
            values = {**job._row(moment), "generation": CALLS.c.generation + 1}
            found[call_id] = connection.execute(
                fresh.values(values).returning(CALLS.c.generation)
            ).scalar_one()
    return found


def add_budgets(connection: sa.Connection, most: Dict[str, int], moment: Any) -> None:
    rows = [
        {"id": identity, "most": nano, "spent": 0, "reserved": 0, "created": moment}
        for identity, nano in most.items()
    ]
    _add(connection, BUDGETS, rows)


@dataclass(frozen=True)
class Begin(_OfOneCall, DbOp[Optional[Work]]):
    """Counts a start and gets the body; None for a call that is done, or that was begun too often for
    this."""

    generation: int
    worker: str

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Begin]
    ) -> Sequence[Optional[Work]]:
        need_not_wait(connection)
        asked = [(job.call_id, job.generation) for job in jobs]
        done = sa.exists().where(RESULTS.c.id == CALLS.c.id)
        found = connection.execute(
            sa.update(CALLS)
            .where(sa.tuple_(CALLS.c.id, CALLS.c.generation).in_(asked), ~done)
            .where(CALLS.c.starts < SUSPECT_STARTS)
            .values(starts=CALLS.c.starts + 1, worker=jobs[0].worker)
            .returning(*_WORK, (CALLS.c.deadline - now(connection)).label("left"))
        )
        works = {(row.id, row.generation): Work(row.body, row.starts, row.left) for row in found}
        return [works.get((job.call_id, job.generation)) for job in jobs]


_WORK = (CALLS.c.id, CALLS.c.generation, CALLS.c.body, CALLS.c.starts)


@dataclass(frozen=True)
class IsOpen(_OfOneCall, DbOp[bool]):
    """Whether a call is to be made at all."""

    generation: int

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[IsOpen]
    ) -> Sequence[bool]:
        asked = [(job.call_id, job.generation) for job in jobs]
        done = sa.exists().where(RESULTS.c.id == CALLS.c.id)
        still = _generations(connection, asked, ~done)
        return [one in still for one in asked]


def _generations(
    connection: sa.Connection, asked: List[Tuple[str, int]], *which: sa.ColumnElement[bool]
) -> Set[Tuple[str, int]]:
    """Those of tickets and generations that are still current."""
    place = sa.tuple_(CALLS.c.id, CALLS.c.generation)
    found = connection.execute(sa.select(CALLS.c.id, CALLS.c.generation).where(place.in_(asked), *which))
    return {(row.id, row.generation) for row in found}


@dataclass(frozen=True)
class BeginAlone(_OfOneCall, DbOp[Optional[Work]]):
    """As `Begin`, however often it was begun before."""

    generation: int
    worker: str

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[BeginAlone]
    ) -> Sequence[Optional[Work]]:
        return [_begin_alone(connection, job) for job in jobs]


def _begin_alone(connection: sa.Connection, job: BeginAlone) -> Optional[Work]:
    done = sa.exists().where(RESULTS.c.id == CALLS.c.id)
    row = connection.execute(
        sa.update(CALLS)
        .where(CALLS.c.id == job.call_id, CALLS.c.generation == job.generation, ~done)
        .values(starts=CALLS.c.starts + 1, worker=job.worker)
        .returning(*_WORK, (CALLS.c.deadline - now(connection)).label("left"))
    ).one_or_none()
    return Work(row.body, row.starts, row.left) if row else None


@dataclass(frozen=True)
class SaveResult(_OfOneCall, DbOp[None]):
    """Keeps a call's outcome, unless it has one. A failure of a `generation` that was handed over anew since
    is none: an answer is one, as it was paid for."""

    figures: str
    text: str
    success: bool
    cancelled: bool = False
    delivered: bool = False
    generation: Optional[int] = None

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[SaveResult]
    ) -> Sequence[None]:
        rows: Dict[str, Dict[str, Any]] = {}
        for job in _in_time(connection, jobs):
            rows.setdefault(job.call_id, {**job._row(), "created": now(connection)})
        _add(connection, RESULTS, list(rows.values()))
        return [None] * len(jobs)

    def _row(self) -> Dict[str, Any]:
        names = ("figures", "text", "success", "cancelled", "delivered")
        return {
            "id": self.call_id,
            "run": run_of(self.call_id),
            **{name: getattr(self, name) for name in names},
        }


def _in_time(connection: sa.Connection, jobs: Sequence[SaveResult]) -> List[SaveResult]:
    """Without failures of a generation that is not the call's any more."""
    failures = [
        (job.call_id, job.generation) for job in jobs if job.generation is not None and not job.success
    ]
    late = set(failures) - _generations(connection, failures) if failures else set()
    return [job for job in jobs if job.success or (job.call_id, job.generation) not in late]


@dataclass(frozen=True)
class Release(_OfOneCall, DbOp[None]):
    """Gives back a call that was begun, or was about to be, to whichever worker is next."""

    generation: int
    started: bool

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Release]
    ) -> Sequence[None]:
        for job in jobs:
            after = connection.execute(
                sa.update(CALLS)
                .where(CALLS.c.id == job.call_id, CALLS.c.generation == job.generation)
                .values(
                    generation=CALLS.c.generation + 1, starts=CALLS.c.starts - int(job.started), worker=None
                )
                .returning(CALLS.c.generation)
            ).scalar_one_or_none()
            if after is not None:
                enqueue(database, connection, job.call_id, after)
        return [None] * len(jobs)


@dataclass(frozen=True)
class CancelQueued(DbOp[None]):
    """Cancels calls that no worker has begun."""

    call_ids: Tuple[str, ...]

    @property
    def about(self) -> Sequence[str]:
        return self.call_ids

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[CancelQueued]
    ) -> Sequence[None]:
        figures, text = outcome_texts(CancelledCallError("The call was withdrawn"), 0.0)
        for part in chunks([call_id for job in jobs for call_id in job.call_ids]):
            # A worker that begins one of them in this moment finds another generation, and leaves it.
            idle = sa.update(CALLS).where(CALLS.c.id.in_(part), CALLS.c.starts == 0)
            taken = idle.values(generation=CALLS.c.generation + 1).returning(CALLS.c.id)
            ends = [
                SaveResult(one, figures, text, False, True) for one in connection.execute(taken).scalars()
            ]
            if ends:
                SaveResult.together(database, connection, ends)
        return [None] * len(jobs)


def _add(connection: sa.Connection, table: sa.Table, rows: List[Dict[str, Any]]) -> List[str]:
    """Those that are not there yet. Returns their ids."""
    if not rows:
        return []
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    # In one order everywhere, so that no two transactions wait for each other.
    rows = sorted(rows, key=lambda row: str(row["id"]))
    insert = dialect.insert(table).values(rows).on_conflict_do_nothing().returning(table.c.id)
    return list(connection.execute(insert).scalars())


def _runs(call_ids: Iterable[str]) -> List[str]:
    return sorted({run_of(call_id) for call_id in call_ids})


def chunks(call_ids: List[str]) -> Iterable[List[str]]:
    return (call_ids[start : start + _CHUNK] for start in range(0, len(call_ids), _CHUNK))
