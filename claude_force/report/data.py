"""Packs executions for the page's script: columns of small integers, deflated. Pure.

The page holds JSON, deflated by zlib and encoded in base64. Each column is one list, ordered by the start of
executions. Times are in tenths of a millisecond, and each `begin` counts from the one before it. Money is in
units of 1e-8 USD, which is exact for prices with two decimals per million tokens. Recurring texts are indexes
into a list of names that starts with null. Attempts are consecutive in separate columns: their `begin`
counts from the end of the attempt before, or from the start of their execution. Tool calls are consecutive in
the same way; they may overlap, so each `begin` counts from the start of its execution.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Dict, List, Optional, Sequence

from .executions import Execution

TICKS_PER_MS = 10
UNITS_PER_USD = 10**8
_SUCCESS, _CACHED, _SHARED = 1, 2, 4

_INDEXED: Dict[str, str] = {
    "agent": "agent_name",
    "model": "model",
    "error": "error_type",
    "workflow": "workflow_name",
    "position": "workflow_position",
    "stop": "stop_reason",
    "status": "status",
    "run": "run",
}
_PLAIN: Dict[str, str] = {
    "attempts": "attempts",
    "tokensIn": "input_tokens",
    "tokensOut": "output_tokens",
    "cacheRead": "cache_read_tokens",
    "cacheWrite": "cache_write_tokens",
    "request": "request_id",
    "task": "task_hash",
    "turns": "turns",
}
# Null where the line doesn't have it.
_TIMES: Dict[str, str] = {"wall": "execution_time_ms", "wait": "wait_ms", "service": "service_time_ms"}
_MONEY: Dict[str, str] = {
    "cost": "estimated_cost",
    "saved": "saved_cost",
    "promptSaved": "prompt_cache_saving",
}


def pack(executions: Sequence[Execution]) -> str:
    """Returns base64 of the deflated JSON, which `unpack` of data.js decodes."""
    text = json.dumps(table(executions), separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("ascii"))).decode("ascii")


def table(executions: Sequence[Execution]) -> Dict[str, Any]:
    """Returns the columns as values for JSON."""
    entries = [execution.entry for execution in executions]
    names = {column: _Names() for column in _INDEXED}
    columns: Dict[str, List[Any]] = {
        **{
            column: [names[column].index(getattr(entry, field)) for entry in entries]
            for column, field in _INDEXED.items()
        },
        **{column: [getattr(entry, field) for entry in entries] for column, field in _PLAIN.items()},
        **{column: _times(executions, field) for column, field in _TIMES.items()},
        **{column: [_units(getattr(entry, field)) for entry in entries] for column, field in _MONEY.items()},
        "begin": _deltas(executions),
        "flags": [
            _SUCCESS * entry.success + _CACHED * entry.cached + _SHARED * entry.shared for entry in entries
        ],
        "timeline": [len(entry.timeline) for entry in entries],
        "tools": [len(entry.tools) for entry in entries],
    }
    tool_names = _Names()
    tools = _tools(executions, tool_names)
    timeline = _timeline(executions, names["error"])
    return {
        "from": executions[0].began * 1000 if executions else 0,
        "names": {**{column: known.texts for column, known in names.items()}, "tool": tool_names.texts},
        "columns": columns,
        "timeline": timeline,
        "tools": tools,
    }


class _Names:
    """Gives texts an index in the order of their first use."""

    def __init__(self) -> None:
        self.texts: List[Any] = [None]
        self._indexes: Dict[Any, int] = {None: 0}

    def index(self, text: Any) -> int:
        if text not in self._indexes:
            self._indexes[text] = len(self.texts)
            self.texts.append(text)
        return self._indexes[text]


def _times(executions: Sequence[Execution], field: str) -> List[Optional[int]]:
    found = (execution.row.get(field) for execution in executions)
    return [None if ms is None else _ticks(ms) for ms in found]


def _ticks(ms: float) -> int:
    return round(ms * TICKS_PER_MS)


def _units(usd: Optional[float]) -> Optional[int]:
    return None if usd is None else round(usd * UNITS_PER_USD)


def _deltas(executions: Sequence[Execution]) -> List[int]:
    """Returns differences of rounded times, so that rounding errors don't add up."""
    ticks = [_ticks((execution.began - executions[0].began) * 1000) for execution in executions]
    return [tick - before for tick, before in zip(ticks, [0, *ticks])]


def _timeline(executions: Sequence[Execution], errors: _Names) -> Dict[str, List[int]]:
    columns: Dict[str, List[int]] = {"begin": [], "took": [], "limit": [], "error": []}
    for execution in executions:
        before = 0
        for start_ms, end_ms, limit, error in execution.entry.timeline:
            start, end = _ticks(start_ms), _ticks(end_ms)
            columns["begin"].append(start - before)
            columns["took"].append(end - start)
            columns["limit"].append(limit)
            columns["error"].append(errors.index(error))
            before = end
    return columns


def _tools(executions: Sequence[Execution], names: _Names) -> Dict[str, List[int]]:
    columns: Dict[str, List[int]] = {"begin": [], "took": [], "turn": [], "name": [], "failed": []}
    for execution in executions:
        for turn, name, start_ms, end_ms, is_failed in execution.entry.tools:
            columns["begin"].append(_ticks(start_ms))
            columns["took"].append(_ticks(end_ms - start_ms))
            columns["turn"].append(turn)
            columns["name"].append(names.index(name))
            columns["failed"].append(int(is_failed))
    return columns
