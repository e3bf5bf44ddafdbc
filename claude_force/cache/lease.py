"""Which process asks for an answer that several miss: a lock on one byte of a file for each question.

The system lets go of a lock when its holder dies, so that a crashed process holds nobody up.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Dict, Set

from ..forks import forgets_after_fork
from ..locks import lock_byte, unlock_byte
from ..storage.private_files import open_private

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
        forgets_after_fork(self)

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
