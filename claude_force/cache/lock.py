"""One writer at a time among all processes that share a cache folder, and one number that they all see."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

_NUMBER = struct.Struct("<Q")


class FolderLock:
    """An advisory lock on a file (flock). Its holder's death releases it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)


class Generation:
    """A counter in shared memory: it moves when an entry that others may hold in memory is withdrawn."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < _NUMBER.size:
                os.ftruncate(descriptor, _NUMBER.size)
            self._map = mmap.mmap(descriptor, _NUMBER.size)
        finally:
            os.close(descriptor)

    def read(self) -> bytes:
        return self._map[:]

    def advance(self) -> None:
        """To be called under the folder's lock."""
        _NUMBER.pack_into(self._map, 0, (_NUMBER.unpack_from(self._map)[0] + 1) % 2**64)

    def close(self) -> None:
        self._map.close()
