"""Database work off the event loop: in batches, and again for as long as the database is away."""

from __future__ import annotations

import logging
import threading
from typing import Any, Dict, Generic, List, Sequence, Type, TypeVar

import sqlalchemy as sa
from anyio import to_thread
from sqlalchemy.exc import DBAPIError

from ..errors import ClosedError, DatabaseError
from ..storage.batch_worker import BatchWorker
from .database import Database, is_lost

logger = logging.getLogger(__name__)

R = TypeVar("R")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class DbOp(Generic[R]):
    """A piece of work. Those of one kind that come together are one transaction, which may be done twice
    where the answer to its commit was lost: doing it again must change nothing."""

    # Whether each statement is a transaction of its own: where many others wait for the same rows.
    alone = False

    @property
    def about(self) -> Sequence[str]:
        """Tickets: what is asked of one call is done in the order in which it was asked."""
        return ()

    @classmethod
    def together(cls, database: Database, connection: sa.Connection, jobs: Sequence[Any]) -> Sequence[Any]:
        """The result of each job."""
        raise NotImplementedError


class Flush(DbOp[None]):
    """Done when all before it is."""

    @classmethod
    def together(cls, database: Database, connection: sa.Connection, jobs: Sequence[Flush]) -> Sequence[None]:
        return [None] * len(jobs)


class DbWorker:
    """Works jobs off in a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closed = threading.Event()
        self._clerk = BatchWorker(self._work, "claude-force-durable")
        self._away = False

    async def do(self, job: DbOp[R]) -> R:
        """The job's result; waits for a database that is away. Raises DatabaseError where the database
        refuses, ClosedError once the desk is closed."""
        result = await self._clerk.submit(job)
        if isinstance(result, BaseException):
            raise result
        done: R = result
        return done

    def leave(self, job: DbOp[Any]) -> None:
        """Nobody waits for it."""
        self._clerk.submit_nowait(job)

    async def close(self) -> None:
        """As `shut`, beside the event loop."""
        await to_thread.run_sync(self.shut)

    def shut(self) -> None:
        """Works off what was handed in, without waiting for a database that is away."""
        self._closed.set()
        self._clerk.close()
        self._database.close()
        self._closed.clear()

    def _work(self, jobs: List[DbOp[Any]]) -> List[Any]:
        results: List[Any] = [None] * len(jobs)
        for places in portions(jobs):
            done = self._guarded(type(jobs[places[0]]), [jobs[place] for place in places])
            for place, result in zip(places, done):
                results[place] = result
        return results

    def _guarded(self, kind: Type[DbOp[Any]], jobs: Sequence[DbOp[Any]]) -> Sequence[Any]:
        try:
            return self._until_done(kind, jobs)
        except ClosedError:
            return [_closed() for _ in jobs]
        except Exception as error:
            if len(jobs) > 1:
                # What one of them met is not the others'.
                return [result for job in jobs for result in self._guarded(kind, [job])]
            if isinstance(error, DBAPIError):
                return [DatabaseError(f"The database refuses: {self._database.reason(error)}")]
            return [error]

    def _until_done(self, kind: Type[DbOp[Any]], jobs: Sequence[DbOp[Any]]) -> Sequence[Any]:
        pause = _FIRST_PAUSE
        while True:
            if self._away and self._closed.is_set():
                # Where nobody answers at all, each look would take as long as a connection may.
                raise _closed()
            try:
                done = self._once(kind, jobs)
                self._tell(None)
                return done
            except DBAPIError as error:
                if not is_lost(error):
                    raise
                self._tell(error)
                # Another server may be in its place by now.
                self._database.engine.dispose()
                if self._closed.wait(pause):
                    raise _closed() from None
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(self, kind: Type[DbOp[Any]], jobs: Sequence[DbOp[Any]]) -> Sequence[Any]:
        opened = self._database.autocommit if kind.alone else self._database.begin
        with opened() as connection:
            return kind.together(self._database, connection, jobs)

    def _tell(self, error: BaseException | None) -> None:
        if error is not None and not self._away:
            logger.warning("the database is away, and asked again: %s", self._database.reason(error))
        if error is None and self._away:
            logger.warning("the database is back")
        self._away = error is not None


def _closed() -> ClosedError:
    return ClosedError("The database was away when the orchestrator was closed")


def portions(jobs: Sequence[DbOp[Any]]) -> List[List[int]]:
    """Places of jobs that are done together, one portion after the other: those of one kind, as far as no
    other kind is asked of the same call in between. Last those that are `alone`, in the order in which they
    came, whatever their kinds."""
    ended: List[List[int]] = []
    kinds: Dict[Type[DbOp[Any]], List[int]] = {}
    asked: Dict[str, Type[DbOp[Any]]] = {}
    for place, job in enumerate(jobs):
        if job.alone:
            continue
        kind, about = type(job), job.about
        # Most have nothing in common, and a look for results is about hundreds.
        met = () if asked.keys().isdisjoint(about) else about
        if any(asked.get(call_id, kind) is not kind for call_id in met):
            ended.extend(kinds.values())
            kinds, asked = {}, {}
        kinds.setdefault(kind, []).append(place)
        asked.update(dict.fromkeys(about, kind))
    return [*ended, *kinds.values(), *([place] for place, job in enumerate(jobs) if job.alone)]
