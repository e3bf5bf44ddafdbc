"""Lists, cancels and deletes durable runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ..errors import DatabaseError, InputError
from . import dbos_runtime
from .calls import IS_DONE, cancel
from .database import Database, parse_url
from .schema import CALLS, RESULTS, RUNS, WORKERS, now
from .serialization import load_outcome

_SHOWN_FAILURES = 20


class RunState(NamedTuple):
    """One run, in numbers of calls.

    Attributes:
        created: Unix time, by the database's clock.
        open: calls without a result; `begun` of them a worker has started.
    """

    run_id: str
    created: float
    calls: int
    succeeded: int
    failed: int
    cancelled: int
    open: int
    begun: int


class WorkerState(NamedTuple):
    """One worker. `silent` is the number of seconds since its last heartbeat."""

    name: str
    concurrency: int
    started: float
    silent: float


class Failure(NamedTuple):
    """A failed call of a run."""

    place: str
    agent: str
    error: str


class Runs:
    """The durable runs in a database. Methods block; they raise DatabaseError where it can't be used.

    Example:
        runs = Runs("postgresql://user:password@host/claude")
        for run in runs.list(10):
            print(run.run_id, run.succeeded, "of", run.calls)
        runs.cancel("nightly-2026-03-01")
        runs.close()
    """

    def __init__(self, url: str) -> None:
        self._database = Database(parse_url(url))

    @property
    def is_embedded(self) -> bool:
        """Whether the process that begins a run makes its calls too, as with SQLite."""
        return self._database.is_sqlite

    def list(self, most: int = 50) -> List[RunState]:
        """Returns the newest runs, newest first."""
        with self._connected() as connection:
            newest = sa.select(RUNS.c.id).order_by(RUNS.c.created.desc()).limit(most)
            return [RunState(*row) for row in connection.execute(_states().where(RUNS.c.id.in_(newest)))]

    def get(self, run_id: str) -> RunState:
        """Returns one run. Raises InputError for an unknown id."""
        with self._connected() as connection:
            row = connection.execute(_states().where(RUNS.c.id == run_id)).one_or_none()
        if row is None:
            raise InputError(f"There is no run {run_id!r} in {self._database.address}.")
        return RunState(*row)

    def failures(self, run_id: str, most: int = _SHOWN_FAILURES) -> List[Failure]:
        """Returns the run's first failed calls."""
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
        """Cancels the run's open calls; requests in flight end within seconds. Returns how many calls."""
        self.get(run_id)
        cancelled = self._cancel_open(run_id)
        dbos_runtime.cancel_queued(self._database, run_id)
        # Calls that were enqueued in between have left the queue too: without a result, their driver would
        # wait for ever.
        return cancelled + self._cancel_open(run_id)

    def _cancel_open(self, run_id: str) -> int:
        with self._connected() as connection:
            still_open = sa.select(CALLS.c.id).where(CALLS.c.run == run_id, ~IS_DONE)
            call_ids = list(connection.execute(still_open).scalars())
            for start in range(0, len(call_ids), 500):
                cancel(self._database, connection, call_ids[start : start + 500], "The run was cancelled")
        return len(call_ids)

    def prune(self, days: float) -> int:
        """Deletes runs that began more than `days` ago; returns how many.

        Runs with open calls stay, and those with younger answers that were not delivered yet.
        """
        with self._connected() as connection:
            since = now(connection) - days * 86400
            old = connection.execute(sa.select(RUNS.c.id).where(RUNS.c.created < since)).scalars().all()
            deletable = [run_id for run_id in old if not _is_needed(connection, run_id, since)]
        for run_id in deletable:
            dbos_runtime.delete_run(self._database, run_id)
            with self._database.begin() as connection:
                for table, column in ((RESULTS, RESULTS.c.run), (CALLS, CALLS.c.run), (RUNS, RUNS.c.id)):
                    connection.execute(sa.delete(table).where(column == run_id))
        return len(deletable)

    def workers(self) -> List[WorkerState]:
        """Returns the workers that are alive or died a moment ago; an empty list with SQLite."""
        if self._database.is_sqlite:
            return []
        with self._connected() as connection:
            silent = now(connection) - WORKERS.c.seen
            columns = (WORKERS.c.name, WORKERS.c.concurrency, WORKERS.c.started, silent)
            found = connection.execute(sa.select(*columns).order_by(WORKERS.c.name))
            return [WorkerState(*row) for row in found]

    def close(self) -> None:
        """Closes all connections; the next use opens new ones."""
        self._database.close()

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        self._database.prepare()
        try:
            with self._database.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise DatabaseError(
                f"The database {self._database.address} can't be used: {self._database.reason(error)}"
            ) from None


def _is_needed(connection: sa.Connection, run_id: str, since: sa.ColumnElement[float]) -> bool:
    unread = sa.and_(RESULTS.c.success, RESULTS.c.delivered.is_(False), RESULTS.c.created >= since)
    still_open = sa.select(CALLS.c.id).where(CALLS.c.run == run_id, ~IS_DONE)
    undelivered = sa.select(RESULTS.c.id).where(RESULTS.c.run == run_id, unread)
    return any(connection.execute(query.limit(1)).first() for query in (still_open, undelivered))


def _failure(row: Any) -> Failure:
    place = row.id.partition(":")[2].rpartition(":")[0]
    return Failure(place, row.agent, str(load_outcome(row.figures, '""', 0.0)))


def _states() -> sa.Select[Any]:
    is_open = RESULTS.c.id.is_(None)
    counted: Dict[str, sa.ColumnElement[int]] = {
        "calls": sa.func.count(CALLS.c.id),
        "succeeded": _count(RESULTS.c.success),
        "failed": _count(sa.and_(sa.not_(RESULTS.c.success), sa.not_(RESULTS.c.cancelled))),
        "cancelled": _count(RESULTS.c.cancelled),
        "open": _count(sa.and_(CALLS.c.id.is_not(None), is_open)),
        "begun": _count(sa.and_(CALLS.c.starts > 0, is_open)),
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
