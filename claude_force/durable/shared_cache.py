"""The response cache that machines share: signed entries in Postgres, as `ResponseCache` keeps them on disk.

All times are the database's. Machines with different secrets can't check each other's signatures, so each
machine finds only the entries that were signed with its secret.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, Optional, Set, Tuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from .. import settings
from ..cache.diagnostics import explained
from ..cache.entries import FORGED, CacheEntry, seal_if_fits, to_entry, to_hit, unseal
from ..cache.legacy import arguments_of
from ..cache.private_dir import cache_folder
from ..cache.request_key import KeyFields, key_digest, key_fields
from ..storage.signing import Secret, find_secret
from .database import Database
from .schema import ANSWERS, commit_without_fsync, now

logger = logging.getLogger(__name__)

T = TypeVar("T")
Fingerprint = Mapping[str, str]

# How often the database is asked for its time; in between this machine's monotonic clock carries it on.
_CLOCK_SECONDS = 60.0
# Shares of the maximum size: written by this process between two checks of the size, and left by an eviction.
_CHECK_SHARE, _LEFT_SHARE = 1 / 64, 0.9
_MAX_BUFFERED_HITS = 256


class SharedCache:
    """Implements `async_cache.Cache`. Thread-safe, except for leases, which belong to one thread.

    While the database is away, look-ups miss and answers are not stored.
    """

    exclude_agents: FrozenSet[str] = frozenset()

    def __init__(self, database: Database, ttl_hours: float, max_size_mb: float) -> None:
        """Raises CacheError for a secret that can't be used."""
        self._database = database
        self.set_limits(ttl_hours, max_size_mb)
        if settings.cache_secret() is None:
            logger.warning(
                "CLAUDE_CACHE_SECRET is not set: answers are signed with this machine's own secret, and "
                "other machines can't use them"
            )
        self._secret = Secret(find_secret(None, cache_folder(None, ())))
        self._mutex = threading.Lock()
        self._hits: Dict[bytes, int] = {}
        self._written = 0
        self._clock = (0.0, float("-inf"))
        self._lease_connection: Optional[sa.Connection] = None
        self._held: Set[KeyFields] = set()
        self.forged = 0

    def set_limits(self, ttl_hours: float, max_size_mb: float) -> None:
        """Changes the limits, as of `ResponseCache`."""
        self._ttl, self._max_bytes = ttl_hours * 3600, int(max_size_mb * 2**20)

    def get(
        self, agent_name: str, task: str, model: str, fingerprint: Fingerprint
    ) -> Optional[Dict[str, Any]]:
        """Implements `ResponseCache.get`."""
        key = key_digest(key_fields(agent_name, task, model, fingerprint))
        found = self._guarded(lambda: self._read(key), None)
        if found is None:
            return None
        entry, hits, age = found
        with self._mutex:
            self._hits[key] = self._hits.get(key, 0) + 1
            is_full = len(self._hits) >= _MAX_BUFFERED_HITS
        if is_full:
            # A driver never writes answers: without this, entries that it uses would count as unused.
            self._guarded(self._flush_hits, None)
        return to_hit(entry, age, hits + 1)

    def get_in_memory(
        self, agent_name: str, task: str, model: str, fingerprint: Fingerprint
    ) -> Optional[Dict[str, Any]]:
        """Returns None: another machine may have removed what this one remembers."""
        return None

    def has(self, agent_name: str, task: str, model: str, fingerprint: Fingerprint) -> bool:
        """Whether `get` would find an answer."""
        key = key_digest(key_fields(agent_name, task, model, fingerprint))
        return self._guarded(lambda: self._read(key), None) is not None

    def _read(self, key: bytes) -> Optional[Tuple[CacheEntry, int, float]]:
        with self._database.autocommit() as connection:
            row = connection.execute(
                sa.select(ANSWERS.c.sealed, ANSWERS.c.hits, now(connection).label("now")).where(
                    *self._is(key)
                )
            ).one_or_none()
            if row is None:
                return None
            entry = unseal(bytes(row.sealed), key, self._secret)
            if entry is None:
                self.forged += 1
                logger.warning(FORGED, extra={"cache_key": key.hex()})
                connection.execute(sa.delete(ANSWERS).where(*self._is(key)))
                return None
        age = row.now - entry.created
        return (entry, row.hits, age) if abs(age) < self._ttl else None

    def _is(self, key: bytes) -> Tuple[sa.ColumnElement[bool], ...]:
        return ANSWERS.c.key == key, ANSWERS.c.secret == self._secret.id

    def set_many(self, answers: Iterable[Mapping[str, Any]]) -> int:
        """Implements `ResponseCache.set_many`."""
        rows = [row for row in (self._row(**arguments_of(answer)) for answer in answers) if row]
        return self._guarded(lambda: self._write(rows), 0) if rows else 0

    def _row(self, agent_name: str, *more: Any, **fields: Any) -> Optional[Dict[str, Any]]:
        moment = self._guarded(self._now, None)
        if moment is None:
            return None
        _, entry = to_entry(moment, agent_name, *more, **fields)
        sealed = seal_if_fits(entry, self._secret, self._max_bytes // 2)
        if sealed is None:
            return None
        return {
            "key": entry.key,
            "secret": self._secret.id,
            "agent": agent_name,
            "sealed": sealed,
            "size": len(sealed),
            "used": moment,
            "hits": 0,
        }

    def _write(self, rows: List[Dict[str, Any]]) -> int:
        """Returns how many were stored."""
        # The last of two answers to one question. In one order, so that no two transactions wait for each
        # other.
        by_key = {row["key"]: row for row in rows}
        values = [by_key[key] for key in sorted(by_key)]
        with self._database.begin() as connection:
            commit_without_fsync(connection)
            fresh = insert(ANSWERS).values(values)
            changed = {name: getattr(fresh.excluded, name) for name in ("agent", "sealed", "size", "used")}
            connection.execute(
                fresh.on_conflict_do_update(index_elements=["key", "secret"], set_={**changed, "hits": 0})
            )
            self._write_hits(connection)
        self._written += sum(row["size"] for row in values)
        if self._written > self._max_bytes * _CHECK_SHARE:
            self._written = 0
            self.shrink()
        return len(rows)

    def _flush_hits(self) -> None:
        with self._database.begin() as connection:
            commit_without_fsync(connection)
            self._write_hits(connection)

    def _write_hits(self, connection: sa.Connection) -> None:
        with self._mutex:
            hits, self._hits = self._hits, {}
        for key in sorted(hits):
            used = sa.update(ANSWERS).where(*self._is(key))
            connection.execute(used.values(used=now(connection), hits=ANSWERS.c.hits + hits[key]))

    def shrink(self) -> int:
        """Removes the least recently used entries while there is too much. Returns how many."""
        with self._database.begin() as connection:
            total = connection.execute(sa.select(sa.func.sum(ANSWERS.c.size))).scalar() or 0
            if total <= self._max_bytes:
                return 0
            newer = sa.func.sum(ANSWERS.c.size).over(order_by=ANSWERS.c.used.desc())
            ranked = sa.select(ANSWERS.c.key, ANSWERS.c.secret, newer.label("upto")).subquery()
            beyond = sa.select(ranked.c.key, ranked.c.secret).where(
                ranked.c.upto > self._max_bytes * _LEFT_SHARE
            )
            both = sa.tuple_(ANSWERS.c.key, ANSWERS.c.secret)
            return connection.execute(sa.delete(ANSWERS).where(both.in_(beyond))).rowcount

    def _now(self) -> float:
        """Returns the database's Unix time, in seconds."""
        read, at = self._clock
        if time.monotonic() - at > _CLOCK_SECONDS:
            with self._database.autocommit() as connection:
                read, at = connection.execute(sa.select(now(connection))).scalar_one(), time.monotonic()
            self._clock = read, at
        return read + time.monotonic() - at

    def acquire_lease(self, agent_name: str, task: str, model: str, fingerprint: Fingerprint) -> bool:
        """Implements `ResponseCache.acquire_lease`; a lease ends with the connection at the latest."""
        wanted = key_fields(agent_name, task, model, fingerprint)
        # The database would grant it a second time to the same connection.
        if wanted in self._held or not self._guarded(
            lambda: self._lock("pg_try_advisory_lock", wanted), True, leases=True
        ):
            return False
        self._held.add(wanted)
        return True

    def release_lease(self, agent_name: str, task: str, model: str, fingerprint: Fingerprint) -> None:
        """Implements `ResponseCache.release_lease`."""
        wanted = key_fields(agent_name, task, model, fingerprint)
        if wanted in self._held:
            self._held.discard(wanted)
            self._guarded(lambda: self._lock("pg_advisory_unlock", wanted), True, leases=True)

    def _lock(self, function: str, wanted: KeyFields) -> bool:
        if self._lease_connection is None:
            connection = self._database.engine.connect()
            self._lease_connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        number = int.from_bytes(key_digest(wanted)[:8], "big", signed=True)
        call = sa.text(f"SELECT {function}(:number)")
        got: bool = self._lease_connection.execute(call, {"number": number}).scalar_one()
        return got

    def explain_miss(
        self, agent_name: str, task: str, model: str, fingerprint: Fingerprint
    ) -> Dict[str, Any]:
        """Says whether the answer is stored; unlike a local cache it does not look for similar ones."""
        if self.has(agent_name, task, model, fingerprint):
            return explained(True, "This answer is cached.")
        return explained(False, "This answer is not in the shared cache, or it is too old.")

    def close(self) -> None:
        """Releases all leases. Does not close the database."""
        if self._hits:
            self._guarded(self._flush_hits, None)
        self._release_all()

    def _release_all(self) -> None:
        connection, self._lease_connection = self._lease_connection, None
        self._held.clear()
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _guarded(self, work: Callable[[], T], otherwise: T, leases: bool = False) -> T:
        """Returns `otherwise` where the database is away; leases are lost with their connection then."""
        try:
            return work()
        except DBAPIError as error:
            if leases:
                self._release_all()
            logger.warning("the shared cache is away: %s", self._database.reason(error))
            return otherwise
