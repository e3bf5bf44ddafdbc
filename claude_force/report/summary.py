"""What the executions of a report add up to. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Optional, Sequence

from ..ledger.sketch import Distribution
from .executions import FAILED, Execution

PERCENTS = (50, 95, 99)


@dataclass(frozen=True)
class Sum:
    """Of some rows. Money in USD, sums of what is known; `unpriced` says how many answers have no known price."""

    name: str
    rows: Sequence[Execution]

    @property
    def calls(self) -> int:
        return len(self.rows)

    @property
    def failed(self) -> int:
        return sum(row.outcome == FAILED for row in self.rows)

    @property
    def cached(self) -> int:
        return sum(row.entry.cached for row in self.rows)

    @property
    def shared(self) -> int:
        return sum(row.entry.shared for row in self.rows)

    @property
    def tokens_in(self) -> int:
        return sum(row.entry.input_tokens for row in self.rows)

    @property
    def tokens_out(self) -> int:
        return sum(row.entry.output_tokens for row in self.rows)

    @property
    def tokens(self) -> int:
        return sum(row.entry.total_tokens for row in self.rows)

    @property
    def cost(self) -> float:
        return math.fsum(row.entry.estimated_cost or 0.0 for row in self.rows)

    @property
    def saved(self) -> float:
        return math.fsum(row.saved or 0.0 for row in self.rows)

    @property
    def unpriced(self) -> int:
        return sum(row.entry.success and row.entry.estimated_cost is None for row in self.rows)

    def percentiles(self, value: Callable[[Execution], float]) -> List[Optional[float]]:
        """PERCENTS of `value`, exactly; None for no rows."""
        values = Distribution([value(row) for row in self.rows], exact_up_to=len(self.rows))
        return [values.quantile(percent / 100) for percent in PERCENTS]


def wall(row: Execution) -> float:
    return row.entry.execution_time_ms


def grouped(rows: Iterable[Execution], key: Callable[[Execution], Optional[str]]) -> List[Sum]:
    """By `key`, the dearest first."""
    found: Dict[str, List[Execution]] = {}
    for row in rows:
        found.setdefault(key(row) or "unknown", []).append(row)
    sums = [Sum(name, members) for name, members in found.items()]
    return sorted(sums, key=lambda one: (-one.cost - one.saved, -one.calls, one.name))
