"""Locks between processes, and what a forked child must forget.

All locks are advisory and on open files: the system releases them when their holder dies.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, Dict, Set

from .private_files import open_private

_NUMBER = struct.Struct("<Q")
_FORK_OWNERS: weakref.WeakSet[Any] = weakref.WeakSet()

if sys.platform == "win32":
    import msvcrt

    def lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)

    def try_lock(descriptor: int) -> bool:
        # A byte far behind the end, so that the content can still be read.
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
        # The lock belongs to the open file, not to the process: closing another descriptor keeps it.
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


class FolderLock:
    """A lock on a file, for processes: it does not exclude another thread that uses the same object.

    lock = FolderLock(folder / "lock")
    with lock:
        ...
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._file = open_private(path)

    def __enter__(self) -> None:
        lock(self._file)

    def __exit__(self, *_: object) -> None:
        unlock(self._file)

    def close(self) -> None:
        os.close(self._file)


class SharedCounter:
    """A number in memory that processes share through a file.

    `number` stays mapped as long as anybody holds it, so that a thread may read while another closes.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        descriptor = open_private(path)
        try:
            if os.fstat(descriptor).st_size < _NUMBER.size:
                os.ftruncate(descriptor, _NUMBER.size)
                if hasattr(os, "posix_fallocate"):
                    # A full disk fails here: writing to a page that it has no place for is a SIGBUS.
                    os.posix_fallocate(descriptor, 0, _NUMBER.size)
            self.number = mmap.mmap(descriptor, _NUMBER.size)
        finally:
            os.close(descriptor)

    def read(self) -> bytes:
        return self.number[:]

    def advance(self) -> None:
        """Adds one. The caller holds the folder's lock."""
        _NUMBER.pack_into(self.number, 0, (_NUMBER.unpack_from(self.number)[0] + 1) % 2**64)


class Leases:
    """Leases by number, each held by at most one caller of all processes. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._file = open_private(path)
        self._mutex = threading.Lock()
        self._held: Set[int] = set()
        register_after_fork(self)

    def acquire(self, identity: int) -> bool:
        """Takes the lease if nobody has it; never waits. Raises OSError."""
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


_LEASES: Dict[Path, Leases] = {}


def leases_of(folder: Path) -> Leases:
    """The leases of a folder: one object in a process, because closing any descriptor releases all locks.

    Raises OSError.
    """
    found = _LEASES.get(folder)
    if found is None:
        # Of two threads that come first at once, one's object is used; the other's has locked nothing yet.
        found = _LEASES.setdefault(folder, Leases(folder / "leases"))
    return found


def register_after_fork(owner: Any) -> None:
    """Has `owner.after_fork()` called in every forked child, before anything else happens there.

    A child lacks its parent's threads, and nobody there releases locks that were held at the fork.
    """
    _FORK_OWNERS.add(owner)


def _in_child() -> None:
    for owner in list(_FORK_OWNERS):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
