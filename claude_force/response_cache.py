"""ResponseCache: signed answers in memory and on disk, bounded in size, shared by threads and processes."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from pathlib import Path
from sys import getsizeof
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, Optional, Tuple, Union

from .agents.names import agent_slug
from .cache.entries import (
    FORGED,
    NO_FINGERPRINT,
    CacheEntry,
    is_signed_by,
    seal_if_fits,
    to_entry,
    to_hit,
    unseal,
)
from .cache.legacy import arguments_of, takes_arguments_of_1x
from .cache.memory import HitBuffer, MemoryEntry, MemoryLayer
from .cache.private_dir import cache_folder
from .cache.recovering_store import RecoveringStore
from .cache.request_key import KeyFields, key_digest, key_fields
from .cache.store import Store, rowid_of
from .errors import CacheError
from .storage.locks import leases_of, register_after_fork
from .storage.signing import Secret, find_secret

logger = logging.getLogger(__name__)

_MEMORY_SHARE = 4
_ENTRY_OVERHEAD = 1024


# What reading gives: the generation at that moment, and the entry.
_Found = Tuple[bytes, Optional[MemoryEntry]]
_NOTHING: _Found = (b"", None)


class ResponseCache:
    """Stores answers by agent, task, model and further fields. Threads and processes may share the folder.

    >>> with ResponseCache(ttl_hours=24, max_size_mb=100, exclude_agents=["random-agent"]) as cache:
    ...     cache.set("python-expert", "What are decorators?", "claude-sonnet-5-5", "Functions that ...",
    ...               input_tokens=100, output_tokens=50, estimated_cost=0.001)
    ...     hit = cache.get("python-expert", "What are decorators?", "claude-sonnet-5-5")
    ...     print(hit["response"], hit["cache_age_seconds"])

    `fingerprint` in the methods has further fields that decide the answer, by name, as text.

    Args:
        ttl_hours: how long an answer is valid, in hours from when it was stored.
        max_size_mb: bound of the files, in megabytes (2**20 bytes); the least recently used entries go first.
        cache_secret: signs the entries; None takes CLAUDE_CACHE_SECRET, else one made for the folder.
        exclude_agents: agents whose answers are not stored, because they are not repeatable.
        cache_dir: None for `~/.claude/cache`.
        enabled: False makes every look-up a miss, and stores nothing.
        allowed_dirs: folders in which `cache_dir` may be, beside the usual ones.
        clock: returns Unix time in seconds.
        verify_integrity: for callers of claude-force 1.x, without effect: every signature is checked.

    Raises CacheError for a folder or a secret that can't be used. After that a fault of the cache never
    fails a call: it is logged, and counts as a miss.

    Callers of claude-force 1.x may pass the folder first, as `ResponseCache(Path("cache"), 24, 100)`.
    """

    @takes_arguments_of_1x
    def __init__(
        self,
        ttl_hours: float = 24,
        max_size_mb: float = 100,
        cache_secret: Union[str, bytes, None] = None,
        exclude_agents: Optional[Iterable[str]] = None,
        cache_dir: Union[str, Path, None] = None,
        enabled: bool = True,
        *,
        allowed_dirs: Iterable[Union[str, Path]] = (),
        clock: Callable[[], float] = time.time,
        verify_integrity: bool = True,
    ) -> None:
        if not ttl_hours > 0 or not max_size_mb > 0:
            raise CacheError("ttl_hours and max_size_mb must be above 0.")
        self.ttl_hours: float = ttl_hours
        self.max_size_mb: float = max_size_mb
        self.enabled: bool = enabled
        # By both spellings of a name: as it is given, and the slug under which calls are stored.
        both = (one for name in exclude_agents or () for one in (name, agent_slug(name)))
        self.exclude_agents: FrozenSet[str] = frozenset(both)
        self._ttl = ttl_hours * 3600
        self._max_bytes = int(max_size_mb * 2**20)
        self._clock = clock
        # Guards memory and counters, for microseconds; the disk has its own lock.
        self._mutex = threading.Lock()
        self._memory: MemoryLayer[MemoryEntry] = MemoryLayer(self._max_bytes // _MEMORY_SHARE)
        self._generation = b""
        # Keys hash the whole task, so the keys of the last miss and of leases are reused.
        self._last_miss: Tuple[Optional[KeyFields], bytes] = (None, b"")
        self._leased: Dict[KeyFields, bytes] = {}
        self._hits = self._misses = self._integrity_failures = 0
        self._saved_cost = 0.0
        if enabled:
            self._folder = cache_folder(cache_dir, allowed_dirs)
            self._secret = Secret(find_secret(cache_secret, self._folder))
            self._hit_buffer = HitBuffer(self._mutex)
            self._disk = RecoveringStore(self._folder, self._max_bytes, self._secret, self._hit_buffer)
            weakref.finalize(self, self._disk.close)
            register_after_fork(self)

    def get(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Optional[Dict[str, Any]]:
        """Returns a stored answer, or None.

        Returns:
            `response`, `input_tokens`, `output_tokens`, `estimated_cost` (USD), `cached` (True),
            `cache_age_seconds`, `hit_count`, and what `set` was given as `extra`.
        """
        if not self.enabled or agent_name in self.exclude_agents:
            return None
        fields = key_fields(agent_name, task, model, fingerprint)
        return self._get_from_memory(fields) or self._get_from_disk(fields)

    def has(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> bool:
        """Whether `get` would find an answer. Counts neither a hit nor a miss."""
        if not self.enabled or agent_name in self.exclude_agents:
            return False
        key = key_digest(key_fields(agent_name, task, model, fingerprint))
        _, found = self._disk.run(lambda store: self._read(store, key), _NOTHING)
        return found is not None and abs(self._clock() - found.entry.created) < self._ttl

    def get_in_memory(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Optional[Dict[str, Any]]:
        """As `get`, but never waits for the disk, and counts no miss."""
        if not self.enabled or agent_name in self.exclude_agents:
            return None
        return self._get_from_memory(key_fields(agent_name, task, model, fingerprint))

    def _get_from_memory(self, fields: KeyFields) -> Optional[Dict[str, Any]]:
        generation = self._disk.generation[:]
        with self._mutex:
            if generation == self._generation:
                found = self._memory.get(fields)
                return None if found is None else self._count_hit(found)
            # A process removed an entry, and nothing says which one.
            self._memory.clear()
            self._generation = generation
            return None

    def _count_hit(self, found: MemoryEntry) -> Optional[Dict[str, Any]]:
        entry = found.entry
        age = self._clock() - entry.created
        # A time far ahead was written by a clock that was wrong.
        if not abs(age) < self._ttl:
            return None
        found.hits += 1
        self._hits += 1
        self._saved_cost += entry.cost or 0.0
        self._hit_buffer.add(found.row)
        return to_hit(entry, age, found.hits)

    def _get_from_disk(self, fields: KeyFields) -> Optional[Dict[str, Any]]:
        key = key_digest(fields)
        generation, found = self._disk.run(lambda store: self._read(store, key), _NOTHING)
        with self._mutex:
            hit = self._count_hit(found) if found is not None else None
            if found is None or hit is None:
                self._misses += 1
                self._last_miss = (fields, key)
                return None
            self._put_in_memory(fields, found, generation)
            return hit

    def _read(self, store: Store, key: bytes) -> _Found:
        generation = store.generation.read()
        row = store.get(key)
        if row is None or not is_signed_by(row[0], self._secret):
            return generation, None
        entry = unseal(row[0], key, self._secret)
        if entry is None:
            self._integrity_failures += 1
            logger.warning(FORGED, extra={"cache_key": key.hex()})
            store.delete([key])
            # A damaged file makes such entries as well, and would lose what is stored from here on.
            store.expect_sound()
            return generation, None
        identity = rowid_of(key)
        written = row[1] if type(row[1]) is int else 0
        return generation, MemoryEntry(entry, written + self._hit_buffer.count(identity), identity)

    def _put_in_memory(self, fields: KeyFields, found: MemoryEntry, generation: bytes) -> None:
        # An entry that was read before a removal may be the removed one.
        if not self._memory:
            self._generation = generation
        if generation == self._generation:
            entry = found.entry
            size = getsizeof(entry.response) + len(entry.extra) + getsizeof(fields[1]) + _ENTRY_OVERHEAD
            self._memory.put(fields, found, size)

    def set(
        self,
        agent_name: str,
        task: str,
        model: str,
        response: str,
        input_tokens: int = 0,
        output_tokens: int = 0,
        estimated_cost: Optional[float] = None,
        fingerprint: Mapping[str, str] = NO_FINGERPRINT,
        extra: Optional[Mapping[str, Any]] = None,
    ) -> bool:
        """Stores an answer. Returns whether it did.

        `estimated_cost` is USD, and `extra` has plain JSON values that `get` returns as well.
        """
        one = self._entry(
            agent_name, task, model, response, input_tokens, output_tokens, estimated_cost, fingerprint, extra
        )
        return one is not None and self._store([one]) == 1

    def set_many(self, answers: Iterable[Mapping[str, Any]]) -> int:
        """Stores answers, each a dict of the arguments of `set`, in one write. Returns how many it did."""
        entries = (self._entry(**arguments_of(answer)) for answer in answers)
        return self._store([one for one in entries if one])

    def _entry(self, agent_name: str, *more: Any, **named: Any) -> Optional[Tuple[KeyFields, CacheEntry]]:
        if not self.enabled or agent_name in self.exclude_agents:
            return None
        named["key_of"] = self._key_of
        return to_entry(self._clock(), agent_name, *more, **named)

    def _key_of(self, fields: KeyFields) -> bytes:
        missed, key = self._last_miss
        return key if missed == fields else self._leased.get(fields) or key_digest(fields)

    def _store(self, answers: List[Tuple[KeyFields, CacheEntry]]) -> int:
        largest = self._max_bytes // 2
        sealed = [(fields, entry, seal_if_fits(entry, self._secret, largest)) for fields, entry in answers]
        rows = [(entry.key, blob, fields[0]) for fields, entry, blob in sealed if blob]
        generation = self._disk.run(lambda store: self._write(store, rows), None) if rows else None
        if generation is None:
            return 0
        with self._mutex:
            for fields, entry, blob in sealed:
                if blob:
                    self._memory.drop(fields)
                    self._put_in_memory(fields, MemoryEntry(entry, 0, rowid_of(entry.key)), generation)
        return len(rows)

    def _write(self, store: Store, rows: List[Tuple[bytes, bytes, str]]) -> bytes:
        generation = store.generation.read()
        store.put(rows)
        return generation

    def delete(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> bool:
        """Removes one answer. Returns whether it was there."""
        if not self.enabled:
            return False
        key = key_digest(key_fields(agent_name, task, model, fingerprint))
        return bool(self._disk.run(lambda store: store.delete([key]), 0))

    def clear(self, agent: Optional[str] = None) -> int:
        """Removes all answers, or those of one agent. Returns how many."""
        return self._disk.run(lambda store: store.clear(agent), 0) if self.enabled else 0

    @property
    def stats(self) -> Dict[str, Any]:
        """As `get_stats`, with `size_bytes`. For callers of claude-force 1.x."""
        return {**(stats := self.get_stats()), "size_bytes": round(stats["size_mb"] * 2**20)}

    def size(self) -> int:
        """Number of entries in the folder. For callers of claude-force 1.x."""
        return int(self.get_stats()["entries"])

    @property
    def cache_dir(self) -> Optional[Path]:
        """The folder of the entries; None where the cache is switched off."""
        return self._folder if self.enabled else None

    def get_stats(self) -> Dict[str, Any]:
        """Returns counters of this object, and the contents of the folder.

        Returns:
            Of this object `hits`, `misses`, `hit_rate` (text such as "66.7%"), `evictions`,
            `integrity_failures`, `saved_cost` (USD) and `memory_entries`; of the folder `entries`, `size_mb`
            and `total_hits`, the hits of its entries by all processes as far as they are written; and the
            settings `enabled`, `cache_dir`, `ttl_hours` and `max_size_mb`.
        """
        count = size = total_hits = 0
        if self.enabled:
            count, size, total_hits = self._disk.run(
                lambda store: (store.count(), store.size(), store.total_hits()), (0, 0, 0)
            )
        with self._mutex:
            lookups = self._hits + self._misses
            return {
                "enabled": self.enabled,
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": f"{100 * self._hits / lookups:.1f}%" if lookups else "0.0%",
                "evictions": self._disk.evictions if self.enabled else 0,
                "integrity_failures": self._integrity_failures,
                "saved_cost": self._saved_cost,
                "size_mb": size / 2**20,
                "entries": count,
                "memory_entries": len(self._memory),
                "total_hits": total_hits,
                "cache_dir": str(self._folder) if self.enabled else None,
                "ttl_hours": self.ttl_hours,
                "max_size_mb": self.max_size_mb,
            }

    def explain_miss(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Dict[str, Any]:
        """Explains why `get` finds nothing: expired, or which fields differ from those of the nearest entry.

        Returns:
            `hit`, `reason` (a sentence), `differs` (names of fields), and `model` and `age_seconds` of the
            nearest entry (None if no entry was compared).
        """
        from .cache.diagnostics import explain, explained

        if not self.enabled:
            return explained(False, "The cache is switched off.")
        if agent_name in self.exclude_agents:
            return explained(False, f"Answers of {agent_name} are not cached.")
        fields = key_fields(agent_name, task, model, fingerprint)
        return self._disk.run(
            lambda store: explain(store, self._secret, fields, self._clock(), self._ttl),
            explained(False, "The cache can't be read."),
        )

    def verify(self, remove: bool = False, most: int = -1) -> Dict[str, int]:
        """Checks the signature of every entry, or of the `most` that were used last.

        `remove` also removes the forged and unreadable ones.

        Returns:
            Numbers of entries: `checked`, `valid`, `forged`, `unreadable`, `other_secret`, `removed`.
        """
        from .cache.diagnostics import verify

        if not self.enabled:
            return {}
        return self._disk.run(lambda store: verify(store, self._secret, remove, most), {})

    def acquire_lease(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> bool:
        """Returns True for one caller at a time, of all processes, which then finds the answer; never waits.

        Call `release_lease` afterwards. The lease of a process that dies is released.
        """
        if not self.enabled:
            return True
        fields = key_fields(agent_name, task, model, fingerprint)
        key = self._key_of(fields)
        try:
            granted = leases_of(self._folder).acquire(rowid_of(key))
        except OSError as error:
            # Without file locks processes can't agree: each of them sends the request.
            logger.warning("the cache has no leases: %s", error)
            return True
        if granted:
            self._leased[fields] = key
        return granted

    def release_lease(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> None:
        """Releases the lease, so that another caller can take it."""
        if self.enabled:
            fields = key_fields(agent_name, task, model, fingerprint)
            key = self._leased.pop(fields, None) or key_digest(fields)
            try:
                leases_of(self._folder).release(rowid_of(key))
            except OSError as error:
                logger.warning("the cache has no leases: %s", error)

    def close(self) -> None:
        """Writes what is buffered and closes the files; the next call opens them again."""
        with self._mutex:
            self._memory.clear()
        if self.enabled:
            self._disk.close()

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """Called in a forked child, which opens the files again."""
        self._mutex = threading.Lock()
        self._leased.clear()
        self._hit_buffer = HitBuffer(self._mutex)
        self._disk.after_fork(self._hit_buffer)
