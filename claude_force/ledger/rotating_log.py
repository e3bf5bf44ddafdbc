"""The files of a ledger: many processes append lines, and rotate the file when it is full."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

from ..storage.locks import try_lock, unlock
from ..storage.output_paths import open_package_folder
from ..storage.private_files import Folder

logger = logging.getLogger(__name__)

ACTIVE_FILE = "executions.jsonl"
_ROTATED = re.compile(r"executions-(\d+)\.jsonl")
_LOCK = "lock"
# A writer that was stopped while it held the lock must not block all others for good.
_LOCK_TIMEOUT_SECONDS = 5.0
_MIN_SLEEP, _MAX_SLEEP = 0.0002, 0.01


class RotatedFile(NamedTuple):
    """A full file; `number` counts from 1."""

    number: int
    path: Path


def rotated_files(folder: Path) -> List[RotatedFile]:
    """Returns the full files, oldest first; an empty list if `folder` doesn't exist. Raises OSError."""
    try:
        with open_package_folder(folder) as opened:
            return _list_rotated(opened)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _list_rotated(folder: Folder) -> List[RotatedFile]:
    matches = ((_ROTATED.fullmatch(name), folder.path / name) for name in folder.names())
    return sorted(RotatedFile(int(match.group(1)), path) for match, path in matches if match)


def is_ledger_file(name: str) -> bool:
    """Whether a file of this name in the folder belongs to the ledger."""
    return name in (ACTIVE_FILE, _LOCK) or _ROTATED.fullmatch(name) is not None


class RotatingLog:
    """Appends lines to `executions.jsonl` in `folder`, and follows no link because a project controls it.

    Args:
        max_bytes: a file that would exceed this is first renamed to `executions-<number>.jsonl`.
        keep: the number of full files to keep; None keeps all.
    """

    def __init__(self, folder: Path, max_bytes: int, keep: Optional[int] = None) -> None:
        self._folder, self._max_bytes, self._keep = folder, max_bytes, keep

    def append(self, lines: List[str]) -> None:
        """Appends ASCII lines in one write that other processes don't interleave with.

        Raises UnsafePathError or OSError.
        """
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        with open_package_folder(self._folder, make=True) as folder:
            lock_file = folder.open(_LOCK)
            try:
                locked = _acquire(lock_file)
                try:
                    self._append(folder, data, locked)
                finally:
                    if locked:
                        unlock(lock_file)
            finally:
                os.close(lock_file)

    def _append(self, folder: Folder, data: bytes, locked: bool) -> None:
        # Opened anew each time because another process may have renamed the file.
        file = folder.open(ACTIVE_FILE, os.O_APPEND)
        try:
            size = os.fstat(file).st_size
            if locked and size and size + len(data) > self._max_bytes:
                os.close(file)
                file = -1
                self._rotate(folder)
                file, size = folder.open(ACTIVE_FILE, os.O_APPEND), 0
            _write_all(file, data if _ends_with_newline(file, size) else b"\n" + data)
        finally:
            if file >= 0:
                os.close(file)

    def _rotate(self, folder: Folder) -> None:
        rotated = _list_rotated(folder)
        number = rotated[-1].number + 1 if rotated else 1
        folder.replace(ACTIVE_FILE, f"executions-{number:06d}.jsonl")
        if self._keep is not None:
            for oldest in rotated[: max(0, len(rotated) + 1 - self._keep)]:
                folder.unlink(oldest.path.name)


def _acquire(lock_file: int) -> bool:
    """Whether the lock was acquired in time. Without it, lines are appended but no file is renamed."""
    for seconds in _backoff():
        if try_lock(lock_file):
            return True
        time.sleep(seconds)
    logger.warning("could not lock the ledger within %g s; writing without the lock", _LOCK_TIMEOUT_SECONDS)
    return False


def _backoff() -> Iterator[float]:
    seconds, waited = _MIN_SLEEP, 0.0
    while waited < _LOCK_TIMEOUT_SECONDS:
        yield seconds
        waited += seconds
        seconds = min(2 * seconds, _MAX_SLEEP)


def _ends_with_newline(file: int, size: int) -> bool:
    """Whether a new line can follow: a process that was killed may have left half a line."""
    if not size:
        return True
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"


def _write_all(file: int, data: bytes) -> None:
    # One call writes everything unless the disk is full: then the next call raises.
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
