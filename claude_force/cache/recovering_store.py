"""The disk layer that never fails a call: opened when needed, rebuilt when damaged."""

from __future__ import annotations

import json
import logging
import mmap
import threading
from pathlib import Path
from typing import Any, Callable, List, Optional, TypeVar, Union

from ..storage.locks import FolderLock, SharedCounter
from ..storage.signing import Secret
from ..storage.sqlite_files import FAULTS, is_damage
from .entries import is_signed_by, key_of, unseal
from .memory import HitBuffer
from .store import Store, store_path

logger = logging.getLogger(__name__)

T = TypeVar("T")

# After a fork the child must neither use nor close what its parent opened: SQLite's locks belong to the
# process, and closing releases them.
_OF_PARENTS: List[Any] = []


class RecoveringStore:
    """Runs work on the store, from any thread. A fault is logged and gives the caller's default."""

    def __init__(self, folder: Path, max_bytes: int, secret: Secret, hits: HitBuffer) -> None:
        self._folder, self._max_bytes, self._secret = folder, max_bytes, secret
        self._path = store_path(folder)
        self._mutex = threading.RLock()
        self._open: Optional[Store] = None
        # Changes when any process removes an entry; empty while nothing is open.
        self.generation: Union[bytes, mmap.mmap] = b""
        self._evicted = 0
        self._hits = hits

    def run(self, work: Callable[[Store], T], default: T) -> T:
        """Returns `work(store)`, tried again after damage was repaired; `default` after any fault."""
        with self._mutex:
            try:
                return work(self._store())
            except (*FAULTS, OSError) as error:
                if not self._rebuilt(error):
                    _report(error)
                    return default
            try:
                return work(self._store())
            except (*FAULTS, OSError) as error:
                _report(error)
                return default

    @property
    def evictions(self) -> int:
        opened = self._open
        return self._evicted + (opened.evictions if opened is not None else 0)

    def close(self) -> None:
        """Writes what is buffered; the next work opens the files again."""
        with self._mutex:
            opened, self._open, self.generation = self._open, None, b""
            if opened is None:
                return
            self._evicted += opened.evictions
            try:
                opened.close()
            except (*FAULTS, OSError) as error:
                _report(error)

    def after_fork(self, hits: HitBuffer) -> None:
        """Called in a forked child, with a buffer for its hits."""
        if self._open is not None:
            _OF_PARENTS.append(self._open)
        self._open, self.generation = None, b""
        self._mutex, self._hits = threading.RLock(), hits

    def _store(self) -> Store:
        opened = self._open
        if opened is not None and (opened.seen == self.generation[:] or opened.is_current()):
            return opened
        self.close()
        self._open = Store(self._folder, self._max_bytes, self._hits)
        self.generation = self._open.generation.number
        return self._open

    def _rebuilt(self, error: Exception) -> bool:
        """Repairs damage. Returns whether another try is worth it."""
        if not is_damage(error):
            return False
        before = self._inode()
        self.close()
        # Imported here: hardly any process needs it.
        from .repair import rebuild

        try:
            lock = FolderLock(self._folder / "lock")
            try:
                with lock:
                    # Another process may have rebuilt it while this one waited.
                    if self._inode() == before:
                        rebuild(self._path, self._agent_of)
                        SharedCounter(self._folder / "generation").advance()
            finally:
                lock.close()
        except (*FAULTS, OSError) as failure:
            _report(failure)
            return False
        return True

    def _inode(self) -> int:
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return 0

    def _agent_of(self, sealed: bytes) -> Optional[str]:
        """The agent of an entry; None where its signature does not hold."""
        if not is_signed_by(sealed, self._secret):
            # Only the owner of its secret can verify it.
            return ""
        entry = unseal(sealed, key_of(sealed), self._secret)
        return str(json.loads(entry.about)[0]) if entry is not None else None


def _report(error: Exception) -> None:
    # The text alone: with the error's frames, a handler that stores records would keep the files open.
    logger.warning("the cache failed: %s", str(error), extra={"error_type": type(error).__name__})
