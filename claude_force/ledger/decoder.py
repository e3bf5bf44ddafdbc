"""What the lines of a ledger hold: which of them are executions, those of older formats among them. Pure."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from operator import itemgetter
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

from .entry import NAMES, Entry
from .time_range import unix_of

# An execution as it was read, with the fields that its line has, and `ended`: Unix time in seconds.
ExecutionRow = Dict[str, Any]

_NONE = type(None)
_TEXT, _NUMBER = (str,), (int, float)
_FITS: Dict[str, Tuple[type, ...]] = {
    "timestamp": _TEXT,
    "agent_name": _TEXT,
    "task_hash": (str, _NONE),
    "success": (bool,),
    "execution_time_ms": _NUMBER,
    "model": (str, _NONE),
    "input_tokens": (int,),
    "output_tokens": (int,),
    "total_tokens": (int,),
    "estimated_cost": (*_NUMBER, _NONE),
    "error_type": (str, _NONE),
    "workflow_name": (str, _NONE),
    "workflow_position": (int, _NONE),
    "run": (str, _NONE),
    "cached": (bool,),
    "shared": (bool,),
    "attempts": (int,),
    "cache_read_tokens": (int,),
    "cache_write_tokens": (int,),
    "stop_reason": (str, _NONE),
    "request_id": (str, _NONE),
    "status": (int, _NONE),
    "wait_ms": _NUMBER,
    "service_time_ms": _NUMBER,
    "saved_cost": (*_NUMBER, _NONE),
    "prompt_cache_saving": (*_NUMBER, _NONE),
    "timeline": (list,),
    "truncated": (bool,),
    "refused": (bool,),
    "empty": (bool,),
    "cost_at_most": (*_NUMBER, _NONE),
}
_REQUIRED = {"timestamp", "agent_name"}
# The only number that may be below 0.
_SIGNED = "prompt_cache_saving"
_TRIPS = {(began, ended, int, error) for began in _NUMBER for ended in _NUMBER for error in (str, type(None))}
# No time, count or price is larger.
_MOST = 1e15
# The moments that a calendar can show, with a second to spare at its end.
_FIRST_MOMENT, _LAST_MOMENT = -62_135_596_800.0, 253_402_300_798.0


def read_lines(lines: Sequence[bytes]) -> Tuple[List[ExecutionRow], int]:
    """The executions among `lines`, in their order, and how many others there were, blank ones apart."""
    found, skipped = _objects(lines)
    rows = [row for row in found if _is_execution(row)]
    return rows, skipped + len(found) - len(rows)


def entry_from(row: ExecutionRow) -> Entry:
    """With the defaults of what its line does not have."""
    known = {name: row[name] for name in NAMES if name in row}
    known["timeline"] = tuple(map(tuple, row.get("timeline", ())))
    return Entry(**known)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
# What stands between two lines when many are decoded at once, and in no line of any file.
_BETWEEN = os.urandom(8).hex()


def _objects(lines: Sequence[bytes]) -> Tuple[List[Any], int]:
    """Decoded together, which takes a third less time than one by one, unless one of them is damaged."""
    try:
        text = b"".join(lines).decode("utf-8").rstrip("\n")
        values = _decode("[" + text.replace("\n", f',"{_BETWEEN}",') + "]")
    except (ValueError, RecursionError):
        return _one_by_one(lines)
    # Where each second value is the mark, each other one is a line: none was cut by a bracket left open.
    if len(values) != 2 * len(lines) - 1 or values[1::2].count(_BETWEEN) != len(lines) - 1:
        return _one_by_one(lines)
    return values[::2], 0


def _one_by_one(lines: Sequence[bytes]) -> Tuple[List[Any], int]:
    found, skipped = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            found.append(_decode(line.decode("utf-8")))
        except (ValueError, RecursionError):
            skipped += 1
    return found, skipped


def _is_execution(row: Any) -> bool:
    """Whether it is one; then it gets its `ended`."""
    if type(row) is not dict:
        return False
    is_sound = _check_of(tuple(row), tuple(map(type, row.values())))
    if is_sound is None or not is_sound(row):
        return False
    try:
        row["ended"] = ended = unix_of(row["timestamp"])
    except (ValueError, OverflowError, OSError):
        return False
    began: float = ended - row.get("execution_time_ms", 0) / 1000
    return began >= _FIRST_MOMENT and ended <= _LAST_MOMENT


@lru_cache(maxsize=1024)
def _check_of(names: Tuple[str, ...], types: Tuple[type, ...]) -> Optional[Callable[[ExecutionRow], bool]]:
    """What checks the values of an object of these fields; None where their types are foreign.

    Nearly all lines have one of a few shapes, so that their types are compared once for each shape.
    """
    shape = {name: type_ for name, type_ in zip(names, types) if name in _FITS}
    if not shape.keys() >= _REQUIRED or any(type_ not in _FITS[name] for name, type_ in shape.items()):
        return None
    unsigned = [name for name, type_ in shape.items() if type_ in _NUMBER and name != _SIGNED]
    numbers = itemgetter(*unsigned) if len(unsigned) > 1 else lambda row: [row[name] for name in unsigned]
    has_timeline = "timeline" in shape

    def is_sound(row: ExecutionRow) -> bool:
        values = numbers(row)
        if values and (min(values) < 0 or max(values) > _MOST):
            return False
        if abs(row.get(_SIGNED) or 0) > _MOST:
            return False
        return not has_timeline or all(map(_is_trip, row["timeline"]))

    return is_sound


def _is_trip(trip: Any) -> bool:
    return type(trip) is list and tuple(map(type, trip)) in _TRIPS and -_MOST <= trip[0] <= trip[1] <= _MOST
