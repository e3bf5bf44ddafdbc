"""Reads the files of a ledger in bounded memory, also while other processes append to them and rotate."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Iterator, List, Optional

from ..advice import naming
from ..errors import InvalidOptionError
from ..storage.output_paths import open_folder
from ..storage.private_files import Folder
from .entry import Entry, ExecutionRow, decode_lines, parse_iso, to_entry
from .metrics import Summary
from .rotating_log import ACTIVE_FILE, rotated_files

_BLOCK_BYTES = 1 << 20
# A line is written soon after its execution ended, but the clocks of several machines differ.
_CLOCK_SKEW_SECONDS = 3600.0
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_UNIT_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class TimeRange:
    """A half-open range of Unix seconds, from `since` up to but excluding `until`; None means unbounded."""

    since: Optional[float] = None
    until: Optional[float] = None

    def __contains__(self, unix: float) -> bool:
        if self.since is not None and unix < self.since:
            return False
        return self.until is None or unix < self.until

    @property
    def is_unbounded(self) -> bool:
        """Whether it contains every moment."""
        return self.since is None and self.until is None


ALL_TIME = TimeRange()


def parse_time_range(
    now: float, hours: Optional[float] = None, since: Optional[str] = None, until: Optional[str] = None
) -> TimeRange:
    """Returns the last `hours`, or the range between two moments as `parse_moment` reads them.

    `now` is in Unix seconds. Raises InvalidOptionError.
    """
    if hours is not None and not 0 < hours < float("inf"):
        raise InvalidOptionError(naming(f"{{}} is {hours!r}; give a number above 0.", "hours"))
    if hours is not None and since is not None:
        raise InvalidOptionError(naming("{} and {} both set the start: leave one out.", "hours", "since"))
    start = now - hours * 3600 if hours is not None else parse_moment(since, now) if since else None
    end = parse_moment(until, now) if until else None
    if start is not None and end is not None and start >= end:
        raise InvalidOptionError(f"The range from {since or f'{hours:g} hours ago'} to {until} is empty.")
    return TimeRange(start, end)


def parse_moment(text: str, now: float) -> float:
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


def read_summary(folder: Path, time_range: TimeRange = ALL_TIME) -> Summary:
    """Returns the metrics of the executions in `folder` that ended in `time_range`. Raises OSError."""
    reader, summary = LedgerReader(folder, time_range), Summary()
    for rows in reader.batches():
        summary.add(rows)
    summary.skipped = reader.skipped
    return summary


class LedgerReader:
    """Reads the executions in `folder` that ended in `time_range`.

    Attributes:
        skipped: the number of lines read so far that are torn, foreign or not JSON.
    """

    def __init__(self, folder: Path, time_range: TimeRange = ALL_TIME) -> None:
        self._folder, self._range = folder, time_range
        self.skipped = 0

    def batches(self) -> Iterator[List[ExecutionRow]]:
        """Yields executions, roughly in the order in which they ended. Raises OSError."""
        for file in self._files():
            for lines in _blocks_of_lines(file):
                rows, skipped = decode_lines(lines)
                self.skipped += skipped
                if not self._range.is_unbounded:
                    rows = [row for row in rows if row["ended"] in self._range]
                if rows:
                    yield rows

    def entries(self) -> Iterator[Entry]:
        """Yields each execution as an entry. Raises OSError."""
        for rows in self.batches():
            yield from map(to_entry, rows)

    def _files(self) -> Iterator[BinaryIO]:
        """Yields open files, oldest first."""
        try:
            folder = open_folder(self._folder)
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
                        if not _is_same_file(file, active) and self._may_overlap(file):
                            yield file
                if active is not None:
                    yield active
            finally:
                if active is not None:
                    active.close()

    def _may_overlap(self, file: BinaryIO) -> bool:
        """Whether a rotated file may hold executions of the range, by its last write and its first line."""
        since, until = self._range.since, self._range.until
        if since is not None and os.fstat(file.fileno()).st_mtime < since - _CLOCK_SKEW_SECONDS:
            return False
        if until is None:
            return True
        first, _ = decode_lines([file.readline(_BLOCK_BYTES)])
        file.seek(0)
        return not first or first[0]["ended"] < until + _CLOCK_SKEW_SECONDS


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
