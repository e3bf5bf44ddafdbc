"""ResponseCache: answers that were paid for once, signed, bounded, shared by threads and processes."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from pathlib import Path
from sys import getsizeof
from types import TracebackType
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, Optional, Tuple, Type, Union

from .agents.names import agent_slug
from .cache.entries import FORGED, NO_FINGERPRINT, seal_if_fits, to_entry, to_hit
from .cache.memory import MemoryLayer
from .cache.old_callers import arguments_of, takes_arguments_of_1x
from .cache.private_dir import cache_folder
from .cache.recovering_store import RecoveringStore
from .cache.request_key import RequestFields, cache_key, request_fields
from .cache.store import HitBuffer, Store, row_id
from .errors import CacheError
from .storage.fork import register_after_fork
from .storage.locks import leases_of
from .storage.secret import find_secret
from .storage.signing import Entry, Secret, is_of, unseal

logger = logging.getLogger(__name__)

_MEMORY_SHARE = 4
_ENTRY_OVERHEAD = 1024


class _Held:
    """An entry in memory, its signature verified."""

    __slots__ = ("entry", "hits", "row")

    def __init__(self, entry: Entry, hits: int, row: int) -> None:
        self.entry, self.hits, self.row = entry, hits, row


class ResponseCache:
    """Answers by agent, task, model and whatever else changes them. Threads and processes may share it.

    Args:
        ttl_hours: how long an answer is given out, in hours from when it was made.
        max_size_mb: bound of the files, in megabytes (2**20 bytes).
        cache_secret: signs the entries; None takes CLAUDE_CACHE_SECRET, else one made for the folder.
        exclude_agents: agents whose answers are not repeatable.
        cache_dir: None for `~/.claude/cache`.
        allowed_dirs: folders in which `cache_dir` may be, beside the usual ones.
        clock: Unix time in seconds.
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
        # By both spellings of a name: that of its file, and the one that calls go by.
        both = (one for name in exclude_agents or () for one in (name, agent_slug(name)))
        self.exclude_agents: FrozenSet[str] = frozenset(both)
        self._ttl = ttl_hours * 3600
        self._most = int(max_size_mb * 2**20)
        self._clock = clock
        # Guards memory and counters, for microseconds; the disk has a lock of its own.
        self._mutex = threading.Lock()
        self._memory: MemoryLayer[_Held] = MemoryLayer(self._most // _MEMORY_SHARE)
        self._generation = b""
        # A key is a hash of the whole task: that of the last miss and of leases is used again.
        self._missed: Tuple[Optional[RequestFields], bytes] = (None, b"")
        self._leased: Dict[RequestFields, bytes] = {}
        self._hits = self._misses = self._forged = 0
        self._saved = 0.0
        if enabled:
            self._folder = cache_folder(cache_dir, allowed_dirs)
            self._secret = Secret(find_secret(cache_secret, self._folder))
            self._touches = HitBuffer(self._mutex)
            self._disk = RecoveringStore(self._folder, self._most, self._secret, self._touches)
            weakref.finalize(self, self._disk.close)
            register_after_fork(self)

    def get(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Optional[Dict[str, Any]]:
        """A kept answer, or None.

        Returns:
            `response`, `input_tokens`, `output_tokens`, `estimated_cost` (USD), `cached` (True),
            `cache_age_seconds`, `hit_count`, and what `set` was given as `extra`.
        """
        if not self.enabled or agent_name in self.exclude_agents:
            return None
        fields = request_fields(agent_name, task, model, fingerprint)
        return self._recall(fields) or self._look_up(fields)

    def has(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> bool:
        """Whether `get` would find an answer. Counts nothing, neither a hit nor a use."""
        if not self.enabled or agent_name in self.exclude_agents:
            return False
        key = cache_key(request_fields(agent_name, task, model, fingerprint))
        nothing: Tuple[bytes, Optional[_Held]] = (b"", None)
        _, held = self._disk.run(lambda store: self._read(store, key), nothing)
        return held is not None and abs(self._clock() - held.entry.created) < self._ttl

    def get_in_memory(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Optional[Dict[str, Any]]:
        """As `get`, from memory alone: it never waits for the disk, and None is not counted as a miss."""
        if not self.enabled or agent_name in self.exclude_agents:
            return None
        return self._recall(request_fields(agent_name, task, model, fingerprint))

    def _recall(self, fields: RequestFields) -> Optional[Dict[str, Any]]:
        """From memory alone."""
        generation = self._disk.generation[:]
        with self._mutex:
            if generation == self._generation:
                held = self._memory.get(fields)
                return None if held is None else self._served(held)
            # Somebody withdrew an entry; which one is not told.
            self._memory.clear()
            self._generation = generation
            return None

    def _served(self, held: _Held) -> Optional[Dict[str, Any]]:
        entry = held.entry
        age = self._clock() - entry.created
        # A time far ahead was written by a clock that was wrong.
        if not abs(age) < self._ttl:
            return None
        held.hits += 1
        self._hits += 1
        self._saved += entry.cost or 0.0
        self._touches.note(held.row)
        return to_hit(entry, age, held.hits)

    def _look_up(self, fields: RequestFields) -> Optional[Dict[str, Any]]:
        key = cache_key(fields)
        nothing: Tuple[bytes, Optional[_Held]] = (b"", None)
        generation, held = self._disk.run(lambda store: self._read(store, key), nothing)
        with self._mutex:
            hit = self._served(held) if held is not None else None
            if held is None or hit is None:
                self._misses += 1
                self._missed = (fields, key)
                return None
            self._hold(fields, held, generation)
            return hit

    def _read(self, store: Store, key: bytes) -> Tuple[bytes, Optional[_Held]]:
        generation = store.generation.read()
        row = store.get(key)
        if row is None or not is_of(row[0], self._secret):
            return generation, None
        entry = unseal(row[0], key, self._secret)
        if entry is None:
            self._forged += 1
            logger.warning(FORGED, extra={"cache_key": key.hex()})
            store.delete([key])
            # A damaged file makes such entries as well, and would lose what is set from here on.
            store.expect_sound()
            return generation, None
        identity = row_id(key)
        written = row[1] if type(row[1]) is int else 0
        return generation, _Held(entry, written + self._touches.uses(identity), identity)

    def _hold(self, fields: RequestFields, held: _Held, generation: bytes) -> None:
        # What was read before somebody withdrew an entry may be that entry.
        if not self._memory:
            self._generation = generation
        if generation == self._generation:
            size = (
                getsizeof(held.entry.response)
                + len(held.entry.extra)
                + getsizeof(fields[1])
                + _ENTRY_OVERHEAD
            )
            self._memory.put(fields, held, size)

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
        """Keeps an answer; `estimated_cost` in USD, `extra` plain JSON values. Returns whether it is kept."""
        one = self._entry(
            agent_name, task, model, response, input_tokens, output_tokens, estimated_cost, fingerprint, extra
        )
        return one is not None and self._keep([one]) == 1

    def set_many(self, answers: Iterable[Mapping[str, Any]]) -> int:
        """As `set` for each, whose arguments they hold, in one write. Returns how many are kept."""
        entries = (self._entry(**arguments_of(answer)) for answer in answers)
        return self._keep([one for one in entries if one])

    def _entry(self, agent_name: str, *more: Any, **named: Any) -> Optional[Tuple[RequestFields, Entry]]:
        if not self.enabled or agent_name in self.exclude_agents:
            return None
        named["key_of"] = self._key_of
        return to_entry(self._clock(), agent_name, *more, **named)

    def _key_of(self, fields: RequestFields) -> bytes:
        missed, key = self._missed
        return key if missed == fields else self._leased.get(fields) or cache_key(fields)

    def _keep(self, answers: List[Tuple[RequestFields, Entry]]) -> int:
        most = self._most // 2
        sealed = [(fields, entry, seal_if_fits(entry, self._secret, most)) for fields, entry in answers]
        rows = [(entry.key, blob, fields[0]) for fields, entry, blob in sealed if blob]
        generation = self._disk.run(lambda store: self._write(store, rows), None) if rows else None
        if generation is None:
            return 0
        with self._mutex:
            for fields, entry, blob in sealed:
                if blob:
                    self._memory.drop(fields)
                    self._hold(fields, _Held(entry, 0, row_id(entry.key)), generation)
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
        key = cache_key(request_fields(agent_name, task, model, fingerprint))
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
        """What this object did (`hits`, `misses`, `hit_rate`, `evictions`, `integrity_failures`,
        `saved_cost` in USD), and what the folder holds (`entries`, `size_mb`, and `total_hits`: the hits of
        these entries by all processes, as far as they are written)."""
        count = size = uses = 0
        if self.enabled:
            count, size, uses = self._disk.run(
                lambda store: (store.count(), store.size(), store.total_hits()), (0, 0, 0)
            )
        with self._mutex:
            looked = self._hits + self._misses
            return {
                "enabled": self.enabled,
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": f"{100 * self._hits / looked:.1f}%" if looked else "0.0%",
                "evictions": self._disk.evictions if self.enabled else 0,
                "integrity_failures": self._forged,
                "saved_cost": self._saved,
                "size_mb": size / 2**20,
                "entries": count,
                "memory_entries": len(self._memory),
                "total_hits": uses,
                "cache_dir": str(self._folder) if self.enabled else None,
                "ttl_hours": self.ttl_hours,
                "max_size_mb": self.max_size_mb,
            }

    def explain_miss(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> Dict[str, Any]:
        """Why an answer is not found: expired, or which fields differ from those of the nearest entry.

        Returns:
            `hit`, `reason` (a sentence), `differs` (names of fields), and of the entry that was compared
            `model` and `age_seconds`.
        """
        from .cache.diagnostics import explain, explained

        if not self.enabled:
            return explained(False, "The cache is switched off.")
        if agent_name in self.exclude_agents:
            return explained(False, f"Answers of {agent_name} are not kept.")
        fields = request_fields(agent_name, task, model, fingerprint)
        return self._disk.run(
            lambda store: explain(store, self._secret, fields, self._clock(), self._ttl),
            explained(False, "The cache can't be read."),
        )

    def verify(self, remove: bool = False, most: int = -1) -> Dict[str, int]:
        """Checks the signature of every entry, or of the `most` that were used last.

        Those that do not hold are removed only if told to.

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
        """Whether the caller is the one, of all processes, to find this answer; never waits.

        It has to call `release_lease` after. A process that dies lets go of its leases.
        """
        if not self.enabled:
            return True
        fields = request_fields(agent_name, task, model, fingerprint)
        key = self._key_of(fields)
        try:
            granted = leases_of(self._folder).acquire(row_id(key))
        except OSError as error:
            # Without locks on files there is no agreement: everyone asks.
            logger.warning("the cache has no leases: %s", error)
            return True
        if granted:
            self._leased[fields] = key
        return granted

    def release_lease(
        self, agent_name: str, task: str, model: str, fingerprint: Mapping[str, str] = NO_FINGERPRINT
    ) -> None:
        """Lets the next one go ahead."""
        if self.enabled:
            fields = request_fields(agent_name, task, model, fingerprint)
            key = self._leased.pop(fields, None) or cache_key(fields)
            try:
                leases_of(self._folder).release(row_id(key))
            except OSError as error:
                logger.warning("the cache has no leases: %s", error)

    def close(self) -> None:
        """Writes what is buffered and lets go of the files; the next call opens them again."""
        with self._mutex:
            self._memory.clear()
        if self.enabled:
            self._disk.close()

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def after_fork(self) -> None:
        """Called in a forked child: it opens files of its own."""
        self._mutex = threading.Lock()
        self._leased.clear()
        self._touches = HitBuffer(self._mutex)
        self._disk.forget_parent(self._touches)
