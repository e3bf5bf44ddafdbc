"""ResponseCache: answers that were paid for once, signed, bounded, shared by threads and processes."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Type, TypeVar, Union

from .cache.key import Question, cache_key, digests, question
from .cache.memory import MemoryLayer
from .cache.place import cache_folder
from .cache.repair import is_damage, salvage
from .cache.secret import find_secret
from .cache.signing import Entry, Row, seal, unseal
from .cache.store import Store
from .errors import CacheError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FILE = "answers.db"
_MEMORY_SHARE = 4
_ENTRY_OVERHEAD = 1024
_NO_FINGERPRINT: Mapping[str, str] = {}


class _Held(NamedTuple):
    entry: Entry
    fields: Dict[str, Any]


class ResponseCache:
    """Answers by agent, task, model and whatever else changes them.

    Args:
        ttl_hours: how long an answer is given out, in hours from when it was made.
        max_size_mb: bound of the file, in megabytes (2**20 bytes).
        cache_secret: signs the entries; None takes CLAUDE_CACHE_SECRET, else one made for the folder.
        exclude_agents: agents whose answers are not repeatable.
        cache_dir: None for `~/.claude/cache`.
        allowed_dirs: folders in which `cache_dir` may be, beside the usual ones.
        clock: Unix time in seconds.

    Raises CacheError for a folder or a secret that can't be used. After that a fault of the cache never
    fails a call: it is logged, and counts as a miss.
    """

    def __init__(
        self,
        ttl_hours: float = 24,
        max_size_mb: float = 100,
        cache_secret: Union[str, bytes, None] = None,
        exclude_agents: Iterable[str] = (),
        cache_dir: Union[str, Path, None] = None,
        enabled: bool = True,
        *,
        allowed_dirs: Iterable[Union[str, Path]] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not ttl_hours > 0 or not max_size_mb > 0:
            raise CacheError("ttl_hours and max_size_mb must be above 0.")
        self.ttl_hours, self.max_size_mb, self.enabled = ttl_hours, max_size_mb, enabled
        self.exclude_agents = frozenset(exclude_agents or ())
        self._ttl = ttl_hours * 3600
        self._most = int(max_size_mb * 2**20)
        self._clock = clock
        self._mutex = threading.RLock()
        self._memory: MemoryLayer[_Held] = MemoryLayer(self._most // _MEMORY_SHARE)
        self._hits = self._misses = self._forged = self._evicted = 0
        self._store: Optional[Store] = None
        self._generation = b""
        self._process = os.getpid()
        if enabled:
            self._folder = cache_folder(cache_dir, allowed_dirs)
            self._secret = find_secret(cache_secret, self._folder)

    def get(
        self, agent: str, task: str, model: str, fingerprint: Mapping[str, str] = _NO_FINGERPRINT
    ) -> Optional[Dict[str, Any]]:
        """A kept answer, or None.

        Returns:
            `response`, `input_tokens`, `output_tokens`, `estimated_cost` (USD), `cached` (True),
            `cache_age_seconds`, `hit_count`, and what `set` was given as `extra`.
        """
        if not self.enabled or agent in self.exclude_agents:
            return None
        asked = question(agent, task, model, fingerprint)
        with self._mutex:
            held = self._from_memory(asked) or self._guarded(
                lambda store: self._from_disk(store, asked), None
            )
            if held is None:
                self._misses += 1
                return None
            self._hits += 1
            held.fields["hit_count"] += 1
            return {**held.fields, "cache_age_seconds": max(0.0, self._clock() - held.entry.created)}

    def _from_memory(self, asked: Question) -> Optional[_Held]:
        self._notice_fork()
        if self._store is None:
            return None
        generation = self._store.generation.read()
        if generation != self._generation:
            # Somebody withdrew an entry; which one is not told.
            self._memory.clear()
            self._generation = generation
            return None
        held = self._memory.get(asked)
        if held is None:
            return None
        if self._clock() - held.entry.created >= self._ttl:
            self._memory.drop(asked)
            return None
        self._store.touch(held.entry.key)
        return held

    def _from_disk(self, store: Store, asked: Question) -> Optional[_Held]:
        key = cache_key(asked)
        row = store.get(key)
        if row is None:
            return None
        entry = self._verified(store, row, key)
        if entry is None or self._clock() - entry.created >= self._ttl:
            return None
        return self._hold(asked, entry, store.hits(key) - 1)

    def _verified(self, store: Store, row: Row, key: str) -> Optional[Entry]:
        entry = unseal(row, key, self._secret)
        if entry is None:
            self._forged += 1
            logger.warning(
                "a cache entry whose signature does not hold was removed", extra={"cache_key": key}
            )
            store.delete([key])
        return entry

    def _hold(self, asked: Question, entry: Entry, hits: int) -> _Held:
        extra = json.loads(entry.extra)
        fields = {
            "response": entry.response,
            "input_tokens": entry.input_tokens,
            "output_tokens": entry.output_tokens,
            "estimated_cost": entry.cost,
            "cached": True,
            "hit_count": hits,
            **extra.get("more", {}),
        }
        held = _Held(entry, fields)
        size = len(entry.response) + len(asked.task) + sum(len(value) for _, value in asked.fingerprint)
        self._memory.put(asked, held, size + _ENTRY_OVERHEAD)
        return held

    def set(
        self,
        agent: str,
        task: str,
        model: str,
        response: str,
        input_tokens: int = 0,
        output_tokens: int = 0,
        estimated_cost: Optional[float] = None,
        fingerprint: Mapping[str, str] = _NO_FINGERPRINT,
        extra: Optional[Mapping[str, Any]] = None,
    ) -> bool:
        """Keeps an answer; `estimated_cost` in USD, `extra` plain JSON values. Returns whether it is kept."""
        if not self.enabled or agent in self.exclude_agents:
            return False
        asked = question(agent, task, model, fingerprint)
        note = json.dumps({"more": dict(extra or {}), "fields": digests(asked)})
        entry = Entry(
            cache_key(asked),
            agent,
            model,
            self._clock(),
            input_tokens,
            output_tokens,
            estimated_cost,
            note,
            response,
        )
        with self._mutex:
            return self._guarded(lambda store: self._keep(store, asked, entry), False)

    def _keep(self, store: Store, asked: Question, entry: Entry) -> bool:
        row = seal(entry, self._secret)
        if len(row[-2]) + _ENTRY_OVERHEAD > self._most // 2:
            logger.info("an answer of %d bytes is too large for the cache", len(row[-2]))
            return False
        replaced = store.put(row)
        if replaced:
            self._memory.clear()
        self._generation = store.generation.read()
        self._hold(asked, entry, 0)
        return True

    def delete(
        self, agent: str, task: str, model: str, fingerprint: Mapping[str, str] = _NO_FINGERPRINT
    ) -> bool:
        """Removes one answer. Returns whether it was there."""
        key = cache_key(question(agent, task, model, fingerprint))
        with self._mutex:
            return bool(self._guarded(lambda store: store.delete([key]), 0))

    def clear(self, agent: Optional[str] = None) -> int:
        """Removes all answers, or those of one agent. Returns how many."""
        with self._mutex:
            return self._guarded(lambda store: store.clear(agent), 0)

    def get_stats(self) -> Dict[str, Any]:
        """What this object did (`hits`, `misses`, `hit_rate`, `evictions`, `integrity_failures`), and what
        the folder holds (`entries`, `size_mb`)."""
        with self._mutex:
            looked = self._hits + self._misses
            return {
                "enabled": self.enabled,
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": f"{100 * self._hits / looked:.1f}%" if looked else "0.0%",
                "evictions": self._evicted + (self._store.evictions if self._store else 0),
                "integrity_failures": self._forged,
                "size_mb": self._guarded(lambda store: store.size(), 0) / 2**20,
                "entries": self._guarded(lambda store: store.count(), 0),
                "memory_entries": len(self._memory),
                "ttl_hours": self.ttl_hours,
                "max_size_mb": self.max_size_mb,
            }

    def close(self) -> None:
        """Writes what is buffered and lets go of the files; the next call opens them again."""
        with self._mutex:
            self._notice_fork()
            store, self._store = self._store, None
            self._memory.clear()
            if store is not None:
                self._evicted += store.evictions
                try:
                    store.close()
                except sqlite3.Error as error:
                    logger.warning("the cache could not be closed in order: %s", error)

    def __enter__(self) -> ResponseCache:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _guarded(self, work: Callable[[Store], T], otherwise: T) -> T:
        """`work` on the open store. A damaged file is mended once; any other fault is logged."""
        if not self.enabled:
            return otherwise
        for last in (False, True):
            try:
                return work(self._opened())
            except sqlite3.Error as error:
                if last or not is_damage(error):
                    logger.warning("the cache failed: %s", error, extra={"error_type": type(error).__name__})
                    return otherwise
                self._mend()
            except OSError as error:
                logger.warning("the cache failed: %s", error, extra={"error_type": type(error).__name__})
                return otherwise
        return otherwise

    def _opened(self) -> Store:
        self._notice_fork()
        if self._store is None:
            self._store = Store(self._folder / _FILE, self._most)
            self._generation = self._store.generation.read()
        return self._store

    def _mend(self) -> None:
        self.close()
        path = self._folder / _FILE
        rows = salvage(path, lambda row: unseal(row, row[0], self._secret) is not None)
        for row in rows:
            self._opened().put(row)

    def _notice_fork(self) -> None:
        if self._process == os.getpid():
            return
        # The child must not use, nor close, what its parent opened: SQLite's locks belong to the process.
        if self._store is not None:
            self._store.abandon()
        self._store, self._process = None, os.getpid()
        self._memory.clear()
