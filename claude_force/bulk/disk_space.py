"""Reserves disk space before a request is sent, so that its answer, which is paid for, can be written."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Optional

from ..storage.private_files import Folder
from .task_file import TaskRow

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Reserved beyond what is needed, so that not every row is a system call; and the most that stays reserved.
_SLACK, _MAX_SLACK = 256 * 1024, 2 * 1024 * 1024
# Bytes of a line: for each token of the answer, and for all that is neither the answer nor the row's fields.
_TOKEN_BYTES, _REST_BYTES = 8, 2048
# Bytes of a character, which JSON may have to escape.
_ASCII_BYTES, _OTHER_BYTES = 2, 12


def answer_bytes(max_tokens: int) -> int:
    """Returns how long the line of an answer can be, without its row's fields."""
    return _REST_BYTES + _TOKEN_BYTES * max_tokens


def line_bytes(row: TaskRow, answer: int) -> int:
    """Returns how long the line of a row can be, given the `answer_bytes`."""
    size = answer + _text_bytes(row.echo or "")
    for field in row.fields.values():
        size += _text_bytes(str(field))
    return size


def _text_bytes(text: str) -> int:
    return len(text) * (_ASCII_BYTES if text.isascii() else _OTHER_BYTES)


class DiskReservation:
    """Reserves disk space by a file without a name, which the system removes with the process.

    Where the system can't reserve space, everything is granted.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._held = self._wanted = 0
        self._file: Optional[int] = None
        if hasattr(os, "posix_fallocate"):
            # The folder may be read-only, with the results file in it.
            with suppress(OSError):
                self._file = folder.open(name, os.O_EXCL)
                folder.unlink(name)

    def reserve(self, size: int, written: int) -> bool:
        """Reserves `size` bytes more beside `written` bytes of results; returns whether there was room."""
        wanted = self._wanted + size
        if written + wanted > _longest_file():
            return False
        needs_more = self._file is not None and wanted > self._held
        if needs_more and not (self._grow(wanted + _SLACK) or self._grow(wanted)):
            return False
        self._wanted = wanted
        return True

    def _grow(self, size: int) -> bool:
        assert self._file is not None
        try:
            os.posix_fallocate(self._file, 0, size)
        except OSError as error:
            if error.errno in DISK_FULL:
                self._shrink(self._held)
                return False
            # The file system can't reserve space.
            self.close()
        self._held = size
        return True

    def release(self, size: int) -> None:
        """Gives back `size` bytes."""
        self._wanted -= size
        if self._held - self._wanted > _MAX_SLACK:
            self._shrink(self._wanted + _SLACK)

    def release_slack(self) -> None:
        """Gives back all that is not needed."""
        self._shrink(self._wanted)

    def _shrink(self, size: int) -> None:
        if self._file is not None:
            os.ftruncate(self._file, size)
            self._held = min(self._held, size)

    def close(self) -> None:
        """Gives back everything."""
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _longest_file() -> float:
    if resource is None:
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit
