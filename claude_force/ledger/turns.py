"""Joins the ledger's lines of an agent with tools into one execution. Pure."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Sequence

from .entry import ExecutionRow

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "attempts",
)
_SAVINGS = ("saved_cost", "prompt_cache_saving")


def join_turns(rows: Iterable[ExecutionRow]) -> List[ExecutionRow]:
    """Returns the executions among lines, each with the requests, tokens and costs of all its turns.

    A turn whose line of the whole is missing, as after a kill, stays a line of its own. The joined line has
    no `execution`, so it counts as any line of an agent without tools.
    """
    turns: Dict[str, List[ExecutionRow]] = {}
    others: List[ExecutionRow] = []
    for row in rows:
        if row.get("turn") is not None and row.get("execution"):
            turns.setdefault(row["execution"], []).append(row)
        else:
            others.append(row)
    if not turns:
        return others
    joined = [_join(row, turns.pop(row.get("execution") or "", ())) for row in others]
    return [*joined, *(row for left in turns.values() for row in left)]


def _join(whole: ExecutionRow, turns: Sequence[ExecutionRow]) -> ExecutionRow:
    if not turns:
        return whole
    found: Dict[str, Any] = {name: value for name, value in whole.items() if name != "execution"}
    found.update((name, sum(turn.get(name, 0) for turn in turns)) for name in _COUNTS)
    for name in _SAVINGS:
        known = [turn[name] for turn in turns if turn.get(name) is not None]
        if known:
            found[name] = sum(known)
    found["estimated_cost"] = _sum([turn.get("estimated_cost") for turn in turns])
    if found["estimated_cost"] is None:
        found["cost_at_most"] = _sum([_bound(turn) for turn in turns])
    began = _began(whole)
    found["timeline"] = [
        [start + (_began(turn) - began) * 1000, end + (_began(turn) - began) * 1000, limit, error]
        for turn in sorted(turns, key=lambda turn: turn["turn"])
        for start, end, limit, error in turn.get("timeline", ())
    ]
    return found


def _began(row: ExecutionRow) -> float:
    return float(row["ended"] - row.get("execution_time_ms", 0) / 1000)


def _bound(turn: ExecutionRow) -> Optional[float]:
    cost: Optional[float] = turn.get("estimated_cost")
    most: Optional[float] = turn.get("cost_at_most", 0.0)
    return most if cost is None else cost


def _sum(amounts: Sequence[Optional[float]]) -> Optional[float]:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
