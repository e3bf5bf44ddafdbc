"""Tracks which workers are alive, and requeues the calls of dead workers. All times are the database's.

Each worker writes a heartbeat every second. Whichever then gets a lock looks for workers without recent
heartbeats and requeues their calls. A worker that was only slow goes on; of two answers to one call the first
counts.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Collection, Dict, List, Set, Tuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, IntegrityError

from . import dbos_runtime
from .database import Database, connection_name
from .schema import ATTEMPTS, RESULTS, SCHEMA, WORKERS, now

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
DEAD_SECONDS = 5.0
# Every so many beats it also looks for lost claims and for calls of unknown workers.
_AUDIT_BEATS = 5
# After a longer gap between two beats this process may have been frozen: for a while it declares nobody dead.
_GAP_SECONDS = 2.5
REQUEUE_LOCK = 0x72656170


class Heartbeat:
    """Keeps one incarnation of a worker alive in the database, from a thread that no call can block.

    `running` returns the workflow ids in this process. `superseded` is called, in the thread, with those
    whose calls have results from elsewhere.
    """

    def __init__(
        self,
        database: Database,
        incarnation: str,
        concurrency: int,
        running: Callable[[], Collection[str]],
        superseded: Callable[[List[str]], None],
    ) -> None:
        self.name, self.incarnation = "", incarnation
        self._database, self._concurrency = database, concurrency
        self._running, self._superseded = running, superseded
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="claude-force-heartbeat", daemon=True)
        self._unknown_claims: Set[str] = set()
        self._beats = 0
        self._last_beat = self._watching_since = time.monotonic()

    def take_name(self, name: str) -> bool:
        """Registers this process under the name; returns False where a live worker has it."""
        try:
            taken = self._take(name)
        except IntegrityError:
            # Two processes took it at the same moment.
            return False
        self.name = name if taken else ""
        return taken

    def _take(self, name: str) -> bool:
        with self._database.begin() as connection:
            before = connection.execute(
                sa.select(WORKERS.c.life, (now(connection) - WORKERS.c.seen).label("silent"))
                .where(WORKERS.c.name == name)
                .with_for_update()
            ).one_or_none()
            if before is not None:
                if before.silent < DEAD_SECONDS:
                    return False
                _end_connections(connection, before.life)
                _remove(connection, before.life)
            connection.execute(sa.insert(WORKERS).values(self._row(connection, name)))
        return True

    def _row(self, connection: sa.Connection, name: str) -> Dict[str, Any]:
        moment = now(connection)
        return {
            "name": name,
            "life": self.incarnation,
            "concurrency": self._concurrency,
            "started": moment,
            "seen": moment,
        }

    def largest_concurrency(self) -> int:
        """Returns the largest concurrency of all workers."""
        with self._database.begin() as connection:
            largest = connection.execute(sa.select(sa.func.max(WORKERS.c.concurrency))).scalar()
        return max(self._concurrency, largest or 0)

    def start(self) -> None:
        """Starts the heartbeats."""
        # Anew: it may have waited for its name since it was made.
        self._last_beat = self._watching_since = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stops the heartbeats and removes the worker. Blocks."""
        self._stopped.set()
        self._thread.join()
        try:
            with self._database.begin() as connection:
                _remove(connection, self.incarnation)
        except DBAPIError as error:
            logger.warning("the worker could not sign off: %s", self._database.reason(error))

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                self.beat()
            except DBAPIError as error:
                logger.warning("no heartbeat: %s", self._database.reason(error))
            except Exception:
                logger.exception("the worker's heartbeat failed")

    def beat(self) -> None:
        """Writes one heartbeat, reports superseded calls, and requeues the calls of dead workers."""
        with self._database.autocommit() as connection:
            self._write(connection)
            self._report_superseded(connection)
        moment = time.monotonic()
        if moment - self._last_beat > _GAP_SECONDS:
            self._watching_since = moment
        self._last_beat = moment
        self._beats += 1
        audits = self._beats % _AUDIT_BEATS == 0
        if audits:
            self._put_back_lost_claims()
        if moment - self._watching_since > DEAD_SECONDS:
            requeue_dead(self._database, orphans=audits)

    def _write(self, connection: sa.Connection) -> None:
        alive = sa.update(WORKERS).where(WORKERS.c.life == self.incarnation)
        if not connection.execute(alive.values(seen=now(connection))).rowcount:
            # It was frozen or cut off for a while; another process may have its name now.
            logger.warning("worker %s was taken for dead and goes on", self.name)
            again = insert(WORKERS).values(self._row(connection, self.name))
            connection.execute(again.on_conflict_do_nothing())

    def _report_superseded(self, connection: sa.Connection) -> None:
        call_ids = {workflow: workflow.partition("#")[0] for workflow in self._running()}
        if call_ids:
            found = connection.execute(sa.select(RESULTS.c.id).where(RESULTS.c.id.in_(call_ids.values())))
            ended = set(found.scalars())
            # Not calls that started after this look: a call that is enqueued again keeps its id.
            self._superseded([workflow for workflow, call_id in call_ids.items() if call_id in ended])

    def _put_back_lost_claims(self) -> None:
        """Requeues calls claimed for this worker that it has not got for two audits: a connection broke."""
        unknown = set(dbos_runtime.claimed(self._database, self.name)) - set(self._running())
        lost = sorted(unknown & self._unknown_claims)
        self._unknown_claims = unknown
        if lost:
            logger.warning("%d calls were claimed and never arrived; they are put back", len(lost))
            dbos_runtime.put_back(self._database, lost)


def requeue_dead(database: Database, orphans: bool = False) -> List[Tuple[str, int]]:
    """Requeues the calls of dead workers, unless another process is doing so.

    `orphans` includes workers that are not listed at all. Returns workers' names and their numbers of calls.
    """
    with database.begin() as connection:
        if not connection.execute(sa.text(f"SELECT pg_try_advisory_xact_lock({REQUEUE_LOCK})")).scalar():
            return []
        # Locks their rows, so that a restarted worker waits for the end of this before it takes its name.
        dead = connection.execute(_dead_workers(connection)).all()
        requeued = [(row.name, _put_back(database, connection, row.name)) for row in dead]
        for row, (_, calls) in zip(dead, requeued):
            _end_connections(connection, row.life)
            attempts = _remove(connection, row.life)
            logger.warning(
                "worker %s has not been heard of for %.0f s: %d calls are put back, %d attempts count at "
                "their worst",
                *(row.name, row.silent, calls, attempts),
            )
        if orphans:
            listed = set(connection.execute(sa.select(WORKERS.c.name)).scalars())
            unlisted = [name for name in dbos_runtime.claimants(database) if name not in listed]
            requeued += [(name, _put_back(database, connection, name)) for name in unlisted]
            _charge_orphans(connection)
    return requeued


def _dead_workers(connection: sa.Connection) -> sa.Select[Tuple[str, str, float]]:
    silent = now(connection) - WORKERS.c.seen
    # No heartbeat could arrive while the database was down.
    up = sa.literal_column("extract(epoch from clock_timestamp() - pg_postmaster_start_time())", sa.Float)
    return (
        sa.select(WORKERS.c.name, WORKERS.c.life, silent.label("silent"))
        .where(silent > DEAD_SECONDS, up > DEAD_SECONDS)
        .with_for_update(skip_locked=True)
    )


def _put_back(database: Database, connection: sa.Connection, name: str) -> int:
    claimed = dbos_runtime.claimed(database, name)
    # Fails where this process was frozen and has lost its lock: another one has requeued these calls by then.
    connection.execute(sa.select(1))
    dbos_runtime.put_back(database, claimed)
    return len(claimed)


def _charge_orphans(connection: sa.Connection) -> None:
    """Charges attempts of unlisted incarnations: declared dead, and replaced before they went on."""
    listed = sa.exists().where(WORKERS.c.life == ATTEMPTS.c.life)
    orphans = connection.execute(sa.select(ATTEMPTS.c.life).where(~listed).distinct()).scalars().all()
    for incarnation in orphans:
        attempts = charge_lost(connection, incarnation)
        logger.warning("%d attempts of a worker that is not listed count at their worst", attempts)


def _end_connections(connection: sa.Connection, incarnation: str) -> None:
    """Ends a dead worker's connections, which may hold leases. A live worker opens new ones."""
    sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"
    connection.execute(sa.text(sessions), {"name": connection_name(incarnation)})


def _remove(connection: sa.Connection, incarnation: str) -> int:
    """Removes a worker; returns how many attempts were charged."""
    attempts = charge_lost(connection, incarnation)
    connection.execute(sa.delete(WORKERS).where(WORKERS.c.life == incarnation))
    return attempts


def charge_lost(connection: sa.Connection, incarnation: str) -> int:
    """Charges a worker's attempts in flight at their worst; returns how many."""
    charge = sa.text(f"SELECT {SCHEMA}.cf_bury(:incarnation)")
    attempts: int = connection.execute(charge, {"incarnation": incarnation}).scalar_one()
    return attempts
