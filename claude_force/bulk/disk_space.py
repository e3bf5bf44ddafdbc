"""Room on the disk, held for answers that are under way: what is paid for can be written.

It is a file without a name, which the system removes with the process. What was held is let go of as results
are written.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Optional

from ..storage.private_files import Folder

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Held beyond what is asked for, so that not every row is a call of the system, and most that is left held.
_SLACK, _MOST_SLACK = 256 * 1024, 2 * 1024 * 1024


class DiskReservation:
    """Holds room in `folder`. Where the system can't, everything is granted."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._held = self._wanted = 0
        self._file: Optional[int] = None
        if hasattr(os, "posix_fallocate"):
            with suppress(OSError):
                # Such as a folder that can't be written, in which the output is there already.
                self._file = folder.open(name, os.O_EXCL)
                folder.unlink(name)

    def hold(self, size: int, written: int) -> bool:
        """Whether there is room for `size` bytes more, which is held from now on; `written` is how long the
        output is."""
        wanted = self._wanted + size
        if written + wanted > _longest_file():
            return False
        if (
            self._file is not None
            and wanted > self._held
            and not (self._grown(wanted + _SLACK) or self._grown(wanted))
        ):
            return False
        self._wanted = wanted
        return True

    def _grown(self, size: int) -> bool:
        assert self._file is not None
        try:
            os.posix_fallocate(self._file, 0, size)
        except OSError as error:
            if error.errno in DISK_FULL:
                self._cut(self._held)
                return False
            # The file system can't hold room.
            self.close()
        self._held = size
        return True

    def give_back(self, size: int) -> None:
        """Of what is held, so much is not needed any more."""
        self._wanted -= size
        if self._held - self._wanted > _MOST_SLACK:
            self._cut(self._wanted + _SLACK)

    def let_go(self) -> None:
        """Leaves the disk what is not needed, to the last byte."""
        self._cut(self._wanted)

    def _cut(self, size: int) -> None:
        if self._file is not None:
            os.ftruncate(self._file, size)
            self._held = min(self._held, size)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _longest_file() -> float:
    if resource is None:
        return float("inf")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return float("inf") if most == resource.RLIM_INFINITY else most
