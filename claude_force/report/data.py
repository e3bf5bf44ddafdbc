"""The executions for the page's script: columns, deltas, names by number, deflated. Pure.

The page holds JSON, deflated (zlib) and in base64. Each column is one list, in the order of begin. Times are
tenths of a millisecond, the begin of each call counted from the one before; money is in hundred-millionths of
a USD, which no price for a million tokens with two digits after the point needs more than; texts that recur
are numbers into a list of names, whose first is null. Attempts lie one after another in columns of their own:
`begin` counts from the end of the attempt before it, for the first one from the call's begin.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Dict, List, Optional, Sequence

from ..ledger.entry import AttemptTuple
from .executions import Execution

TICKS_PER_MS = 10
UNITS_PER_USD = 10**8
_SUCCESS, _CACHED, _SHARED = 1, 2, 4

_NAMED: Dict[str, str] = {
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
}
# Null where the line does not tell it.
_TIMES: Dict[str, str] = {"wall": "execution_time_ms", "wait": "wait_ms", "service": "service_time_ms"}


def packed(executions: Sequence[Execution]) -> str:
    """What the script unpacks: base64 of the deflated JSON."""
    text = json.dumps(table(executions), separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("ascii"))).decode("ascii")


def table(executions: Sequence[Execution]) -> Dict[str, Any]:
    """The columns, ready for JSON."""
    names = {column: _Names() for column in _NAMED}
    columns: Dict[str, List[Any]] = {
        column: [names[column].number(getattr(execution.entry, field)) for execution in executions]
        for column, field in _NAMED.items()
    }
    columns.update({column: _field(executions, field) for column, field in _PLAIN.items()})
    columns.update({column: _times(executions, field) for column, field in _TIMES.items()})
    columns["begin"] = _deltas(executions)
    columns["flags"] = [_flags(execution) for execution in executions]
    columns["cost"] = [_money(execution.entry.estimated_cost) for execution in executions]
    columns["saved"] = [_money(execution.entry.saved_cost) for execution in executions]
    columns["promptSaved"] = [_money(execution.entry.prompt_cache_saving) for execution in executions]
    columns["trips"] = [len(execution.entry.timeline) for execution in executions]
    trips = _trips(executions, names["error"])
    return {
        "from": executions[0].began * 1000 if executions else 0,
        "names": {column: known.texts for column, known in names.items()},
        "columns": columns,
        "trips": trips,
    }


class _Names:
    """Numbers for texts, in the order of their first use."""

    def __init__(self) -> None:
        self.texts: List[Any] = [None]
        self._numbers: Dict[Any, int] = {None: 0}

    def number(self, text: Any) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]


def _field(executions: Sequence[Execution], field: str) -> List[Any]:
    return [getattr(execution.entry, field) for execution in executions]


def _times(executions: Sequence[Execution], field: str) -> List[Optional[int]]:
    told = (execution.row.get(field) for execution in executions)
    return [None if ms is None else _ticks(ms) for ms in told]


def _ticks(ms: float) -> int:
    return round(ms * TICKS_PER_MS)


def _money(usd: Optional[float]) -> Optional[int]:
    return None if usd is None else round(usd * UNITS_PER_USD)


def _flags(execution: Execution) -> int:
    entry = execution.entry
    return _SUCCESS * entry.success + _CACHED * entry.cached + _SHARED * entry.shared


def _deltas(executions: Sequence[Execution]) -> List[int]:
    """Each counts from the sum of those before it, so that nothing is lost to rounding."""
    places = [_ticks((execution.began - executions[0].began) * 1000) for execution in executions]
    return [place - before for place, before in zip(places, [0, *places])]


def _trips(executions: Sequence[Execution], errors: _Names) -> Dict[str, List[int]]:
    columns: Dict[str, List[int]] = {"begin": [], "took": [], "window": [], "error": []}
    for execution in executions:
        before = 0
        for trip in execution.entry.timeline:
            before = _add_trip(columns, trip, before, errors)
    return columns


def _add_trip(columns: Dict[str, List[int]], trip: AttemptTuple, before: int, errors: _Names) -> int:
    began_ms, ended_ms, window, error = trip
    began, ended = _ticks(began_ms), _ticks(ended_ms)
    columns["begin"].append(began - before)
    columns["took"].append(ended - began)
    columns["window"].append(window)
    columns["error"].append(errors.number(error))
    return ended
