"""One execution in the ledger: its fields, and the decoder of ledger lines, older formats included. Pure."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

# One attempt: start and end in milliseconds since the execution's start, the concurrency limit at its start,
# and the type of its error.
AttemptTuple = Tuple[float, float, int, Optional[str]]
# One tool call: the turn that called it, its name, start and end in milliseconds since the execution's start,
# and whether it failed or was denied.
ToolTuple = Tuple[int, str, float, float, bool]


@dataclass(frozen=True)
class Entry:
    """One execution of an agent, without any text of the task or the answer.

    Times are in milliseconds, money in USD, and None means unknown.

    An agent with tools has several lines with the same `execution`. Each of its turns has one, as it ends,
    with its number in `turn`, its cost and its tokens. The whole has one more, as it ends, with the outcome,
    the number of `turns` and the whole time, but without cost and tokens. So each paid request is on one
    line, and sums over all lines are true. Metrics count the lines without `turn` as executions.

    Attributes:
        timestamp: when it ended, in ISO 8601 with the offset from UTC.
        task_hash: the first 16 hex characters of the task's SHA-256.
        execution_time_ms: from the call to its result: `service_time_ms` on the wire and `wait_ms` elsewhere.
        input_tokens: tokens of the prompt, including those read from and written to the prompt cache. A
            cached or shared answer used no tokens.
        run: the id of one orchestrator's lifetime, or of one command.
        timeline: its attempts in order, each as (start, end, concurrency limit, error type).
        truncated, refused, empty: as in `AgentResult`.
        cost_at_most: an upper bound of the cost where `estimated_cost` is None: 0 if nothing was billed, None
            if there is no known bound.
        tools: of the line of a whole, its tool calls.
        stopped_by: of that line, the bound that ended the agent's use of tools.

    Example:

        >>> entry = Entry("2026-11-25T08:30:00+00:00", "code-reviewer", execution_time_ms=1500.0)
        >>> entry.fields()["agent_name"]
        'code-reviewer'
    """

    timestamp: str
    agent_name: str
    task_hash: str = ""
    success: bool = True
    execution_time_ms: float = 0.0
    model: Optional[str] = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    estimated_cost: Optional[float] = None
    error_type: Optional[str] = None
    workflow_name: Optional[str] = None
    workflow_position: Optional[int] = None
    run: Optional[str] = None
    cached: bool = False
    shared: bool = False
    attempts: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    stop_reason: Optional[str] = None
    request_id: Optional[str] = None
    status: Optional[int] = None
    wait_ms: float = 0.0
    service_time_ms: float = 0.0
    saved_cost: Optional[float] = None
    prompt_cache_saving: Optional[float] = None
    timeline: Tuple[AttemptTuple, ...] = ()
    truncated: bool = False
    refused: bool = False
    empty: bool = False
    cost_at_most: Optional[float] = 0.0
    execution: Optional[str] = None
    turn: Optional[int] = None
    turns: int = 0
    tools: Tuple[ToolTuple, ...] = ()
    stopped_by: Optional[str] = None

    def fields(self) -> Dict[str, Any]:
        """Returns all fields as values that `json.dumps` accepts."""
        return dict(vars(self))


FIELD_NAMES = tuple(field.name for field in fields(Entry))

# The decoded JSON object of a line, with only the fields that the line has, and `ended`: Unix seconds.
ExecutionRow = Dict[str, Any]

_NUMBER, _NONE = (int, float), type(None)
_TYPES_OF: Dict[Any, Tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": _NUMBER,
    "Optional[str]": (str, _NONE),
    "Optional[int]": (int, _NONE),
    "Optional[float]": (*_NUMBER, _NONE),
}
# The JSON types of each field.
_TYPES = {field.name: _TYPES_OF.get(field.type, (list,)) for field in fields(Entry)}
_TYPES["task_hash"] = (str, _NONE)
_REQUIRED = {"timestamp", "agent_name"}
# The only number that may be negative.
_SIGNED = "prompt_cache_saving"
_TOOL_TYPES = {(int, str, start, end, bool) for start in _NUMBER for end in _NUMBER}
_ATTEMPT_TYPES = {(start, end, int, error) for start in _NUMBER for end in _NUMBER for error in (str, _NONE)}
# An upper bound for times, counts and prices.
_MAX_NUMBER = 1e15
# The range of `datetime`, with a second to spare at its end.
_MIN_UNIX, _MAX_UNIX = -62_135_596_800.0, 253_402_300_798.0


def decode_lines(lines: Sequence[bytes]) -> Tuple[List[ExecutionRow], int]:
    """Returns the executions among `lines` in order, and the number of other lines that are not blank."""
    objects, skipped = _decode_objects(lines)
    rows = [row for row in objects if _is_execution(row)]
    return rows, skipped + len(objects) - len(rows)


def to_entry(row: ExecutionRow) -> Entry:
    """Returns `row` as an entry, with the default of each field that its line leaves out."""
    known = {name: row[name] for name in FIELD_NAMES if name in row}
    known["timeline"] = tuple(map(tuple, row.get("timeline", ())))
    known["tools"] = tuple(map(tuple, row.get("tools", ())))
    return Entry(**known)


def parse_iso(text: str) -> float:
    """Returns Unix seconds; a time without an offset is local.

    Raises ValueError, OverflowError or OSError.
    """
    if text[-1:] in ("Z", "z"):
        # Python before 3.11 doesn't parse a "Z".
        text = text[:-1] + "+00:00"
    return datetime.fromisoformat(text).timestamp()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
# Separates lines that are decoded together. It is random, so that no file can contain it.
_SEPARATOR = os.urandom(8).hex()


def _decode_objects(lines: Sequence[bytes]) -> Tuple[List[Any], int]:
    """Decodes all lines at once, which takes a third less time, or one by one if any of them is damaged."""
    try:
        text = b"".join(lines).decode("utf-8").rstrip("\n")
        values = _decode("[" + text.replace("\n", f',"{_SEPARATOR}",') + "]")
    except (ValueError, RecursionError):
        return _decode_one_by_one(lines)
    # Each second value must be the separator: otherwise an open bracket or a comma has merged or split lines.
    if len(values) != 2 * len(lines) - 1 or values[1::2].count(_SEPARATOR) != len(lines) - 1:
        return _decode_one_by_one(lines)
    return values[::2], 0


def _decode_one_by_one(lines: Sequence[bytes]) -> Tuple[List[Any], int]:
    objects, skipped = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            objects.append(_decode(line.decode("utf-8")))
        except (ValueError, RecursionError):
            skipped += 1
    return objects, skipped


def _is_execution(row: Any) -> bool:
    """Validates a decoded line; adds `ended` to a valid one."""
    if type(row) is not dict:
        return False
    is_valid = _validator(tuple(row), tuple(map(type, row.values())))
    if is_valid is None or not is_valid(row):
        return False
    try:
        row["ended"] = ended = parse_iso(row["timestamp"])
    except (ValueError, OverflowError, OSError):
        return False
    began: float = ended - row.get("execution_time_ms", 0) / 1000
    return began >= _MIN_UNIX and ended <= _MAX_UNIX


@lru_cache(maxsize=1024)
def _validator(names: Tuple[str, ...], types: Tuple[type, ...]) -> Optional[Callable[[ExecutionRow], bool]]:
    """Returns a check of the values of objects with these fields; None if a type is wrong.

    Nearly all lines have one of a few shapes: the cache compares the types once per shape.
    """
    shape = {name: type_ for name, type_ in zip(names, types) if name in _TYPES}
    if not shape.keys() >= _REQUIRED or any(type_ not in _TYPES[name] for name, type_ in shape.items()):
        return None
    unsigned = [name for name, type_ in shape.items() if type_ in _NUMBER and name != _SIGNED]
    numbers = itemgetter(*unsigned) if len(unsigned) > 1 else lambda row: [row[name] for name in unsigned]
    has_timeline, has_tools = "timeline" in shape, "tools" in shape

    def is_valid(row: ExecutionRow) -> bool:
        values = numbers(row)
        if values and (min(values) < 0 or max(values) > _MAX_NUMBER):
            return False
        if abs(row.get(_SIGNED) or 0) > _MAX_NUMBER:
            return False
        if has_tools and not all(map(_is_tool_call, row["tools"])):
            return False
        return not has_timeline or all(map(_is_attempt, row["timeline"]))

    return is_valid


def _is_attempt(value: Any) -> bool:
    return (
        type(value) is list
        and tuple(map(type, value)) in _ATTEMPT_TYPES
        and -_MAX_NUMBER <= value[0] <= value[1] <= _MAX_NUMBER
    )


def _is_tool_call(value: Any) -> bool:
    return (
        type(value) is list
        and tuple(map(type, value)) in _TOOL_TYPES
        and 0 <= value[0] <= _MAX_NUMBER
        and -_MAX_NUMBER <= value[2] <= value[3] <= _MAX_NUMBER
    )
