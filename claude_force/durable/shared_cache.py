"""The response cache of many machines: signed entries in Postgres, as ResponseCache has them on disk.

Its time is the database's. A secret of one machine's own makes entries that the others can't judge: each has
its own then, and none is lost.
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
from ..cache.entries import FORGED, NO_FINGERPRINT, seal_if_fits, to_entry, to_hit
from ..cache.old_callers import arguments_of
from ..cache.private_dir import cache_folder
from ..cache.request_key import Question, cache_key, question
from ..storage.secret import find_secret
from ..storage.signing import Entry, Secret, unseal
from .database import Database
from .tables import ANSWERS, need_not_wait, now

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The database's clock is asked again after so many seconds, and this machine's own carries it on in between.
_CLOCK_SECONDS = 60.0
# Of the bound: what is written by this process before it looks whether there is too much, and what it leaves.
_LOOK_SHARE, _LEFT_SHARE = 1 / 64, 0.9
_MOST_TOUCHES = 256


class SharedCache:
    """What the engine asks of a cache. Thread-safe; leases need its calls to come from one thread.

    A database that is away is a miss, and what was to be kept is not: the answer itself goes its own way.
    """

    exclude_agents: FrozenSet[str] = frozenset()

    def __init__(self, database: Database, ttl_hours: float, max_size_mb: float) -> None:
        """Raises CacheError for a secret that can't be used."""
        self._database = database
        self.bound(ttl_hours, max_size_mb)
        if settings.cache_secret() is None:
            logger.warning(
                "CLAUDE_CACHE_SECRET is not set: answers are signed with this machine's own secret, and "
                "other machines can't use them"
            )
        self._secret = Secret(find_secret(None, cache_folder(None, ())))
        self._mutex = threading.Lock()
        self._touched: Dict[bytes, int] = {}
        self._written = 0
        self._clock = (0.0, float("-inf"))
        self._leases: Optional[sa.Connection] = None
        self._held: Set[Question] = set()
        self.forged = 0

    def bound(self, ttl_hours: float, max_size_mb: float) -> None:
        """What holds from here on, as of `ResponseCache`."""
        self._ttl, self._most = ttl_hours * 3600, int(max_size_mb * 2**20)

    def get(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Optional[Dict[str, Any]]:
        """As `ResponseCache.get`."""
        key = cache_key(question(agent_name, task, model, fingerprint))
        found = self._guarded(lambda: self._read(key), None)
        if found is None:
            return None
        entry, hits, age = found
        with self._mutex:
            self._touched[key] = self._touched.get(key, 0) + 1
            many = len(self._touched) >= _MOST_TOUCHES
        if many:
            # A driver only reads; what it uses all the time would pass for unused.
            self._guarded(self._tell_touches, None)
        return to_hit(entry, age, hits + 1)

    def get_in_memory(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Optional[Dict[str, Any]]:
        """Nothing is kept in memory: another machine may have withdrawn it."""
        return None

    def has(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> bool:
        """Whether `get` would find an answer."""
        key = cache_key(question(agent_name, task, model, fingerprint))
        return self._guarded(lambda: self._read(key), None) is not None

    def _read(self, key: bytes) -> Optional[Tuple[Entry, int, float]]:
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
        """As `ResponseCache.set_many`."""
        rows = [row for row in (self._row(**arguments_of(answer)) for answer in answers) if row]
        return self._guarded(lambda: self._write(rows), 0) if rows else 0

    def _row(self, agent_name: str, *more: Any, **fields: Any) -> Optional[Dict[str, Any]]:
        moment = self._guarded(self._now, None)
        if moment is None:
            return None
        _, entry = to_entry(moment, agent_name, *more, **fields)
        sealed = seal_if_fits(entry, self._secret, self._most // 2)
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
        """Returns how many are kept."""
        # The last of two answers to one question, and all in one order: nobody waits for each other.
        by_key = {row["key"]: row for row in rows}
        values = [by_key[key] for key in sorted(by_key)]
        with self._database.begin() as connection:
            need_not_wait(connection)
            fresh = insert(ANSWERS).values(values)
            changed = {name: getattr(fresh.excluded, name) for name in ("agent", "sealed", "size", "used")}
            connection.execute(
                fresh.on_conflict_do_update(index_elements=["key", "secret"], set_={**changed, "hits": 0})
            )
            self._write_touches(connection)
        self._written += sum(row["size"] for row in values)
        if self._written > self._most * _LOOK_SHARE:
            self._written = 0
            self.shrink()
        return len(rows)

    def _tell_touches(self) -> None:
        with self._database.begin() as connection:
            need_not_wait(connection)
            self._write_touches(connection)

    def _write_touches(self, connection: sa.Connection) -> None:
        with self._mutex:
            touched, self._touched = self._touched, {}
        for key in sorted(touched):
            connection.execute(
                sa.update(ANSWERS)
                .where(*self._is(key))
                .values(used=now(connection), hits=ANSWERS.c.hits + touched[key])
            )

    def shrink(self) -> int:
        """Removes what was not used for the longest time, if there is too much. Returns how many."""
        with self._database.begin() as connection:
            total = connection.execute(sa.select(sa.func.sum(ANSWERS.c.size))).scalar() or 0
            if total <= self._most:
                return 0
            newer = sa.func.sum(ANSWERS.c.size).over(order_by=ANSWERS.c.used.desc())
            ranked = sa.select(ANSWERS.c.key, ANSWERS.c.secret, newer.label("upto")).subquery()
            beyond = sa.select(ranked.c.key, ranked.c.secret).where(ranked.c.upto > self._most * _LEFT_SHARE)
            both = sa.tuple_(ANSWERS.c.key, ANSWERS.c.secret)
            return connection.execute(sa.delete(ANSWERS).where(both.in_(beyond))).rowcount

    def _now(self) -> float:
        """Unix time of the database, in seconds."""
        told, at = self._clock
        if time.monotonic() - at > _CLOCK_SECONDS:
            with self._database.autocommit() as connection:
                told, at = connection.execute(sa.select(now(connection))).scalar_one(), time.monotonic()
            self._clock = told, at
        return told + time.monotonic() - at

    def acquire_lease(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> bool:
        """As `ResponseCache.acquire_lease`; the database lets go of it when the connection ends."""
        asked = question(agent_name, task, model, fingerprint)
        # To its own connection the database would grant it twice.
        if asked in self._held or not self._guarded(
            lambda: self._lock("pg_try_advisory_lock", asked), True, leases=True
        ):
            return False
        self._held.add(asked)
        return True

    def release_lease(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> None:
        """Lets the next one go ahead."""
        asked = question(agent_name, task, model, fingerprint)
        if asked in self._held:
            self._held.discard(asked)
            self._guarded(lambda: self._lock("pg_advisory_unlock", asked), True, leases=True)

    def _lock(self, function: str, asked: Question) -> bool:
        if self._leases is None:
            self._leases = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        number = int.from_bytes(cache_key(asked)[:8], "big", signed=True)
        got: bool = self._leases.execute(
            sa.text(f"SELECT {function}(:number)"), {"number": number}
        ).scalar_one()
        return got

    def explain_miss(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Dict[str, Any]:
        """Whether the answer is kept; what is near it is not looked for."""
        if self.has(agent_name, task, model, fingerprint):
            return explained(True, "This answer is kept.")
        return explained(False, "This answer is not in the shared cache, or it is too old.")

    def close(self) -> None:
        """Lets go of its leases; the database is its owner's to close."""
        if self._touched:
            self._guarded(self._tell_touches, None)
        self._let_go()

    def _let_go(self) -> None:
        leases, self._leases = self._leases, None
        self._held.clear()
        if leases is not None:
            leases.invalidate()
            leases.close()

    def _guarded(self, work: Callable[[], T], otherwise: T, leases: bool = False) -> T:
        try:
            return work()
        except DBAPIError as error:
            if leases:
                self._let_go()
            logger.warning("the shared cache is away: %s", self._database.reason(error))
            return otherwise
