"""The memory layer: least recently used goes first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Hashable, Optional, Tuple, TypeVar

V = TypeVar("V")


class MemoryLayer(Generic[V]):
    """Not thread-safe: its owner holds a lock. `most_bytes` bounds the sum of the sizes given to `put`."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._items: OrderedDict[Hashable, Tuple[V, int]] = OrderedDict()
        self.size = 0

    def get(self, key: Hashable) -> Optional[V]:
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keeps `value`, unless it alone is over the bound: then the others stay, and nothing of this key."""
        self.drop(key)
        if size > self._most:
            return
        self.size += size
        self._items[key] = (value, size)
        while self.size > self._most:
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
