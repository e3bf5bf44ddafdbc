"""The file of executions: many processes append to it, and whoever finds it large starts the next one."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

from ..storage.locks import try_lock, unlock
from ..storage.places import open_folder
from ..storage.private_files import Folder

logger = logging.getLogger(__name__)

LIVE = "executions.jsonl"
_OLDER = re.compile(r"executions-(\d+)\.jsonl")
_LOCK = "lock"
# A writer that was stopped while it held the lock must not stop all others for good.
_MOST_WAITING_SECONDS = 5.0
_SHORTEST_NAP, _LONGEST_NAP = 0.0002, 0.01


class Older(NamedTuple):
    """A file that was full; `number` counts from 1."""

    number: int
    path: Path


def older_files(folder: Path) -> List[Older]:
    """The full files, oldest first; none in a folder that is not there. Raises OSError."""
    try:
        with open_folder(folder) as opened:
            return _older(opened)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _older(folder: Folder) -> List[Older]:
    found = ((_OLDER.fullmatch(name), folder.path / name) for name in folder.names())
    return sorted(Older(int(match.group(1)), path) for match, path in found if match)


def is_ledger_file(name: str) -> bool:
    """Whether a file of this name in the folder is the ledger's own."""
    return name in (LIVE, _LOCK) or _OLDER.fullmatch(name) is not None


class RotatingLog:
    """Appends lines to `executions.jsonl` in `folder`, which a project may hold: nothing goes through a link.

    Args:
        max_bytes: a file that would be larger is renamed to `executions-<number>.jsonl` first.
        keep: how many of those stay; None for all.
    """

    def __init__(self, folder: Path, max_bytes: int, keep: Optional[int] = None) -> None:
        self._folder, self._max_bytes, self._keep = folder, max_bytes, keep

    def append(self, lines: List[str]) -> None:
        """In one write, which no other process's cuts in two. Raises UnsafePathError, OSError."""
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        with open_folder(self._folder, make=True) as folder:
            guard = folder.open(_LOCK)
            try:
                locked = _locked(guard)
                try:
                    self._append(folder, data, locked)
                finally:
                    if locked:
                        unlock(guard)
            finally:
                os.close(guard)

    def _append(self, folder: Folder, data: bytes, locked: bool) -> None:
        # Opened anew each time: another process may have renamed the file since.
        file = folder.open(LIVE, os.O_APPEND)
        try:
            size = os.fstat(file).st_size
            if locked and size and size + len(data) > self._max_bytes:
                os.close(file)
                file = -1
                self._start_next(folder)
                file, size = folder.open(LIVE, os.O_APPEND), 0
            _write(file, data if _ends_with_newline(file, size) else b"\n" + data)
        finally:
            if file >= 0:
                os.close(file)

    def _start_next(self, folder: Folder) -> None:
        older = _older(folder)
        number = older[-1].number + 1 if older else 1
        folder.replace(LIVE, f"executions-{number:06d}.jsonl")
        if self._keep is not None:
            for one in older[: max(0, len(older) + 1 - self._keep)]:
                folder.unlink(one.path.name)


def _locked(guard: int) -> bool:
    """Whether the lock was given in time. Without it a line may still be added, but nothing renamed."""
    for nap in _naps():
        if try_lock(guard):
            return True
        time.sleep(nap)
    logger.warning("the lock of the ledger was not given in %g s; written without it", _MOST_WAITING_SECONDS)
    return False


def _naps() -> Iterator[float]:
    nap, waited = _SHORTEST_NAP, 0.0
    while waited < _MOST_WAITING_SECONDS:
        yield nap
        waited += nap
        nap = min(2 * nap, _LONGEST_NAP)


def _ends_with_newline(file: int, size: int) -> bool:
    """A process that was killed may have left half a line, which must not hide the next one."""
    if not size:
        return True
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"


def _write(file: int, data: bytes) -> None:
    # One call does it all, unless the disk is full: then the next one says so.
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
