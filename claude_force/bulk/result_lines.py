"""The lines of a results file: one JSON object per result. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Iterator, Optional, Tuple

from ..costs import cost_or_bound, is_unpriced
from ..errors import CancelledCallError, ClosedError, InputError
from ..types import AgentResult, tool_fields
from .task_file import TaskRow

# Errors of calls that were ended from outside. Their lines record what the calls may have cost.
_INTERRUPTED = (ClosedError.__name__, CancelledCallError.__name__)
_OPENING = b'{"index": '
# In bytes. A file of another program may be one endless line.
_PREFIX, _LONGEST_LINE = 2**16, 2**27

# USD that earlier runs of a row are known to have cost, and the most that calls of unknown cost may have.
EarlierCost = Tuple[float, float]


@dataclass(frozen=True)
class SavedRow:
    """What a results file says of a row; a resumed run finds it by the row's index.

    Attributes:
        key: `TaskRow.key` of the row, which shows that row and options have not changed since.
        cost: USD that it is known to have cost.
        unpriced: the cost is unknown; `cost_at_most` is then its bound in USD, 0 if it has no bound.
        interrupted: the call was ended from outside, so this is not a result.
    """

    key: str
    success: bool
    cost: float
    unpriced: bool = False
    interrupted: bool = False
    cost_at_most: float = 0.0
    truncated: bool = False
    refused: bool = False
    empty: bool = False


def format_line(row: TaskRow, key: str, result: AgentResult, earlier: EarlierCost = (0.0, 0.0)) -> bytes:
    """Returns the line of a row's result, with its line end."""
    usage, error = result.usage, result.error
    cost, at_most = _costs(result, earlier)
    fields = {
        "index": row.index,
        "key": key,
        "agent": row.agent,
        **({} if row.echo is None else {"task": row.echo}),
        **row.fields,
        "success": result.success,
        "output": result.output,
        # In the wording of the command.
        "error": error.for_shell() if error is not None else "; ".join(result.errors or ()) or None,
        "error_type": type(error).__name__ if error else None,
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
        **tool_fields(result),
    }
    return json.dumps(fields, default=str).encode() + b"\n"


def _costs(result: AgentResult, earlier: EarlierCost) -> Tuple[Optional[float], Optional[float]]:
    """Returns the USD that the row cost with its earlier runs, and at most; None where unknown."""
    known, doubtful = earlier
    is_unknown = is_unpriced(result.success, result.cost, result.cost_at_most)
    if not (is_unknown or doubtful):
        cost = (result.cost or 0.0) + known if known else result.cost
        return cost, cost or 0.0
    if is_unknown and result.cost_at_most is None:
        return None, None
    return None, cost_or_bound(result.cost, result.cost_at_most) + known + doubtful


def format_cost_line(fields: Dict[str, Any]) -> bytes:
    """Returns the line of an interrupted call, which has the cost of a line and no result."""
    note = {"success": False, "output": "", "error": "it is run again", "error_type": _INTERRUPTED[-1]}
    return json.dumps({**fields, **note}).encode() + b"\n"


def to_saved_row(fields: Dict[str, Any]) -> SavedRow:
    """Returns what a line says of its row."""
    success, cost, most = fields["success"], fields["cost"], fields.get("cost_at_most", 0.0)
    # Files of older versions have no such field, or a field of the row under that name.
    at_most = most if type(most) in (int, float) and 0 <= most < float("inf") else 0.0
    return SavedRow(
        fields["key"],
        success,
        cost or 0.0,
        is_unpriced(success, cost, most),
        fields.get("error_type") in _INTERRUPTED,
        at_most if cost is None else 0.0,
        *(fields.get(name) is True for name in ("truncated", "refused", "empty")),
    )


def complete_lines(lines: IO[bytes], path: Path) -> Iterator[Tuple[int, bytes, Dict[str, Any]]]:
    """Yields the end, in bytes, the text and the fields of each complete line.

    The last line may be torn, as a kill leaves it. Raises InputError where `path` is not a results file.
    """
    position = 0
    for number, line in enumerate(_bounded(lines), start=1):
        fields = _result(line)
        if fields is None:
            if lines.read(1) or not _is_torn(line):
                raise InputError(
                    f"{path}, line {number} is not a result of a run. It was left as it is: name another "
                    "file for the output."
                )
            return
        position += len(line)
        yield position, line, fields


def _bounded(lines: IO[bytes]) -> Iterator[bytes]:
    """Yields each line, but only its beginning if it is too long or does not begin as a result does."""
    line = lines.readline(_PREFIX)
    while line:
        if line.startswith(_OPENING) and not line.endswith(b"\n"):
            line += lines.readline(_LONGEST_LINE)
        yield line
        line = lines.readline(_PREFIX)


def _is_torn(line: bytes) -> bool:
    """Returns whether a last line is the beginning of a result, or the zeros that a power cut leaves."""
    if not line.strip(b"\0") or _OPENING.startswith(line):
        return True
    # A complete object that is not a result belongs to another program.
    return line.startswith(_OPENING) and (_object(line) is None or _result(line + b"\n") is not None)


def _object(line: bytes) -> Optional[Dict[str, Any]]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _result(line: bytes) -> Optional[Dict[str, Any]]:
    """Returns the fields of a complete line, None where it is not a result."""
    found = _object(line) if line.endswith(b"\n") else None
    if found is None:
        return None
    index, cost = found.get("index"), found.get("cost", "")
    is_result = (
        (type(index) is int and index >= 0)
        and isinstance(found.get("key"), str)
        and isinstance(found.get("success"), bool)
        and (cost is None or (type(cost) in (int, float) and 0 <= cost < float("inf")))
    )
    return found if is_result else None
