"""Standard input as a file of tasks, and standard output as the place of the results."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Collection, Dict, Iterator, Mapping

from ..types import AgentResult
from .result_lines import Before, Done, line_of
from .task_file import Row

STDIN, STDOUT = "standard input", "standard output"


@contextmanager
def spooled(source: BinaryIO, suffix: str = ".jsonl") -> Iterator[Path]:
    """A private temporary file with everything that `source` holds, because tasks are read more than once.

    Raises OSError.
    """
    descriptor, name = tempfile.mkstemp(suffix, "claude-force-tasks-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file)
        yield Path(name)
    finally:
        Path(name).unlink()


class StdoutResults:
    """Results as JSON lines on a stream. Nothing is read back, so a run that writes here can't be resumed."""

    def __init__(self, descriptor: int) -> None:
        self.path = Path(STDOUT)
        self.done: Dict[int, Done] = {}
        self._descriptor = descriptor

    def keep(self, kept: Mapping[int, Done], again: Collection[int] = ()) -> None:
        """Does nothing: there are no earlier results."""

    def hold(self, size: int) -> bool:
        """True: a pipe has no room to be held."""
        return True

    def give_back(self, size: int) -> None:
        """Does nothing."""

    def expect_there(self) -> None:
        """Does nothing: a stream can't be replaced."""

    def write(self, row: Row, key: str, result: AgentResult, before: Before = (0.0, 0.0)) -> None:
        """Writes a row's result. Raises OSError, also where the reader is gone."""
        line = line_of(row, key, result, before)
        while line:
            line = line[os.write(self._descriptor, line) :]
