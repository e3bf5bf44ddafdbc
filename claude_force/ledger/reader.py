"""Reads the files of a ledger in bounded memory, also while other processes append to them and rotate."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Iterator, List, Optional

from ..errors import InvalidOptionError
from ..formatting import naming
from ..storage.output_paths import open_package_folder
from ..storage.private_files import Folder
from .entry import Entry, ExecutionRow, decode_lines, parse_iso, to_entry
from .metrics import Summary
from .rotating_log import ACTIVE_FILE, rotated_files

_BLOCK_BYTES = 1 << 20
# A line is written soon after its execution ended, but the clocks of several machines differ.
_CLOCK_SKEW_SECONDS = 3600.0
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_UNIT_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def parse_since(now: float, hours: Optional[float] = None, since: Optional[str] = None) -> Optional[float]:
    """Returns the start of the last `hours`, or of `since` as `parse_time` reads it; None for neither.

    `now` and the result are in Unix seconds. Raises InvalidOptionError.
    """
    if hours is not None and not 0 < hours < float("inf"):
        raise InvalidOptionError(naming(f"{{}} is {hours!r}; give a number above 0.", "hours"))
    if hours is not None and since is not None:
        raise InvalidOptionError(naming("{} and {} both set the start: leave one out.", "hours", "since"))
    if hours is not None:
        return now - hours * 3600
    return parse_time(since, now) if since else None


def parse_time(text: str, now: float) -> float:
    """Returns the Unix seconds of a date, a time or an age.

    A date is "2026-11-25", a time "2026-11-25T08:30+01:00" (local without an offset), and an age "45m", "3h",
    "2d" or "1w" before `now`. Raises InvalidOptionError.
    """
    age = _AGE.fullmatch(text.strip())
    if age:
        return now - float(age.group(1)) * _UNIT_SECONDS[age.group(2)]
    try:
        return parse_iso(text.strip())
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidOptionError(
            f"Invalid time {text!r}: use a date (2026-11-25), a time (2026-11-25T08:30) or an age "
            "(45m, 3h, 2d, 1w)."
        ) from error


def read_summary(folder: Path, since: Optional[float] = None) -> Summary:
    """Returns the metrics of the executions in `folder`. Arguments as for `LedgerReader`. Raises OSError."""
    reader, summary = LedgerReader(folder, since), Summary()
    for rows in reader.batches():
        summary.add(rows)
    summary.skipped = reader.skipped
    return summary


class LedgerReader:
    """Reads the executions in `folder` that ended at `since`, in Unix seconds, or later; None for all.

    Attributes:
        skipped: the number of lines read so far that are torn, foreign or not JSON.
    """

    def __init__(self, folder: Path, since: Optional[float] = None) -> None:
        self._folder, self._since = folder, since
        self.skipped = 0

    def batches(self) -> Iterator[List[ExecutionRow]]:
        """Yields executions, roughly in the order in which they ended. Raises OSError."""
        for file in self._files():
            for lines in _blocks_of_lines(file):
                rows, skipped = decode_lines(lines)
                self.skipped += skipped
                if self._since is not None:
                    rows = [row for row in rows if row["ended"] >= self._since]
                if rows:
                    yield rows

    def entries(self) -> Iterator[Entry]:
        """Yields each execution as an entry. Raises OSError."""
        for rows in self.batches():
            yield from map(to_entry, rows)

    def _files(self) -> Iterator[BinaryIO]:
        """Yields open files, oldest first."""
        try:
            folder = open_package_folder(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        with folder:
            # Open the active file before listing the folder: if it is rotated in between, the list has it
            # too, and it is skipped there.
            active = _open(folder, ACTIVE_FILE)
            try:
                for rotated in rotated_files(self._folder):
                    file = _open(folder, rotated.path.name)
                    if file is None:
                        continue
                    with file:
                        if not _is_same_file(file, active) and self._may_match(file):
                            yield file
                if active is not None:
                    yield active
            finally:
                if active is not None:
                    active.close()

    def _may_match(self, file: BinaryIO) -> bool:
        """Whether the last write to a rotated file is not too old."""
        written = os.fstat(file.fileno()).st_mtime
        return self._since is None or written >= self._since - _CLOCK_SKEW_SECONDS


def _open(folder: Folder, name: str) -> Optional[BinaryIO]:
    try:
        return os.fdopen(folder.read(name), "rb")
    except FileNotFoundError:
        return None


def _is_same_file(file: BinaryIO, other: Optional[BinaryIO]) -> bool:
    return other is not None and os.path.sameopenfile(file.fileno(), other.fileno())


def _blocks_of_lines(file: BinaryIO) -> Iterator[List[bytes]]:
    """Yields lists of lines. The last line of a file may be incomplete because its writer is not done."""
    rest = b""
    while True:
        block = file.read(_BLOCK_BYTES)
        # Lines of the ledger are far shorter than a block: a file without newlines is foreign, and may be
        # endless.
        if not block or (rest and b"\n" not in block):
            break
        lines = BytesIO(rest + block).readlines()
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        if lines:
            yield lines
    if rest:
        yield [rest]
