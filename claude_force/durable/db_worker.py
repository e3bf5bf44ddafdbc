"""Runs database operations in a thread: in batches, and again for as long as the database is away."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from typing import Any, Dict, Generic, List, Sequence, Type, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ..errors import ClosedError, DatabaseError
from ..storage.batch_worker import BatchWorker
from .database import Database, is_transient

logger = logging.getLogger(__name__)

R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class DbOp(ABC, Generic[R]):
    """A database operation with a result of type `R`. It is idempotent: a lost reply makes it run twice.

    Operations of one kind that come together share a transaction, and the statements of `execute_batch`.
    """

    # Whether each operation commits by itself: for rows that many others wait for.
    unbatched = False

    @property
    def call_ids(self) -> Sequence[str]:
        """The calls that it concerns: operations on one call run in the order of submission."""
        return ()

    @classmethod
    @abstractmethod
    def execute_batch(
        cls, database: Database, connection: sa.Connection, ops: Sequence[Any]
    ) -> Sequence[Any]:
        """Executes operations of this kind; returns one result for each."""


class SingleDbOp(DbOp[R]):
    """An operation with its own statements.

    Example:
        @dataclass(frozen=True)
        class CountCalls(SingleDbOp[int]):
            run: str

            def execute(self, database, connection):
                return connection.execute(count_of(self.run)).scalar_one()

        calls = await DbWorker(database).submit(CountCalls("a-run"))
    """

    @abstractmethod
    def execute(self, database: Database, connection: sa.Connection) -> R:
        """Executes this operation; returns its result."""

    @classmethod
    def execute_batch(
        cls, database: Database, connection: sa.Connection, ops: Sequence[Any]
    ) -> Sequence[Any]:
        return [op.execute(database, connection) for op in ops]


class Flush(SingleDbOp[None]):
    """Completes when all operations before it have."""

    def execute(self, database: Database, connection: sa.Connection) -> None:
        pass


class DbWorker:
    """One thread that executes operations, for any number of event loops."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closing = threading.Event()
        self._thread = BatchWorker(self._work, "claude-force-durable")
        self._away = False

    async def submit(self, op: DbOp[R]) -> R:
        """Returns the operation's result; waits for a database that is away.

        Raises DatabaseError where the database refuses it, ClosedError where the worker is closed meanwhile.
        """
        result = await self._thread.submit(op)
        if isinstance(result, BaseException):
            raise result
        done: R = result
        return done

    def submit_nowait(self, op: DbOp[Any]) -> None:
        """Submits an operation whose result nobody waits for."""
        self._thread.submit_nowait(op)

    def close(self) -> None:
        """Blocks until all submitted operations are done; those that need a database that is away fail."""
        self._closing.set()
        self._thread.close()
        self._database.close()
        self._closing.clear()

    def _work(self, ops: List[DbOp[Any]]) -> List[Any]:
        results: List[Any] = [None] * len(ops)
        for places in group(ops):
            done = self._results(type(ops[places[0]]), [ops[place] for place in places])
            for place, result in zip(places, done):
                results[place] = result
        return results

    def _results(self, kind: Type[DbOp[Any]], ops: Sequence[DbOp[Any]]) -> Sequence[Any]:
        """The operations' results, or errors in their places."""
        try:
            return self._retry(kind, ops)
        except ClosedError:
            return [_closed() for _ in ops]
        except Exception as error:
            if len(ops) > 1:
                # One operation's error must not fail the others.
                return [result for op in ops for result in self._results(kind, [op])]
            if isinstance(error, DBAPIError):
                return [DatabaseError(f"The database refuses: {self._database.reason(error)}")]
            return [error]

    def _retry(self, kind: Type[DbOp[Any]], ops: Sequence[DbOp[Any]]) -> Sequence[Any]:
        pause = _FIRST_PAUSE
        while True:
            if self._away and self._closing.is_set():
                # Trying each operation would take a connection timeout each.
                raise _closed()
            try:
                opened = self._database.autocommit if kind.unbatched else self._database.begin
                with opened() as connection:
                    done = kind.execute_batch(self._database, connection, ops)
                self._log_state(None)
                return done
            except DBAPIError as error:
                if not is_transient(error):
                    raise
                self._log_state(error)
                # Another server may have taken its place.
                self._database.engine.dispose()
                if self._closing.wait(pause):
                    raise _closed() from None
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _log_state(self, error: BaseException | None) -> None:
        if error is not None and not self._away:
            logger.warning("the database is away, retrying: %s", self._database.reason(error))
        if error is None and self._away:
            logger.warning("the database is back")
        self._away = error is not None


def _closed() -> ClosedError:
    return ClosedError("The database was away when the orchestrator was closed")


def group(ops: Sequence[DbOp[Any]]) -> List[List[int]]:
    """Groups operations, by index, into those that share a transaction, in the order of execution.

    A group has one kind. Two operations on one call with another kind between them are in different groups.
    Unbatched operations come last, one by one, in the order in which they were submitted.
    """
    ended: List[List[int]] = []
    kinds: Dict[Type[DbOp[Any]], List[int]] = {}
    seen: Dict[str, Type[DbOp[Any]]] = {}
    for place, op in enumerate(ops):
        if op.unbatched:
            continue
        kind, call_ids = type(op), op.call_ids
        # Faster than a look at each: a poll names hundreds of calls, and most operations share none.
        shared = () if seen.keys().isdisjoint(call_ids) else call_ids
        if any(seen.get(call_id, kind) is not kind for call_id in shared):
            ended.extend(kinds.values())
            kinds, seen = {}, {}
        kinds.setdefault(kind, []).append(place)
        seen.update(dict.fromkeys(call_ids, kind))
    return [*ended, *kinds.values(), *([place] for place, op in enumerate(ops) if op.unbatched)]
