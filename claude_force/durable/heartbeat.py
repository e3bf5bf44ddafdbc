"""Who of the workers is alive, and what becomes of the calls of one that is not. By the database's clock.

Each worker says once a second that it is there, and then looks after the others: the one that holds a lock in
that moment puts back the calls of those that have not been heard of. A worker that was only slow goes on; of
two answers to one call the first counts.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Collection, List, Set, Tuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, IntegrityError

from . import dbos_runtime as host
from .database import Database, connection_name
from .tables import ATTEMPTS, RESULTS, SCHEMA, WORKERS, now

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
DEAD_SECONDS = 5.0
_AUDIT_BEATS = 5
# Beats that are further apart than this did not see what happened in between.
_BLIND_SECONDS = 2.5
_REAPING = 0x72656170


class Heartbeat:
    """A worker's own life. Its thread is none that a call could hold up.

    `running` are the workflows in this process; `superseded` is told of those
    whose call has a result already.
    """

    def __init__(
        self,
        database: Database,
        life: str,
        concurrency: int,
        running: Callable[[], Collection[str]],
        superseded: Callable[[List[str]], None],
    ) -> None:
        self.name, self.life = "", life
        self._database, self._concurrency = database, concurrency
        self._running, self._superseded = running, superseded
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="claude-force-pulse", daemon=True)
        self._lost: Set[str] = set()
        self._beats = 0
        self._seen_at = self._watching_since = time.monotonic()

    def take_name(self, name: str) -> bool:
        """Whether this process bears it now; not where another one does that is alive."""
        try:
            taken = self._take(name)
        except IntegrityError:
            # Two began in the same moment.
            return False
        self.name = name if taken else ""
        return taken

    def _take(self, name: str) -> bool:
        with self._database.begin() as connection:
            moment = now(connection)
            row = {"name": name, "life": self.life, "concurrency": self._concurrency}
            before = connection.execute(
                sa.select(WORKERS.c.life, (moment - WORKERS.c.seen).label("silent"))
                .where(WORKERS.c.name == name)
                .with_for_update()
            ).one_or_none()
            if before is not None and before.silent < DEAD_SECONDS:
                return False
            if before is not None:
                _cut_off(connection, before.life)
                _bury(connection, before.life)
                connection.execute(sa.delete(WORKERS).where(WORKERS.c.name == name))
            connection.execute(sa.insert(WORKERS).values(**row, started=moment, seen=moment))
        return True

    def largest(self) -> int:
        """The concurrency of the largest worker, this one among them."""
        with self._database.begin() as connection:
            most = connection.execute(sa.select(sa.func.max(WORKERS.c.concurrency))).scalar()
        return max(self._concurrency, most or 0)

    def start(self) -> None:
        """From here on it beats, and watches the others; it may have waited for its name until now."""
        self._seen_at = self._watching_since = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """The last beat: from now on nobody misses this worker."""
        self._stopped.set()
        self._thread.join()
        try:
            with self._database.begin() as connection:
                _bury(connection, self.life)
                connection.execute(sa.delete(WORKERS).where(WORKERS.c.life == self.life))
        except DBAPIError as error:
            logger.warning("the worker could not sign off: %s", self._database.reason(error))

    def _live(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                self._beat()
            except DBAPIError as error:
                logger.warning("no heartbeat: %s", self._database.reason(error))
            except Exception:
                logger.exception("the worker's heartbeat failed")

    def _beat(self) -> None:
        with self._database.autocommit() as connection:
            self._say(connection)
            self._notice_superseded(connection)
        moment = time.monotonic()
        if moment - self._seen_at > _BLIND_SECONDS:
            self._watching_since = moment
        self._seen_at = moment
        self._beats += 1
        if self._beats % _AUDIT_BEATS == 0:
            self._audit()
        if moment - self._watching_since > DEAD_SECONDS:
            reap(self._database, orphans=self._beats % _AUDIT_BEATS == 0)

    def _say(self, connection: sa.Connection) -> None:
        moment = now(connection)
        there = connection.execute(
            sa.update(WORKERS).where(WORKERS.c.life == self.life).values(seen=moment)
        ).rowcount
        if not there:
            # It was taken for dead, because it was stopped or cut off; another process may have its name now.
            logger.warning("worker %s was taken for dead and goes on", self.name)
            row = {"name": self.name, "life": self.life, "concurrency": self._concurrency}
            again = insert(WORKERS).values(**row, started=moment, seen=moment)
            connection.execute(again.on_conflict_do_nothing())

    def _notice_superseded(self, connection: sa.Connection) -> None:
        call_ids = {one: one.partition("#")[0] for one in self._running()}
        if call_ids:
            found = connection.execute(sa.select(RESULTS.c.id).where(RESULTS.c.id.in_(call_ids.values())))
            ended = set(found.scalars())
            # Not what begins from here on: a call that was handed over anew has its ticket from before.
            self._superseded([one for one, call_id in call_ids.items() if call_id in ended])

    def _audit(self) -> None:
        """Calls that are this worker's by the database, and that it knows nothing of, twice in a row: their
        claim was answered when the connection was gone."""
        lost = set(host.claimed(self._database, self.name)) - set(self._running())
        twice = sorted(lost & self._lost)
        self._lost = lost
        if twice:
            logger.warning("%d calls were claimed and never arrived; they are put back", len(twice))
            host.put_back(self._database, twice)


def reap(database: Database, orphans: bool = False) -> List[Tuple[str, int]]:
    """Puts back the calls of workers that are dead, if nobody else is at it; and with `orphans` those of
    workers that are not even listed. Returns names and numbers of calls."""
    with database.begin() as connection:
        if not connection.execute(sa.text(f"SELECT pg_try_advisory_xact_lock({_REAPING})")).scalar():
            return []
        # Their rows are locked, so that a worker that starts again under its name waits until this is done.
        dead = connection.execute(_dead(connection)).all()
        buried = [(row.name, _put_back(database, connection, row.name)) for row in dead]
        for row in dead:
            _cut_off(connection, row.life)
            lost = _bury(connection, row.life)
            connection.execute(sa.delete(WORKERS).where(WORKERS.c.life == row.life))
            logger.warning(
                "worker %s has not been heard of for %.0f s: %d calls are put back, %d attempts count at "
                "their worst",
                row.name,
                row.silent,
                dict(buried)[row.name],
                lost,
            )
        if orphans:
            buried += _put_back_orphans(database, connection)
            _bury_orphans(connection)
    return buried


def _dead(connection: sa.Connection) -> sa.Select[Tuple[str, str, float]]:
    silent = now(connection) - WORKERS.c.seen
    # While the database was away, nobody could be heard.
    up = sa.literal_column("extract(epoch from clock_timestamp() - pg_postmaster_start_time())", sa.Float)
    return (
        sa.select(WORKERS.c.name, WORKERS.c.life, silent.label("silent"))
        .where(silent > DEAD_SECONDS, up > DEAD_SECONDS)
        .with_for_update(skip_locked=True)
    )


def _put_back(database: Database, connection: sa.Connection, name: str) -> int:
    pending = host.claimed(database, name)
    # Where this process was frozen just now, its lock is gone, and what it has found is under way elsewhere.
    connection.execute(sa.select(1))
    host.put_back(database, pending)
    return len(pending)


def _put_back_orphans(database: Database, connection: sa.Connection) -> List[Tuple[str, int]]:
    known = set(connection.execute(sa.select(WORKERS.c.name)).scalars())
    lost = [name for name in host.claimants(database) if name not in known]
    return [(name, _put_back(database, connection, name)) for name in lost]


def _bury_orphans(connection: sa.Connection) -> None:
    """Attempts of a worker that was taken for dead, and whose name another one had when it went on."""
    listed = sa.exists().where(WORKERS.c.life == ATTEMPTS.c.life)
    for life in connection.execute(sa.select(ATTEMPTS.c.life).where(~listed).distinct()).scalars().all():
        logger.warning(
            "%d attempts of a worker that is not listed count at their worst", _bury(connection, life)
        )


def _cut_off(connection: sa.Connection, life: str) -> None:
    """Ends the connections of a worker that is stopped, or whose machine is gone: it may hold leases. One
    that is alive makes new ones."""
    sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"
    connection.execute(sa.text(sessions), {"name": connection_name(life)})


def _bury(connection: sa.Connection, life: str) -> int:
    lost: int = connection.execute(sa.text(f"SELECT {SCHEMA}.cf_bury(:life)"), {"life": life}).scalar_one()
    return lost
