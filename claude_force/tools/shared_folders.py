"""Keeps one descriptor of a folder for all who have it open: hundreds of agents work in one project."""

from __future__ import annotations

import os
import threading
from typing import Dict, List, Tuple

_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_Identity = Tuple[int, int]


class SharedFolders:
    """Descriptors of folders, each with the number of those who use it. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Dict[_Identity, List[int]] = {}
        self._identities: Dict[int, _Identity] = {}

    def open(self, path: str) -> int:
        """Returns a descriptor, to be given back to `close`. Raises OSError."""
        descriptor = os.open(path, _FLAGS)
        info = os.fstat(descriptor)
        # Not by its path, where another folder may lie by now.
        identity = info.st_dev, info.st_ino
        with self._lock:
            known = self._open.get(identity)
            if known is None:
                self._open[identity], self._identities[descriptor] = [descriptor, 1], identity
                return descriptor
            known[1] += 1
        os.close(descriptor)
        return known[0]

    def close(self, descriptor: int) -> None:
        """Closes it where nobody else uses it."""
        with self._lock:
            identity = self._identities[descriptor]
            known = self._open[identity]
            known[1] -= 1
            if known[1]:
                return
            del self._open[identity], self._identities[descriptor]
            os.close(descriptor)


shared_folders = SharedFolders()
