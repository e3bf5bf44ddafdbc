"""The output of a bulk run: one JSON object in each line, appended as rows end, safe against kills.

It is a write-ahead log of its own run: what stands in it whole is done and paid for.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple, Type

from ..errors import CancelledCallError, ClosedError, InputError
from ..locks import try_lock
from ..types import AgentResult
from .rows import Row

# Names that a result has in the output, so that a row's own fields can't have them.
_RESULT_FIELDS = (
    "index",
    "key",
    "success",
    "output",
    "error",
    "error_type",
    "model",
    "stop_reason",
    "input_tokens",
    "output_tokens",
    "cost",
    "cached",
    "attempts",
    "duration",
    "request_id",
)
# Errors of calls that were ended from outside. They are written down for what they may have cost.
_BROKEN_OFF = (ClosedError.__name__, CancelledCallError.__name__)
_OPENING = b'{"index": '


@dataclass(frozen=True)
class Done:
    """What the output says of a row: whose result it is, whether it succeeded, what it cost in USD, whether
    it is an answer whose price is not known, and whether it was broken off: that is no result of it."""

    key: str
    success: bool
    cost: float
    unpriced: bool = False
    broken_off: bool = False


class Output:
    """One run's file. Opened by one process at a time; `done` holds what it had when it was opened."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where another run has it, or it holds anything but results; OSError."""
        self.path = path
        self._lock = _open_locked(path)
        self._file: Any = None
        try:
            self.done, good = _load(path)
            # A kill in the middle of a line leaves a part of it.
            if path.stat().st_size > good:
                os.truncate(path, good)
        except BaseException:
            os.close(self._lock)
            raise

    def keep(self, kept: Mapping[int, Done]) -> None:
        """Takes out all rows but these. The old file stays until the new one is whole. Raises OSError."""
        if len(kept) == len(self.done):
            return
        # A link goes on to point to the file that it points to.
        path = Path(os.path.realpath(self.path))
        fresh = path.with_name(path.name + ".tmp")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        # Locked before it has the name, so that no other run finds it free.
        _take(descriptor, self.path)
        shutil.copymode(path, fresh)
        with os.fdopen(os.dup(descriptor), "wb") as lines:
            for _, line, found in _lines(path):
                if found["index"] in kept:
                    lines.write(line)
            lines.flush()
            os.fsync(lines.fileno())
        fresh.replace(path)
        os.close(self._lock)
        self._lock, self.done = descriptor, dict(kept)

    def write(self, row: Row, key: str, result: AgentResult, before: float = 0.0) -> None:
        """Appends a row's result; when it returns, a kill of this process does not lose it. Raises OSError,
        and then nothing was appended. `before`: USD that earlier runs of the row have cost.

        Not in a thread: some microseconds, in which no request is sent whose answer a kill could lose.
        """
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
        line = json.dumps(_fields(row, key, result, before), default=str).encode() + b"\n"
        whole = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            # Another row may find room: behind a part of a line it would be lost.
            self._file.truncate(whole)
            raise

    def close(self) -> None:
        """On the disk before the lock is let go."""
        try:
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
        finally:
            self._file = None
            os.close(self._lock)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def check_fields(row: Row) -> None:
    """Raises InputError where a field of the row's would be taken for one of the result's."""
    taken = sorted(set(row.fields) & set(_RESULT_FIELDS))
    if taken:
        raise InputError(
            f"Row {row.index + 1} has a field {taken[0]!r}, which each result has itself; rename it."
        )


def _fields(row: Row, key: str, result: AgentResult, before: float) -> Dict[str, Any]:
    usage = result.usage
    echo = {} if row.echo is None else {"task": row.echo}
    return {
        "index": row.index,
        "key": key,
        "agent": row.agent,
        **echo,
        **row.fields,
        "success": result.success,
        "output": result.output,
        "error": "; ".join(result.errors) if result.errors else None,
        "error_type": type(result.error).__name__ if result.error else None,
        "model": result.model,
        "stop_reason": result.stop_reason,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "cost": (result.cost or 0.0) + before if before else result.cost,
        "cached": result.cached or result.shared,
        "attempts": result.attempts,
        "duration": round(result.duration, 3),
        "request_id": result.request_id,
    }


def _load(path: Path) -> Tuple[Dict[int, Done], int]:
    """What stands in the file whole, and where that ends, in bytes."""
    done: Dict[int, Done] = {}
    good = 0
    for end, _, found in _lines(path):
        done[found["index"]] = _done(found)
        good = end
    return done, good


def _done(found: Dict[str, Any]) -> Done:
    success, cost = found["success"], found["cost"]
    broken_off = found.get("error_type") in _BROKEN_OFF
    return Done(found["key"], success, cost or 0.0, bool(success) and cost is None, broken_off)


def _lines(path: Path) -> Iterator[Tuple[int, bytes, Dict[str, Any]]]:
    """Each whole line with its end and what it says. Raises InputError for a file that is no output."""
    position = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
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


def _is_torn(line: bytes) -> bool:
    """Whether a last line is the beginning of a result, or zeros, which a power cut leaves of one."""
    return line.startswith(_OPENING) or _OPENING.startswith(line) or not line.strip(b"\0")


def _result(line: bytes) -> Optional[Dict[str, Any]]:
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _is_whole(found) else None


def _is_whole(found: Dict[str, Any]) -> bool:
    index, cost = found.get("index"), found.get("cost", "")
    return (
        (type(index) is int and index >= 0)
        and isinstance(found.get("key"), str)
        and isinstance(found.get("success"), bool)
        and (cost is None or (type(cost) in (int, float) and 0 <= cost < float("inf")))
    )


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(descriptor, path)
            # Another run may have put a new file in its place in the meantime.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                _expect_file(path)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _expect_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a file: results that can't be read again can't be resumed.")


def _take(descriptor: int, path: Path) -> None:
    if not try_lock(descriptor):
        raise InputError(f"Another run is writing to {path}. Wait for its end, or name another file.")
