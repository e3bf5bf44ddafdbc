"""The output of a bulk run: one JSON object in each line, appended as rows end, safe against kills.

It is a write-ahead log of its own run: what stands in it whole is done and paid for.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import (
    Any,
    Collection,
    Dict,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Protocol,
    Set,
    Tuple,
    Type,
)

from ..errors import InputError
from ..storage.locks import try_lock
from ..storage.output_paths import folder_of, granted_path
from ..storage.private_files import PUBLIC_FILE
from ..types import AgentResult
from .disk_space import DISK_FULL, DiskReservation
from .result_lines import EarlierCost, SavedRow, complete_lines, format_cost_line, format_line, to_saved_row
from .task_file import RESULT_FIELDS, TaskRow

logger = logging.getLogger(__name__)

# Bytes that are read at once, from the end, to find the end of a line.
_BLOCK = 64 * 1024
# A path costs as much to look up as a line to write: no more often than this.
_SECONDS_BETWEEN_LOOKS = 0.1


class Results(Protocol):
    """Where a run writes its results, and which of them it had before."""

    path: Path
    done: Dict[int, SavedRow]

    def keep(self, kept: Mapping[int, SavedRow], again: Collection[int] = ()) -> None:
        """Drops all rows but these."""

    def write(self, row: TaskRow, key: str, result: AgentResult, before: EarlierCost = (0.0, 0.0)) -> None:
        """Adds a row's result. Raises OSError."""

    def hold(self, size: int) -> bool:
        """Whether there is room for a result of `size` bytes, which is held until `give_back`."""

    def give_back(self, size: int) -> None:
        """The result that room was held for is written next, or never."""

    def expect_there(self) -> None:
        """Raises OutputDisturbedError where the results are not where, or not as, they were written."""


class OutputDisturbedError(OSError):
    """Another program removed, replaced or changed the output while the run went on.

    Attributes:
        saved: the file that has the results when the run has ended; None where the output itself has them.
        is_resumable: whether another run can read the output.
    """

    def __init__(self, path: Path, saved: Optional[Path] = None, is_resumable: bool = False) -> None:
        what = "changed" if saved is None else "removed or replaced"
        super().__init__(errno.ESTALE, f"it was {what} while the run went on", str(path))
        self.saved, self.is_resumable = saved, is_resumable


class ResultsFile:
    """One run's file. Opened by one process at a time; `done` holds what it had when it was opened."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where another run has it, or it holds anything but results; UnsafePathError where
        a project has put a link there; OSError."""
        self.path = path
        place = granted_path(path)
        self._folder, self._name = folder_of(place), place.name
        try:
            self._lock = self._open_locked()
        except BaseException:
            self._folder.close()
            raise
        self._file: Any = None
        self._room: Optional[DiskReservation] = None
        self._looked = float("-inf")
        # Rows that are run again; a new line of one makes its old line worth nothing.
        self._again: Set[int] = set()
        try:
            self.done, good, lines = self._load()
            self._has_old_lines = lines > len(self.done)
            # A kill in the middle of a line leaves a part of it.
            if os.fstat(self._lock).st_size > good:
                os.ftruncate(self._lock, good)
            # How long the file is, unless another program changes it; what one did to it is kept.
            self._size = good
            self._changed: Optional[OutputDisturbedError] = None
        except BaseException:
            self._let_go()
            raise

    def _open_locked(self) -> int:
        while True:
            descriptor = self._folder.open(self._name, mode=PUBLIC_FILE)
            try:
                _take(descriptor, self.path)
                # Another run may have put a new file in its place in the meantime.
                if os.path.samestat(os.fstat(descriptor), self._folder.stat(self._name)):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _let_go(self) -> None:
        os.close(self._lock)
        self._folder.close()

    def _load(self) -> Tuple[Dict[int, SavedRow], int, int]:
        """What stands in the file whole, where that ends, in bytes, and in how many lines it stands."""
        done: Dict[int, SavedRow] = {}
        good = lines = 0
        for end, _, found in self._lines():
            done[found["index"]] = to_saved_row(found)
            good, lines = end, lines + 1
        return done, good, lines

    def _newest_lines(self) -> Iterator[Tuple[bytes, Dict[str, Any]]]:
        """Of the lines that a row has, the last."""
        last = {found["index"]: end for end, _, found in self._lines()}
        for end, line, found in self._lines():
            if last[found["index"]] == end:
                yield line, found

    def _lines(self) -> Iterator[Tuple[int, bytes, Dict[str, Any]]]:
        with os.fdopen(self._folder.read(self._name), "rb") as lines:
            yield from complete_lines(lines, self.path)

    def keep(self, kept: Mapping[int, SavedRow], again: Collection[int] = ()) -> None:
        """Takes out all rows but these. Of those that are run `again` the cost stays, for the next run to
        know however this one ends. The old file stays until the new one is whole. Raises OSError."""
        if len(kept) != len(self.done) or self._has_old_lines:
            self._replace(self._kept_lines(kept, again))
            self.done, self._again, self._has_old_lines = dict(kept), set(again), False
        # Now, while there is a descriptor for it.
        self._opened()
        self._room = DiskReservation(self._folder, f"{self._name}.room-{os.getpid()}")

    def _kept_lines(self, kept: Collection[int], again: Collection[int]) -> Iterator[bytes]:
        for line, found in self._newest_lines():
            if found["index"] in kept:
                yield line
            elif found["index"] in again:
                yield format_cost_line(found)

    def _replace(self, lines: Iterable[bytes]) -> None:
        fresh = self._name + ".tmp"
        descriptor = self._folder.open(fresh, os.O_TRUNC, PUBLIC_FILE)
        try:
            # Locked before it has the name, so that no other run finds it free.
            _take(descriptor, self.path)
            _copy_mode(self._lock, descriptor)
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            self._folder.replace(fresh, self._name)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                self._folder.unlink(fresh)
            raise
        os.close(self._lock)
        self._lock, self._size = descriptor, size

    def write(self, row: TaskRow, key: str, result: AgentResult, before: EarlierCost = (0.0, 0.0)) -> None:
        """Appends a row's result; when it returns, a kill of this process does not lose it. Raises OSError,
        and then nothing was appended. `before`: USD that earlier runs of the row have cost.

        Not in a thread: some microseconds, in which no request is sent whose answer a kill could lose.
        """
        line = format_line(row, key, result, before)
        try:
            self._append(line)
        except OSError as error:
            if self._room is None or error.errno not in DISK_FULL:
                raise
            self._room.let_go()
            self._append(line)
        self._has_old_lines |= row.index in self._again
        # What was done to the file itself is seen at each line.
        if self._changed is not None or time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self.expect_there()

    def _opened(self) -> Any:
        if self._file is None:
            self._file = os.fdopen(self._folder.open(self._name, os.O_APPEND, PUBLIC_FILE), "ab", buffering=0)
        return self._file

    def _append(self, line: bytes) -> None:
        file = self._opened()
        whole = os.fstat(file.fileno()).st_size
        if whole != self._size:
            whole = self._ended_line(file, whole)
        self._size = whole + len(line)
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            # Another row may find room: behind a part of a line it would be lost.
            file.truncate(whole)
            self._size = whole
            raise

    def _ended_line(self, file: Any, size: int) -> int:
        """Ends the last line of a file that another program has changed, so that the next result does not
        become a part of it. Returns the new size."""
        self._note_change(size)
        ends = self._last_line_end(size)
        if ends == size:
            return size
        if size < self._size:
            file.truncate(ends)
            return ends
        file.write(b"\n")
        return size + 1

    def _note_change(self, size: int) -> None:
        cut = size < self._size
        is_resumable = cut if self._changed is None else cut and self._changed.is_resumable
        self._changed = OutputDisturbedError(self.path, is_resumable=is_resumable)

    def _last_line_end(self, size: int) -> int:
        while size:
            start = max(0, size - _BLOCK)
            os.lseek(self._lock, start, os.SEEK_SET)
            found = os.read(self._lock, size - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
        return 0

    def hold(self, size: int) -> bool:
        """Whether there is room for a result of `size` bytes, which is held until `give_back`."""
        return self._room is None or self._room.hold(size, self._size)

    def give_back(self, size: int) -> None:
        """The result that room was held for is written next, or never."""
        if self._room is not None:
            self._room.give_back(size)

    def expect_there(self) -> None:
        """Raises OutputDisturbedError where the path names another file by now, or none, or where another
        program has written to the file or cut it."""
        self._looked = time.monotonic()
        if not self._is_there():
            raise OutputDisturbedError(self.path, self.path.with_name(self._saved_name()))
        size = os.fstat(self._lock).st_size
        if size != self._size:
            self._note_change(size)
        if self._changed is not None:
            raise self._changed

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock), self._folder.stat(self._name))
        except FileNotFoundError:
            return False

    def _saved_name(self) -> str:
        return f"{self._name}.saved-{os.getpid()}"

    def _save(self) -> None:
        """Writes the results of a file that has no name any more into one that has."""
        copy = os.fdopen(self._folder.open(self._saved_name(), os.O_TRUNC, PUBLIC_FILE), "wb")
        with copy, os.fdopen(os.dup(self._lock), "rb") as old:
            old.seek(0)
            shutil.copyfileobj(old, copy)

    def close(self) -> None:
        """One line for each row, and on the disk, before the lock is let go."""
        try:
            if self._room is not None:
                self._room.close()
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
            if not self._is_there():
                self._save_what_there_is()
            elif self._has_old_lines:
                self._take_out_old_lines()
        finally:
            self._file = None
            self._let_go()

    def _save_what_there_is(self) -> None:
        # In a folder that is gone as well, nothing can be saved; the run has said so as its error.
        if os.fstat(self._lock).st_size:
            try:
                self._save()
            except OSError as error:
                logger.error("the results of %s can't be saved: %s", self.path, error)

    def _take_out_old_lines(self) -> None:
        try:
            self._replace(line for line, _ in self._newest_lines())
        except OSError as error:
            # The next run knows which line of a row is the newer one, and tries again.
            logger.warning("%s has older lines of rows that were run again: %s", self.path, error)

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def check_fields(row: TaskRow) -> None:
    """Raises InputError where a field of the row's would be taken for one of the result's."""
    taken = sorted(set(row.fields) & set(RESULT_FIELDS))
    if taken:
        raise InputError(
            f"Row {row.index + 1} has a field {taken[0]!r}, which each result has itself; rename it."
        )


def _copy_mode(old: int, new: int) -> None:
    if hasattr(os, "fchmod"):
        os.fchmod(new, stat.S_IMODE(os.fstat(old).st_mode))


def _take(descriptor: int, path: Path) -> None:
    if not try_lock(descriptor):
        raise InputError(f"Another run is writing to {path}. Wait for its end, or name another file.")
