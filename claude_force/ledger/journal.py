"""The file of executions: many processes append to it, and whoever finds it large starts the next one."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

from ..cache.files import open_private
from ..locks import try_lock, unlock

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
    if not folder.is_dir():
        return []
    found = ((_OLDER.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(Older(int(match.group(1)), path) for match, path in found if match)


def is_ledger_file(name: str) -> bool:
    """Whether a file of this name in the folder is the ledger's own."""
    return name in (LIVE, _LOCK) or _OLDER.fullmatch(name) is not None


class Journal:
    """Appends lines to `executions.jsonl` in `folder`.

    Args:
        max_bytes: a file that would be larger is renamed to `executions-<number>.jsonl` first.
        keep: how many of those stay; None for all.
    """

    def __init__(self, folder: Path, max_bytes: int, keep: Optional[int] = None) -> None:
        self._folder, self._max_bytes, self._keep = folder, max_bytes, keep

    def append(self, lines: List[str]) -> None:
        """In one write, which no other process's cuts in two. Raises OSError."""
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        self._make_folder()
        guard = open_private(self._folder / _LOCK)
        try:
            locked = _locked(guard)
            try:
                self._append(data, locked)
            finally:
                if locked:
                    unlock(guard)
        finally:
            os.close(guard)

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and self._folder.stat().st_mode & 0o777 != 0o700:
            self._folder.chmod(0o700)

    def _append(self, data: bytes, locked: bool) -> None:
        # Opened anew each time: another process may have renamed the file since.
        file = open_private(self._folder / LIVE, os.O_APPEND)
        try:
            size = os.fstat(file).st_size
            if locked and size and size + len(data) > self._max_bytes:
                os.close(file)
                file = -1
                self._start_next()
                file, size = open_private(self._folder / LIVE, os.O_APPEND), 0
            _write(file, data if _ends_with_newline(file, size) else b"\n" + data)
        finally:
            if file >= 0:
                os.close(file)

    def _start_next(self) -> None:
        older = older_files(self._folder)
        number = older[-1].number + 1 if older else 1
        live = self._folder / LIVE
        live.rename(self._folder / f"executions-{number:06d}.jsonl")
        if self._keep is not None:
            for one in older[: max(0, len(older) + 1 - self._keep)]:
                one.path.unlink()


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
