"""Advisory locks on open files, which the system lets go of when their holder dies."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Dict, Optional, Set, Type

from .fork import register_after_fork
from .private_files import open_private

if sys.platform == "win32":
    import msvcrt

    def lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)

    def try_lock(descriptor: int) -> bool:
        # A byte far behind the end, so that what the file holds can be read.
        return lock_byte(descriptor, 2**62)

    def unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def lock_byte(descriptor: int, position: int) -> bool:
        os.lseek(descriptor, position, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def unlock_byte(descriptor: int, position: int) -> None:
        os.lseek(descriptor, position, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def try_lock(descriptor: int) -> bool:
        # Of the open file, not of the process: to close another descriptor of it does not let go.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def lock_byte(descriptor: int, position: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock_byte(descriptor: int, position: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, position)


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


class SharedCounter:
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


_EVERY: Dict[Path, Leases] = {}


def leases_of(folder: Path) -> Leases:
    """One for each folder in a process: closing any descriptor of the file would let go of all its locks."""
    found = _EVERY.get(folder)
    if found is None:
        # Of two threads that come first at once, one's is kept; the other's has locked nothing yet.
        found = _EVERY.setdefault(folder, Leases(folder / "leases"))
    return found


class Leases:
    """Leases of this process. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._file = open_private(path)
        self._mutex = threading.Lock()
        self._held: Set[int] = set()
        register_after_fork(self)

    def acquire(self, identity: int) -> bool:
        """Whether it is this caller's now; never waits."""
        with self._mutex:
            if identity in self._held or not lock_byte(self._file, identity):
                return False
            self._held.add(identity)
            return True

    def release(self, identity: int) -> None:
        with self._mutex:
            self._held.discard(identity)
            unlock_byte(self._file, identity)

    def after_fork(self) -> None:
        """Called in a forked child: it inherits none of these locks."""
        self._mutex = threading.Lock()
        self._held.clear()
