"""What ends or refuses a bulk run, in words, and how much room a row needs."""

from __future__ import annotations

from typing import Counter, Dict

from ..errors import ClaudeForceError, InputError
from ..spelled import count
from .output import OutputGoneError, Results
from .rows import Row

# Bytes of a line: of a token of the answer, and of all that is neither the answer nor the row's own; of a
# character, which JSON may have to escape.
_TOKEN_BYTES, _REST_BYTES = 8, 2048
_ASCII_BYTES, _OTHER_BYTES = 2, 12


class Problems:
    """The rows that can't be read, by kind."""

    def __init__(self) -> None:
        self._first: Dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        if row.problem is not None:
            self._first.setdefault(row.kind, row.problem)
            self._counts[row.kind] += 1

    def expect_fewer_than(self, rows: int) -> None:
        """Raises InputError where no row can be run: then the file has another form, and none has failed."""
        if not rows or sum(self._counts.values()) < rows:
            return
        kinds = ", ".join(f"{count(many, 'row')} with {kind}" for kind, many in self._counts.most_common())
        first = next(iter(self._first.values()))
        raise InputError(f"No row can be run: {kinds}. The first: {first.rstrip('.')}.")


def changed(output: Results, how: str) -> InputError:
    return InputError(
        f"{output.path} is the output of other tasks or options: {how}. Name another file for the output, "
        "or start over with --no-resume; answers that are still the same come from the cache."
    )


def gone(error: OutputGoneError) -> ClaudeForceError:
    return ClaudeForceError(
        f"{error.filename} was removed or replaced while the run went on. All results of the run are kept in "
        f"{error.saved}."
    )


def no_room(output: Results, answer: int) -> ClaudeForceError:
    return ClaudeForceError(
        f"{output.path} can't be written: there is no room for an answer of {answer // 1024:,} KiB. "
        "No further row was sent. Make room on the disk, or name a file on another one."
    )


def answer_bytes(max_tokens: int) -> int:
    """How long the line of an answer can be, without what is its row's own."""
    return _REST_BYTES + _TOKEN_BYTES * max_tokens


def line_bytes(row: Row, answer: int) -> int:
    """How long the line of a row can be."""
    parts = [row.echo or "", *map(str, row.fields.values())]
    own = sum(len(part) * (_ASCII_BYTES if part.isascii() else _OTHER_BYTES) for part in parts)
    return answer + own


def not_written(output: Results, error: OSError) -> ClaudeForceError:
    return ClaudeForceError(
        f"{output.path} can't be written: {error.strerror}. What stands in it is whole; answers that "
        "came after are in the cache, if it is on."
    )
