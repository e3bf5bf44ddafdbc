"""The files of a ledger, read in bounded memory, also while others write and rename them."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, List, Optional

from ..storage.places import open_folder
from ..storage.private_files import Folder
from .decoder import ExecutionRow, entry_from, read_lines
from .entry import Entry
from .rotating_log import LIVE, older_files
from .time_range import EVERYTHING, TimeRange

_BLOCK_BYTES = 1 << 20
# A line is written soon after its execution ended; clocks of several machines agree less well.
_SLACK_SECONDS = 3600.0


class Reading:
    """The executions in `folder` that ended in `window`, of the files whose names are `wanted`.

    Attributes:
        skipped: lines read so far that are none: torn, foreign, or not JSON.
    """

    def __init__(
        self,
        folder: Path,
        window: TimeRange = EVERYTHING,
        wanted: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self._folder, self._window, self._wanted = folder, window, wanted
        self.skipped = 0

    def blocks(self) -> Iterator[List[ExecutionRow]]:
        """In about the order of their ends. Raises OSError for a file that is there and can't be read."""
        for file in self._files():
            for lines in _blocks(file):
                rows, skipped = read_lines(lines)
                self.skipped += skipped
                if not self._window.is_everything:
                    rows = [row for row in rows if self._window.holds(row["ended"])]
                if rows:
                    yield rows

    def entries(self) -> Iterator[Entry]:
        """As `blocks`, one by one."""
        for rows in self.blocks():
            yield from map(entry_from, rows)

    def _files(self) -> Iterator[BinaryIO]:
        """Oldest first."""
        # Opened before the folder is listed: if it is renamed in between, it is found there a second time.
        try:
            folder = open_folder(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        with folder:
            live = _opened(folder, LIVE) if self._wanted(LIVE) else None
            try:
                for older in older_files(self._folder):
                    file = _opened(folder, older.path.name) if self._wanted(older.path.name) else None
                    if file is None:
                        continue
                    with file:
                        if not _same(file, live) and self._may_hold(file):
                            yield file
                if live is not None:
                    yield live
            finally:
                if live is not None:
                    live.close()

    def _may_hold(self, file: BinaryIO) -> bool:
        if ended_before(os.fstat(file.fileno()), self._window):
            return False
        until = self._window.until
        if until is None:
            return True
        first, _ = read_lines([file.readline(_BLOCK_BYTES)])
        file.seek(0)
        return not first or first[0]["ended"] < until + _SLACK_SECONDS


def ended_before(file: os.stat_result, window: TimeRange) -> bool:
    """Whether all that was written to it is older than what is asked for."""
    return window.since is not None and file.st_mtime < window.since - _SLACK_SECONDS


def _opened(folder: Folder, name: str) -> Optional[BinaryIO]:
    try:
        return os.fdopen(folder.read(name), "rb")
    except FileNotFoundError:
        return None


def _same(file: BinaryIO, other: Optional[BinaryIO]) -> bool:
    return other is not None and os.path.sameopenfile(file.fileno(), other.fileno())


def _blocks(file: BinaryIO) -> Iterator[List[bytes]]:
    """Lists of lines. The last line of a file may be incomplete: its other half may be on its way."""
    rest = b""
    while True:
        block = file.read(_BLOCK_BYTES)
        # A line of the ledger is far shorter than a block: a file without line ends is somebody else's, and
        # may be endless.
        if not block or (rest and b"\n" not in block):
            break
        lines = BytesIO(rest + block).readlines()
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        if lines:
            yield lines
    if rest:
        yield [rest]
