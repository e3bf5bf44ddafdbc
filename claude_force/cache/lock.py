"""One writer at a time among all processes that share a cache folder, and one number that they all see."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Optional, Type

from ..locks import lock, unlock
from ..storage.private_files import open_private

_NUMBER = struct.Struct("<Q")


class FolderLock:
    """An advisory lock on a file, for processes: a thread of the same object is not kept out.

    The system lets go of it when its holder dies.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_private(path)

    def __enter__(self) -> None:
        lock(self._file)

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        unlock(self._file)

    def close(self) -> None:
        os.close(self._file)


class Generation:
    """A counter in shared memory: it moves when an entry that others may hold in memory is withdrawn.

    It stays mapped as long as anybody holds the object, so that a thread may read while another closes.
    """

    def __init__(self, path: Path) -> None:
        descriptor = open_private(path)
        try:
            if os.fstat(descriptor).st_size < _NUMBER.size:
                os.ftruncate(descriptor, _NUMBER.size)
                if hasattr(os, "posix_fallocate"):
                    # On a full disk it fails here: a page without a place on it ends the process (SIGBUS).
                    os.posix_fallocate(descriptor, 0, _NUMBER.size)
            self.number = mmap.mmap(descriptor, _NUMBER.size)
        finally:
            os.close(descriptor)

    def read(self) -> bytes:
        return self.number[:]

    def advance(self) -> None:
        """To be called under the folder's lock."""
        _NUMBER.pack_into(self.number, 0, (_NUMBER.unpack_from(self.number)[0] + 1) % 2**64)
