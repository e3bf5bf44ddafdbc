"""The results file of a bulk run: one JSON object per line, appended as rows end, safe against kills.

The file is the write-ahead log of its run: a complete line is a row that is done and paid for.
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
from typing import Any, Collection, Dict, Iterable, Iterator, Mapping, Optional, Protocol, Set, Tuple

from ..errors import ClaudeForceError, InputError
from ..storage.locks import try_lock
from ..storage.output_paths import open_output_folder, output_path
from ..storage.private_files import PUBLIC_FILE
from ..types import AgentResult
from .disk_space import DISK_FULL, DiskReservation
from .result_lines import EarlierCost, SavedRow, complete_lines, format_cost_line, format_line, to_saved_row
from .task_file import TaskRow

logger = logging.getLogger(__name__)

STDOUT = "standard output"
# In bytes: how much is read at once, from the end, to find the end of a line.
_BLOCK = 64 * 1024
# To look up a path costs as much as to write a line: no more often than this.
_CHECK_SECONDS = 0.1


class OutputDisturbedError(OSError):
    """Another program removed, replaced or changed the results file while the run went on.

    Attributes:
        saved: the file that has the results after the run; None where the results file itself has them.
        is_resumable: whether another run can read the results file.
    """

    def __init__(self, path: Path, saved: Optional[Path] = None, is_resumable: bool = False) -> None:
        what = "changed" if saved is None else "removed or replaced"
        super().__init__(errno.ESTALE, f"it was {what} while the run went on", str(path))
        self.saved, self.is_resumable = saved, is_resumable

    def explain(self) -> ClaudeForceError:
        """Returns the error that ends the run, with what the user can do."""
        path = self.filename
        if self.saved is not None:
            return ClaudeForceError(
                f"{path} was removed or replaced while the run went on. All results of the run are kept in "
                f"{self.saved}: rename that file to {path}, and the same command goes on."
            )
        rest = (
            "Results that were cut off are missing from it; answers are in the cache, if it is on."
            if self.is_resumable
            else "It may lack results, and hold lines that are not results: remove these before another run. "
            "Answers are in the cache, if it is on."
        )
        return ClaudeForceError(f"{path} was changed by another program while the run went on. {rest}")


class Results(Protocol):
    """Where a run writes its results.

    Attributes:
        path: the file, or the name of the stream.
        saved: the rows that it holds, by index.
    """

    path: Path
    saved: Dict[int, SavedRow]

    def retain(self, saved: Mapping[int, SavedRow], rerun: Collection[int] = ()) -> None:
        """Removes all rows but `saved`; of the rows to `rerun` only the cost stays. Raises OSError."""

    def write(self, row: TaskRow, key: str, result: AgentResult, earlier: EarlierCost = (0.0, 0.0)) -> None:
        """Adds a row's result. Raises OSError, and then nothing was added."""

    def reserve(self, size: int) -> bool:
        """Reserves disk space for `size` bytes, until `release`; returns whether there is room."""

    def release(self, size: int) -> None:
        """Gives back reserved space: its result is written next, or never."""

    def check(self) -> None:
        """Raises OutputDisturbedError where another program moved or changed the results."""


class StdoutResults:
    """Writes results to a stream. They can't be read back, so the run can't be resumed."""

    def __init__(self, descriptor: int) -> None:
        self.path = Path(STDOUT)
        self.saved: Dict[int, SavedRow] = {}
        self._descriptor = descriptor

    def retain(self, saved: Mapping[int, SavedRow], rerun: Collection[int] = ()) -> None:
        """Does nothing: there are no earlier results."""

    def write(self, row: TaskRow, key: str, result: AgentResult, earlier: EarlierCost = (0.0, 0.0)) -> None:
        """Writes a row's result. Raises OSError, also where the reader is gone."""
        line = format_line(row, key, result, earlier)
        while line:
            line = line[os.write(self._descriptor, line) :]

    def reserve(self, size: int) -> bool:
        """Returns True: a stream needs no disk space."""
        return True

    def release(self, size: int) -> None:
        """Does nothing, as nothing was reserved."""

    def check(self) -> None:
        """Does nothing: no other program can change what was written."""


class ResultsFile:
    """The results file of one run, open in one process at a time.

    Example:
        with ResultsFile(Path("results.jsonl")) as output:
            await ResumableRun(TaskFile(Path("tasks.csv"), None), output).run(stream, on_event)
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises InputError where another run has it open or it holds anything but results, UnsafePathError
        where a project has put a link there, and OSError.
        """
        self.path = path
        self.saved: Dict[int, SavedRow] = {}
        place = output_path(path)
        self._folder, self._name = open_output_folder(place), place.name
        try:
            self._lock = self._open_locked()
        except BaseException:
            self._folder.close()
            raise
        self._file: Any = None
        self._space: Optional[DiskReservation] = None
        self._checked = float("-inf")
        # Rows that are run again; a new line of such a row replaces its old one.
        self._rerun: Set[int] = set()
        self._disturbance: Optional[OutputDisturbedError] = None
        try:
            end, lines = self._load()
            self._has_old_lines = lines > len(self.saved)
            # A kill within a write leaves a part of a line.
            if os.fstat(self._lock).st_size > end:
                os.ftruncate(self._lock, end)
            # The length of the file, unless another program changes it.
            self._size = end
        except BaseException:
            self._unlock()
            raise

    def _open_locked(self) -> int:
        while True:
            descriptor = self._folder.open(self._name, mode=PUBLIC_FILE)
            try:
                _lock(descriptor, self.path)
                # Another run may have put a new file in its place in the meantime.
                if os.path.samestat(os.fstat(descriptor), self._folder.stat(self._name)):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _unlock(self) -> None:
        os.close(self._lock)
        self._folder.close()

    def _load(self) -> Tuple[int, int]:
        """Reads the saved rows; returns where the last complete line ends, and the number of lines."""
        end = count = 0
        for position, _, fields in self._lines():
            self.saved[fields["index"]] = to_saved_row(fields)
            end, count = position, count + 1
        return end, count

    def _newest_lines(self) -> Iterator[Tuple[bytes, Dict[str, Any]]]:
        """Yields the last line of each row."""
        last = {fields["index"]: end for end, _, fields in self._lines()}
        for end, line, fields in self._lines():
            if last[fields["index"]] == end:
                yield line, fields

    def _lines(self) -> Iterator[Tuple[int, bytes, Dict[str, Any]]]:
        with os.fdopen(self._folder.read(self._name), "rb") as lines:
            yield from complete_lines(lines, self.path)

    def retain(self, saved: Mapping[int, SavedRow], rerun: Collection[int] = ()) -> None:
        """Removes all rows but `saved`; of the rows to `rerun` only the cost stays, for the next run to know.

        The old file stays until the new one is complete. Raises OSError.
        """
        if len(saved) != len(self.saved) or self._has_old_lines:
            self._replace(self._retained_lines(saved, rerun))
            self.saved, self._rerun, self._has_old_lines = dict(saved), set(rerun), False
        # Opened now, while there is a descriptor for it.
        self._append_file()
        self._space = DiskReservation(self._folder, f"{self._name}.room-{os.getpid()}")

    def _retained_lines(self, saved: Collection[int], rerun: Collection[int]) -> Iterator[bytes]:
        for line, fields in self._newest_lines():
            if fields["index"] in saved:
                yield line
            elif fields["index"] in rerun:
                yield format_cost_line(fields)

    def _replace(self, lines: Iterable[bytes]) -> None:
        fresh = self._name + ".tmp"
        descriptor = self._folder.open(fresh, os.O_TRUNC, PUBLIC_FILE)
        try:
            # Locked before it has the name, so that no other run finds it free.
            _lock(descriptor, self.path)
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, stat.S_IMODE(os.fstat(self._lock).st_mode))
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

    def write(self, row: TaskRow, key: str, result: AgentResult, earlier: EarlierCost = (0.0, 0.0)) -> None:
        """Appends a row's result; once it returns, a kill of this process does not lose it.

        Not in a thread: it takes microseconds, in which no request is sent whose answer a kill could lose.
        Raises OSError, and then nothing was appended, but OutputDisturbedError after it was.
        """
        line = format_line(row, key, result, earlier)
        try:
            self._append(line)
        except OSError as error:
            if self._space is None or error.errno not in DISK_FULL:
                raise
            self._space.release_slack()
            self._append(line)
        self._has_old_lines |= row.index in self._rerun
        # A change of the file itself is noticed at each line.
        if self._disturbance is not None or time.monotonic() - self._checked > _CHECK_SECONDS:
            self.check()

    def _append_file(self) -> Any:
        if self._file is None:
            self._file = os.fdopen(self._folder.open(self._name, os.O_APPEND, PUBLIC_FILE), "ab", buffering=0)
        return self._file

    def _append(self, line: bytes) -> None:
        file = self._append_file()
        end = os.fstat(file.fileno()).st_size
        if end != self._size:
            end = self._end_last_line(file, end)
        self._size = end + len(line)
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            # Another row may find room: behind a part of a line it would be lost.
            file.truncate(end)
            self._size = end
            raise

    def _end_last_line(self, file: Any, size: int) -> int:
        """Ends the last line of a file that another program changed, so that the next result is a line.

        Returns the new size.
        """
        self._record_change(size)
        end = self._last_line_end(size)
        if end == size:
            return size
        if size < self._size:
            file.truncate(end)
            return end
        file.write(b"\n")
        return size + 1

    def _record_change(self, size: int) -> None:
        is_cut = size < self._size
        is_resumable = is_cut and (self._disturbance is None or self._disturbance.is_resumable)
        self._disturbance = OutputDisturbedError(self.path, is_resumable=is_resumable)

    def _last_line_end(self, size: int) -> int:
        while size:
            start = max(0, size - _BLOCK)
            os.lseek(self._lock, start, os.SEEK_SET)
            found = os.read(self._lock, size - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
        return 0

    def reserve(self, size: int) -> bool:
        """Reserves disk space for `size` bytes, until `release`; returns whether there is room."""
        return self._space is None or self._space.reserve(size, self._size)

    def release(self, size: int) -> None:
        """Gives back reserved space: its result is written next, or never."""
        if self._space is not None:
            self._space.release(size)

    def check(self) -> None:
        """Raises OutputDisturbedError where the path names another file, or none, or another program has
        written to the file or cut it."""
        self._checked = time.monotonic()
        if not self._is_in_place():
            raise OutputDisturbedError(self.path, self.path.with_name(self._copy_name()))
        size = os.fstat(self._lock).st_size
        if size != self._size:
            self._record_change(size)
        if self._disturbance is not None:
            raise self._disturbance

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock), self._folder.stat(self._name))
        except FileNotFoundError:
            return False

    def _copy_name(self) -> str:
        return f"{self._name}.saved-{os.getpid()}"

    def close(self) -> None:
        """Leaves one line per row, synced to the disk, and unlocks the file."""
        try:
            if self._space is not None:
                self._space.close()
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
            if not self._is_in_place():
                self._copy_removed_file()
            elif self._has_old_lines:
                self._remove_old_lines()
        finally:
            self._file = None
            self._unlock()

    def _copy_removed_file(self) -> None:
        """Copies the results of a file that was removed or replaced, and so has no name, to a new file."""
        if not os.fstat(self._lock).st_size:
            return
        try:
            copy = os.fdopen(self._folder.open(self._copy_name(), os.O_TRUNC, PUBLIC_FILE), "wb")
            with copy, os.fdopen(os.dup(self._lock), "rb") as old:
                old.seek(0)
                shutil.copyfileobj(old, copy)
        except OSError as error:
            # Where the folder is gone too, nothing can be saved; the run's error has said so.
            logger.error("the results of %s can't be saved: %s", self.path, error)

    def _remove_old_lines(self) -> None:
        try:
            self._replace(line for line, _ in self._newest_lines())
        except OSError as error:
            # The next run knows which line of a row is the newer one, and tries again.
            logger.warning("%s has older lines of rows that were run again: %s", self.path, error)

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lock(descriptor: int, path: Path) -> None:
    if not try_lock(descriptor):
        raise InputError(f"Another run is writing to {path}. Wait for its end, or name another file.")
