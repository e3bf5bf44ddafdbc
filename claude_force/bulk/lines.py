"""The lines of a text file, each bounded in length: a file of another kind may have one line without end."""

from __future__ import annotations

from typing import Iterator, TextIO

from ..errors import InputError


class BoundedLines:
    """Iterates over the lines of `file`. Raises InputError for a line of over `longest` characters."""

    def __init__(self, file: TextIO, longest: int) -> None:
        self._file, self._longest = file, longest
        self.name = file.name

    def __iter__(self) -> Iterator[str]:
        number, most = 0, self._longest + 1
        while True:
            line = self._file.readline(most)
            if not line:
                return
            number += 1
            if len(line) == most:
                raise InputError(
                    f"{self.name}, line {number} is over {self._longest:,} characters long: "
                    "this is no file of tasks. Put each task on a line."
                )
            yield line

    def read(self) -> str:
        """The whole text."""
        return self._file.read()
