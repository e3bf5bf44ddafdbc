"""How a bulk run ended, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

from ..costs import CostTotals, cost_or_bound
from ..errors import ClaudeForceError
from ..types import AgentResult
from .result_lines import SavedRow


@dataclass
class RunSummary(CostTotals):
    """How a run ended, and what it cost.

    Attributes:
        total: rows of the run; `done_before` were in the results file before, `ran` were added now.
        succeeded, failed: of all rows in the results file, as are `truncated`, `refused` and `empty`.
        over_budget: some rows were not sent because the budget had no room for them.
        stopped: the run was stopped; `cancelled`: its calls were cancelled where they are made.
        error: why no row could be run any more.
        is_resumable: whether the same run can go on from the results file as it is.
        lost: answers that were paid for and could not be written; `lost_cost` is USD, and part of `cost`.
        cost: USD of all rows in the results file, as are `unpriced` and `unpriced_at_most`; `saved` and
            `prompt_cache_saving` are of what ran now.
    """

    total: int = 0
    done_before: int = 0
    ran: int = 0
    succeeded: int = 0
    failed: int = 0
    truncated: int = 0
    refused: int = 0
    empty: int = 0
    over_budget: bool = False
    stopped: bool = False
    cancelled: bool = False
    error: Optional[ClaudeForceError] = None
    lost: int = 0
    lost_cost: float = 0.0
    is_resumable: bool = True

    def add(self, result: AgentResult) -> None:
        """Counts a result of this run."""
        super().add(result)
        self.ran += 1
        self._count(result)

    def add_saved(self, row: SavedRow) -> None:
        """Counts a row of an earlier run. Its cost is in `cost` already."""
        self.done_before += 1
        self.unpriced += row.unpriced
        self._count(row)

    def _count(self, row: Union[AgentResult, SavedRow]) -> None:
        self.succeeded += row.success
        self.failed += not row.success
        self.truncated += row.truncated
        self.refused += row.refused
        self.empty += row.empty

    def add_cost(self, cost: Optional[float], at_most: Optional[float]) -> None:
        """Adds the USD of a call without a result."""
        self.cost += cost or 0.0
        if cost is None:
            self.unpriced_at_most += at_most or 0.0

    def add_lost(self, cost: Optional[float], at_most: Optional[float]) -> None:
        """Counts an answer that was paid for and could not be written."""
        self.lost += 1
        self.lost_cost += cost_or_bound(cost, at_most)
        self.add_cost(cost, at_most)

    @property
    def budgeted(self) -> float:
        """USD that count against a budget: calls of unknown cost at their worst."""
        return self.cost + self.unpriced_at_most

    @property
    def missing(self) -> int:
        """Rows without a result."""
        return self.total - self.succeeded - self.failed
