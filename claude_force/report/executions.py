"""The executions of a report, each with its place in time, and groups of them with their figures. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Optional, Sequence

from ..ledger.entry import Entry, ExecutionRow, to_entry
from ..ledger.metrics import UNKNOWN, Metrics, compute_metrics

ANSWERED, FAILED, KEPT = "answered", "failed", "kept"


@dataclass(frozen=True)
class Execution:
    """A line of the ledger with all fields, and as it was read; began and ended are in Unix seconds."""

    entry: Entry
    row: ExecutionRow
    began: float
    ended: float

    @property
    def outcome(self) -> str:
        """ANSWERED, FAILED, or KEPT where no request of its own was needed."""
        if not self.entry.success:
            return FAILED
        return KEPT if self.entry.cached or self.entry.shared else ANSWERED


@dataclass(frozen=True)
class Group:
    """Some executions and what they add up to."""

    name: str
    executions: Sequence[Execution]
    figures: Metrics


def executions_of(rows: Iterable[ExecutionRow]) -> List[Execution]:
    """By the moment of their begin."""
    return sorted(map(_execution, rows), key=lambda execution: execution.began)


def _execution(row: ExecutionRow) -> Execution:
    # Damaged clocks write moments before 1970; a calendar that shows them would show nothing else.
    entry, ended = to_entry(row), max(0.0, row["ended"])
    return Execution(entry, row, max(0.0, ended - entry.execution_time_ms / 1000), ended)


def group_of(name: str, executions: Sequence[Execution]) -> Group:
    """With the figures that the ledger gives for these."""
    return Group(name, executions, compute_metrics([execution.row for execution in executions]))


def grouped(executions: Iterable[Execution], key: Callable[[Execution], Optional[str]]) -> List[Group]:
    """By `key`, the dearest first."""
    found: Dict[str, List[Execution]] = {}
    for execution in executions:
        found.setdefault(key(execution) or UNKNOWN, []).append(execution)
    groups = [group_of(name, members) for name, members in found.items()]
    return sorted(groups, key=lambda one: (-one.figures.cost, -one.figures.executions, one.name))
