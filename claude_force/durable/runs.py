"""What is known of durable runs, and an end to one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ..errors import CancelledCallError, DatabaseError, InputError
from . import dbos_runtime as host
from .calls import SaveResult
from .database import Database
from .database_url import parse
from .serialization import outcome_texts, read_outcome
from .tables import CALLS, RESULTS, RUNS, WORKERS, now

_SHOWN_FAILURES = 20


class RunState(NamedTuple):
    """One run. Times are the database's, `created` in Unix seconds; `open` calls are queued or under way."""

    run_id: str
    created: float
    calls: int
    succeeded: int
    failed: int
    cancelled: int
    open: int
    begun: int


class WorkerState(NamedTuple):
    """One worker; `silent` is for how many seconds it has not been heard of."""

    name: str
    concurrency: int
    started: float
    silent: float


class Failure(NamedTuple):
    """A call of a run that failed."""

    place: str
    agent: str
    error: str


class Runs:
    """The runs in a database. Its methods block; they raise DatabaseError where it can't be used."""

    def __init__(self, url: str) -> None:
        self._database = Database(parse(url))
        self._ready = False

    @property
    def is_embedded(self) -> bool:
        """Whether the driver makes the calls itself, as with SQLite."""
        return self._database.is_sqlite

    def list(self, most: int = 50) -> List[RunState]:
        """The newest first."""
        with self._connected() as connection:
            newest = sa.select(RUNS.c.id).order_by(RUNS.c.created.desc()).limit(most)
            return [RunState(*row) for row in connection.execute(_states().where(RUNS.c.id.in_(newest)))]

    def get(self, run_id: str) -> RunState:
        """Raises InputError for a run that is not there."""
        with self._connected() as connection:
            row = connection.execute(_states().where(RUNS.c.id == run_id)).one_or_none()
        if row is None:
            raise InputError(f"There is no run {run_id!r} in {self._database.address}.")
        return RunState(*row)

    def failures(self, run_id: str, most: int = _SHOWN_FAILURES) -> List[Failure]:
        """Of its failed calls the first ones."""
        with self._connected() as connection:
            failed = (
                sa.select(CALLS.c.id, CALLS.c.agent, RESULTS.c.figures)
                .join(RESULTS, RESULTS.c.id == CALLS.c.id)
                .where(RESULTS.c.run == run_id, RESULTS.c.success.is_(False), RESULTS.c.cancelled.is_(False))
                .order_by(RESULTS.c.created)
                .limit(most)
            )
            return [_failure(row) for row in connection.execute(failed)]

    def cancel(self, run_id: str) -> int:
        """Ends what is open of it; what is on the wire ends within a second or two. Returns how many
        calls."""
        self.get(run_id)
        number = self._end_open(run_id)
        host.withdraw(self._database, run_id)
        # What was handed over meanwhile is out of the queue too, and its driver would wait for ever.
        return number + self._end_open(run_id)

    def _end_open(self, run_id: str) -> int:
        figures, text = outcome_texts(CancelledCallError("The run was cancelled"), 0.0)
        with self._connected() as connection:
            done = sa.exists().where(RESULTS.c.id == CALLS.c.id)
            still = connection.execute(sa.select(CALLS.c.id).where(CALLS.c.run == run_id, ~done))
            call_ids = list(still.scalars())
            for start in range(0, len(call_ids), 500):
                part = call_ids[start : start + 500]
                ends = [SaveResult(call_id, figures, text, success=False, cancelled=True) for call_id in part]
                SaveResult.together(self._database, connection, ends)
        return len(call_ids)

    def prune(self, days: float) -> int:
        """Removes runs that began longer ago than that, of which nothing is open, and no answer that is
        younger waits for its driver. Returns how many."""
        with self._connected() as connection:
            since = now(connection) - days * 86400
            old = connection.execute(sa.select(RUNS.c.id).where(RUNS.c.created < since)).scalars().all()
            names = [
                name
                for name in old
                if not _is_open(connection, name) and not _has_unread(connection, name, since)
            ]
        for name in names:
            host.forget(self._database, name)
            with self._database.begin() as connection:
                for table, column in ((RESULTS, RESULTS.c.run), (CALLS, CALLS.c.run), (RUNS, RUNS.c.id)):
                    connection.execute(sa.delete(table).where(column == name))
        return len(names)

    def workers(self) -> List[WorkerState]:
        """All that are alive, or were a moment ago; none with SQLite."""
        if self._database.is_sqlite:
            return []
        with self._connected() as connection:
            silent = now(connection) - WORKERS.c.seen
            columns = (WORKERS.c.name, WORKERS.c.concurrency, WORKERS.c.started, silent)
            found = connection.execute(sa.select(*columns).order_by(WORKERS.c.name))
            return [WorkerState(*row) for row in found]

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        if not self._ready:
            self._database.prepare()
            self._ready = True
        try:
            with self._database.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise DatabaseError(
                f"The database {self._database.address} can't be used: {self._database.reason(error)}"
            ) from None


def _is_open(connection: sa.Connection, run_id: str) -> bool:
    done = sa.exists().where(RESULTS.c.id == CALLS.c.id)
    still = sa.select(CALLS.c.id).where(CALLS.c.run == run_id, ~done).limit(1)
    return connection.execute(still).first() is not None


def _has_unread(connection: sa.Connection, run_id: str, since: sa.ColumnElement[float]) -> bool:
    unread = sa.and_(RESULTS.c.success, RESULTS.c.delivered.is_(False), RESULTS.c.created >= since)
    return (
        connection.execute(sa.select(RESULTS.c.id).where(RESULTS.c.run == run_id, unread)).first() is not None
    )


def _failure(row: Any) -> Failure:
    place = row.id.partition(":")[2].rpartition(":")[0]
    return Failure(place, row.agent, str(read_outcome(row.figures, '""', 0.0)))


def _states() -> sa.Select[Any]:
    counted: Dict[str, sa.ColumnElement[int]] = {
        "calls": sa.func.count(CALLS.c.id),
        "succeeded": _count(RESULTS.c.success),
        "failed": _count(sa.and_(sa.not_(RESULTS.c.success), sa.not_(RESULTS.c.cancelled))),
        "cancelled": _count(RESULTS.c.cancelled),
        "open": _count(sa.and_(CALLS.c.id.is_not(None), RESULTS.c.id.is_(None))),
        "begun": _count(sa.and_(CALLS.c.starts > 0, RESULTS.c.id.is_(None))),
    }
    return (
        sa.select(RUNS.c.id, RUNS.c.created, *(column.label(name) for name, column in counted.items()))
        .select_from(
            RUNS.outerjoin(CALLS, CALLS.c.run == RUNS.c.id).outerjoin(RESULTS, RESULTS.c.id == CALLS.c.id)
        )
        .group_by(RUNS.c.id, RUNS.c.created)
        .order_by(RUNS.c.created.desc())
    )


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)
