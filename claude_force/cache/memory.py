"""What the cache holds in memory: entries, and hits that are not yet written to the disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import islice
from time import time_ns
from typing import Dict, Generic, Hashable, List, Optional, Tuple, TypeVar

from .entries import CacheEntry

V = TypeVar("V")


class MemoryEntry:
    """An entry whose signature was verified, with its hits and the id of its row."""

    __slots__ = ("entry", "hits", "row")

    def __init__(self, entry: CacheEntry, hits: int, row: int) -> None:
        self.entry, self.hits, self.row = entry, hits, row


class MemoryLayer(Generic[V]):
    """Values by key, the least recently used evicted first. Not thread-safe: its owner holds a lock.

    `max_bytes` bounds the sum of the sizes given to `put`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[Hashable, Tuple[V, int]] = OrderedDict()
        self.size = 0

    def get(self, key: Hashable) -> Optional[V]:
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Stores `value`; where it alone is over the bound, nothing of this key, and evicts no other."""
        self.drop(key)
        if size > self._max_bytes:
            return
        self.size += size
        self._items[key] = (value, size)
        while self.size > self._max_bytes:
            self.size -= self._items.popitem(last=False)[1][1]

    def drop(self, key: Hashable) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self.size -= item[1]

    def clear(self) -> None:
        self._items.clear()
        self.size = 0

    def __len__(self) -> int:
        return len(self._items)


class HitBuffer:
    """By row id: the time of the last hit in nanoseconds, and the number of hits.

    The caller of `add` holds `mutex` already; the other methods are called without it.
    """

    def __init__(self, mutex: threading.Lock) -> None:
        self._hits: Dict[int, Tuple[int, int]] = {}
        self._mutex = mutex

    def add(self, identity: int) -> None:
        hits = self._hits.get(identity)
        self._hits[identity] = (time_ns(), hits[1] + 1 if hits else 1)

    def take(self, most: int) -> List[Tuple[int, int, int]]:
        """Removes up to `most` and returns them as (time, number, row id)."""
        with self._mutex:
            taken = [(at, number, identity) for identity, (at, number) in islice(self._hits.items(), most)]
            for _, _, identity in taken:
                del self._hits[identity]
        return taken

    def count(self, identity: int) -> int:
        return self._hits.get(identity, (0, 0))[1]

    def discard(self, identity: int) -> None:
        self._hits.pop(identity, None)

    def __contains__(self, identity: object) -> bool:
        return identity in self._hits

    def __len__(self) -> int:
        return len(self._hits)
