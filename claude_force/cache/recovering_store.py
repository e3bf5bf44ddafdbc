"""The disk layer as the cache sees it: opened when needed, mended when damaged, and never in the way."""

from __future__ import annotations

import json
import logging
import mmap
import threading
from pathlib import Path
from typing import Any, Callable, List, Optional, TypeVar, Union

from ..storage.locks import FolderLock, SharedCounter
from ..storage.signing import FORMAT, Secret, is_of, key_of, unseal
from .repair import FAULTS, is_damage, rebuild
from .store import HitBuffer, Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

# After a fork the child must neither use nor close what its parent opened: SQLite's locks belong to
# the process, and closing lets go of them.
_OF_PARENTS: List[Any] = []


class RecoveringStore:
    """Work on the store, from any thread. A fault is logged and gives what the caller has for that case."""

    def __init__(self, folder: Path, most_bytes: int, secret: Secret, touches: HitBuffer) -> None:
        self._folder, self._most, self._secret = folder, most_bytes, secret
        self._path = folder / f"answers-{FORMAT}.db"
        self._mutex = threading.RLock()
        self._open: Optional[_Open] = None
        # Its content changes when any process withdraws an entry; empty as long as nothing is open.
        self.generation: Union[bytes, mmap.mmap] = b""
        self._evicted = 0
        self._touches = touches

    def run(self, work: Callable[[Store], T], otherwise: T) -> T:
        """`work` on the open store, a second time after damage was mended; `otherwise` after any fault."""
        with self._mutex:
            try:
                return work(self._store())
            except (*FAULTS, OSError) as error:
                if not self._mended(error):
                    _report(error)
                    return otherwise
            try:
                return work(self._store())
            except (*FAULTS, OSError) as error:
                _report(error)
                return otherwise

    @property
    def evictions(self) -> int:
        opened = self._open
        return self._evicted + (opened.store.evictions if opened is not None else 0)

    def close(self) -> None:
        """Writes what is buffered; the next work opens the files again."""
        with self._mutex:
            opened, self._open, self.generation = self._open, None, b""
            if opened is None:
                return
            self._evicted += opened.store.evictions
            try:
                opened.close()
            except (*FAULTS, OSError) as error:
                _report(error)

    def _store(self) -> Store:
        opened = self._open
        if opened is not None and (opened.seen == self.generation[:] or opened.is_current()):
            return opened.store
        self.close()
        if self._open is None:
            self._open = _Open(self._folder, self._path, self._most, self._touches)
            self.generation = self._open.generation.number
        return self._open.store

    def _mended(self, error: Exception) -> bool:
        """Whether another try is worth it."""
        if not is_damage(error):
            return False
        before = self._inode()
        self.close()
        try:
            lock = FolderLock(self._folder / "lock")
            try:
                with lock:
                    # Another process may have mended it while this one waited.
                    if self._inode() == before:
                        rebuild(self._path, self._judge)
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

    def _judge(self, sealed: bytes) -> Optional[str]:
        if not is_of(sealed, self._secret):
            # Whether it is whole is for the owner of its secret to say.
            return ""
        entry = unseal(sealed, key_of(sealed), self._secret)
        return str(json.loads(entry.about)[0]) if entry is not None else None

    def forget_parent(self, touches: HitBuffer) -> None:
        """To be called in the child after a fork, with touches of its own."""
        if self._open is not None:
            _OF_PARENTS.append(self._open)
        self._open, self.generation = None, b""
        self._mutex, self._touches = threading.RLock(), touches


class _Open:
    """The files of an open store."""

    def __init__(self, folder: Path, path: Path, most_bytes: int, touches: HitBuffer) -> None:
        self._lock = FolderLock(folder / "lock")
        try:
            self.generation = SharedCounter(folder / "generation")
            self.seen = self.generation.read()
            self.store = Store(path, most_bytes, self._lock, self.generation, touches)
        except BaseException:
            self._lock.close()
            raise

    def is_current(self) -> bool:
        """Whether the path still names this file: another process may have mended it."""
        self.seen = self.generation.read()
        return self.store.is_current()

    def close(self) -> None:
        try:
            self.store.close()
        finally:
            self._lock.close()


def _report(error: Exception) -> None:
    # Its words alone: a record that somebody keeps would hold, with the error's frames, the files open.
    logger.warning("the cache failed: %s", str(error), extra={"error_type": type(error).__name__})
