"""A ledger's summary; the files of a large one are shared out among several processes.

They are plain subprocesses, not those of `multiprocessing`: these would run the caller's own program again.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional

from .reading import Reading, ended_before
from .rotating_log import older_files
from .summary import Summary
from .time_range import EVERYTHING, TimeRange

if TYPE_CHECKING:
    import subprocess

logger = logging.getLogger(__name__)

# Bytes of full files for each further process: less is read before one has started.
WORTH_A_PROCESS = 100_000_000
_MOST_PROCESSES = 8

# Isolated (-I) until it has this process's own path: else it would import from the working directory first.
_PROGRAM = (
    "import json, sys; job = json.loads(sys.argv[1]); sys.path[:] = job.pop('path'); "
    "from claude_force.ledger.parallel_reader import work; work(**job)"
)


def summary_of(folder: Path, window: TimeRange = EVERYTHING) -> Summary:
    """The figures of the executions in `folder` that ended in `window`. Raises OSError."""
    shares = _shares(folder, window)
    helpers = [_Helper(folder, window, names) for names in shares]
    try:
        # Full files are never renamed again, and those that follow are not among the shares.
        taken = {name for names in shares for name in names}
        summary = _read(folder, window, lambda name: name not in taken)
        for helper in helpers:
            summary.merge(helper.result())
        return summary
    finally:
        for helper in helpers:
            helper.end()


def work(folder: str, since: Optional[float], until: Optional[float], names: List[str]) -> None:
    """In a helper's process."""
    summary = _read(Path(folder), TimeRange(since, until), lambda name: name in names)
    pickle.dump(summary, sys.stdout.buffer)


def _read(folder: Path, window: TimeRange, wanted: Callable[[str], bool]) -> Summary:
    reading, summary = Reading(folder, window, wanted), Summary()
    for rows in reading.blocks():
        summary.add(rows)
    summary.skipped = reading.skipped
    return summary


def _shares(folder: Path, window: TimeRange) -> List[List[str]]:
    """Names of full files for each helper, such that as much is left for the process that asks."""
    sizes = {one.path.name: _bytes_to_read(one.path, window) for one in older_files(folder)}
    names = [name for name, size in sizes.items() if size]
    worth = sum(sizes.values()) / WORTH_A_PROCESS
    helpers = int(min(worth, (os.cpu_count() or 1) - 1, _MOST_PROCESSES - 1))
    length = len(names) // (helpers + 1)
    # Neighbours together, because runs go on from one file to the next.
    return [names[begin * length : (begin + 1) * length] for begin in range(helpers)] if length else []


def _bytes_to_read(path: Path, window: TimeRange) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return 0 if ended_before(found, window) else found.st_size


class _Helper:
    """A process that reads some of the files."""

    def __init__(self, folder: Path, window: TimeRange, names: List[str]) -> None:
        # Not above: few ledgers are so large.
        import subprocess

        self._read_here = partial(_read, folder, window, lambda name: name in names)
        self._process: Optional[subprocess.Popen[bytes]] = None
        job = {"path": sys.path, "folder": str(folder.absolute()), "names": names, **vars(window)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _PROGRAM, json.dumps(job)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            logger.info("the ledger is read in one process: %s", error)

    def result(self) -> Summary:
        """Reads the files here where the process could not."""
        answer, _ = self._process.communicate() if self._process is not None else (b"", None)
        if self._process is None or self._process.returncode != 0:
            return self._read_here()
        summary: Summary = pickle.loads(answer)
        return summary

    def end(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()
