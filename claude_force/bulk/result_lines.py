"""The lines of an output: one JSON object for each result, and how they are read again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Collection, Dict, Iterator, Mapping, Optional, Tuple

from ..costs import cost_or_bound, is_unpriced
from ..errors import CancelledCallError, ClosedError, InputError
from ..types import AgentResult
from .task_file import TaskRow

# Errors of calls that were ended from outside. They are written down for what they may have cost.
_BROKEN_OFF = (ClosedError.__name__, CancelledCallError.__name__)
_OPENING = b'{"index": '
# Bytes. A file that somebody else has put there may be a line without end.
_BEGINNING, _LONGEST_LINE = 2**16, 2**27

# USD that earlier runs of a row have cost, and at most what they cost where that is not known.
EarlierCost = Tuple[float, float]


@dataclass(frozen=True)
class SavedRow:
    """What the output says of a row.

    Attributes:
        key: whose result it is.
        cost: USD that it is known to have cost.
        unpriced: its cost is not known; `cost_at_most` is then the most that it can be, 0 where nobody knows.
        broken_off: the call was ended from outside, so this is no result of the row.
    """

    key: str
    success: bool
    cost: float
    unpriced: bool = False
    broken_off: bool = False
    cost_at_most: float = 0.0
    truncated: bool = False
    refused: bool = False
    empty: bool = False


def format_line(row: TaskRow, key: str, result: AgentResult, before: EarlierCost = (0.0, 0.0)) -> bytes:
    """A row's result as the output has it, with its line end."""
    return json.dumps(_fields(row, key, result, before), default=str).encode() + b"\n"


def _fields(row: TaskRow, key: str, result: AgentResult, before: EarlierCost) -> Dict[str, Any]:
    usage = result.usage
    cost, at_most = _costs(result, before)
    echo = {} if row.echo is None else {"task": row.echo}
    return {
        "index": row.index,
        "key": key,
        "agent": row.agent,
        **echo,
        **row.fields,
        "success": result.success,
        "output": result.output,
        "error": _error(result),
        "error_type": type(result.error).__name__ if result.error else None,
        "model": result.model,
        "stop_reason": result.stop_reason,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "cost": cost,
        "cost_usd": cost,
        "cached": result.cached or result.shared,
        "attempts": result.attempts,
        "duration": round(result.duration, 3),
        "duration_seconds": round(result.duration, 3),
        "request_id": result.request_id,
        "truncated": result.truncated,
        "refused": result.refused,
        "empty": result.empty,
        "cost_at_most": at_most,
        "cost_at_most_usd": at_most,
    }


def _costs(result: AgentResult, before: EarlierCost) -> Tuple[Optional[float], Optional[float]]:
    """USD that the row cost with its earlier runs, and at most; None where that is not known."""
    known, doubtful = before
    is_unknown = is_unpriced(result.success, result.cost, result.cost_at_most)
    if not (is_unknown or doubtful):
        cost = (result.cost or 0.0) + known if known else result.cost
        return cost, cost or 0.0
    if is_unknown and result.cost_at_most is None:
        return None, None
    return None, cost_or_bound(result.cost, result.cost_at_most) + known + doubtful


def _error(result: AgentResult) -> Optional[str]:
    """In the words of the command, whose file this is."""
    if result.error is not None:
        return result.error.for_shell()
    return "; ".join(result.errors) if result.errors else None


def format_cost_line(found: Dict[str, Any]) -> bytes:
    """The line of a call that was broken off: no result, and what it has cost."""
    note = {"success": False, "output": "", "error": "it is run again", "error_type": _BROKEN_OFF[-1]}
    return json.dumps({**found, **note}).encode() + b"\n"


def to_saved_row(found: Dict[str, Any]) -> SavedRow:
    success, cost, most = found["success"], found["cost"], found.get("cost_at_most", 0.0)
    # Older outputs have no such field, or one of the row's own.
    at_most = most if type(most) in (int, float) and 0 <= most < float("inf") else 0.0
    return SavedRow(
        found["key"],
        success,
        cost or 0.0,
        is_unpriced(success, cost, most),
        found.get("error_type") in _BROKEN_OFF,
        at_most if cost is None else 0.0,
        *(found.get(name) is True for name in ("truncated", "refused", "empty")),
    )


def complete_lines(lines: IO[bytes], path: Path) -> Iterator[Tuple[int, bytes, Dict[str, Any]]]:
    """Each whole line with its end and what it says. Raises InputError for a file that is no output."""
    position = 0
    for number, line in enumerate(_bounded(lines), start=1):
        found = _result(line)
        if found is None:
            if lines.read(1) or not _is_torn(line):
                raise InputError(
                    f"{path}, line {number} is not a result of a run. It was left as it is: name another "
                    "file for the output."
                )
            return
        position += len(line)
        yield position, line, found


def _bounded(lines: IO[bytes]) -> Iterator[bytes]:
    """Each line; of one that is too long, or begins as no result does, no more than its beginning."""
    line = lines.readline(_BEGINNING)
    while line:
        if line.startswith(_OPENING) and not line.endswith(b"\n"):
            line += lines.readline(_LONGEST_LINE)
        yield line
        line = lines.readline(_BEGINNING)


def _is_torn(line: bytes) -> bool:
    """Whether a last line is the beginning of a result, or zeros, which a power cut leaves of one."""
    if not line.strip(b"\0") or _OPENING.startswith(line):
        return True
    # What is whole and yet no result is somebody else's.
    return line.startswith(_OPENING) and (_object(line) is None or _result(line + b"\n") is not None)


def _result(line: bytes) -> Optional[Dict[str, Any]]:
    found = _object(line) if line.endswith(b"\n") else None
    return found if found is not None and _is_whole(found) else None


def _object(line: bytes) -> Optional[Dict[str, Any]]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_whole(found: Dict[str, Any]) -> bool:
    index, cost = found.get("index"), found.get("cost", "")
    return (
        (type(index) is int and index >= 0)
        and isinstance(found.get("key"), str)
        and isinstance(found.get("success"), bool)
        and (cost is None or (type(cost) in (int, float) and 0 <= cost < float("inf")))
    )


STDIN, STDOUT = "standard input", "standard output"


@contextmanager
def spool(source: BinaryIO, suffix: str = ".jsonl") -> Iterator[Path]:
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
        self.done: Dict[int, SavedRow] = {}
        self._descriptor = descriptor

    def keep(self, kept: Mapping[int, SavedRow], again: Collection[int] = ()) -> None:
        """Does nothing: there are no earlier results."""

    def hold(self, size: int) -> bool:
        """True: a pipe has no room to be held."""
        return True

    def give_back(self, size: int) -> None:
        """Does nothing."""

    def expect_there(self) -> None:
        """Does nothing: a stream can't be replaced."""

    def write(self, row: TaskRow, key: str, result: AgentResult, before: EarlierCost = (0.0, 0.0)) -> None:
        """Writes a row's result. Raises OSError, also where the reader is gone."""
        line = format_line(row, key, result, before)
        while line:
            line = line[os.write(self._descriptor, line) :]
