"""What calls cost: the one road that money takes through the package, and how it adds up. USD. Pure.

1. An attempt's tokens (`AttemptRecord`) get a price: a caller's own (`limits.budget.price_lookup`),
   else that of the list (`limits.prices`): that of the model that was asked in the first, of the one that
   answered in the second. None is a cost that nobody knows; it is never taken for 0.
2. Against the caps, attempt by attempt, whatever becomes of the call: `limits.budget.Budget`, or for calls
   of durable runs the database (`durable.shared_limiter`), whose backend settles its budgets on the outcomes.
3. For the one who asked, call by call: `CallCost` adds up the attempts, and the call ends as a
   Reply, with the `cost` of its answer and the `wasted_cost` of the attempts before, or as a CallError. Where
   one of its requests was lost, or its usage not told, that is None, and `cost_at_most` bounds it.
4. `results` makes of either an AgentResult, whose `cost` is all of it. Whoever tells or keeps what was paid
   reads it there: the ledger, the lines of bulk runs and their progress, workflows and their journal,
   observers. An answer that somebody else has paid for is `free`, here and in a reply.
5. Sums are `CostTotals`. Only the ledger, which can have millions of lines, adds columns (`ledger.metrics`),
   by the same rules, as tests/test_money.py holds against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Optional, Union

from .errors import CallError
from .types import AgentResult, Reply


def is_unpriced(success: bool, cost: Optional[float], at_most: Optional[float] = 0.0) -> bool:
    """Whether nobody knows what a call cost: an answer without a price, or a failed call of which a request
    may have been billed, `at_most` so many USD or any number. Other failed calls cost nothing."""
    return cost is None and (success or at_most != 0)


def cost_or_bound(cost: Optional[float], at_most: Optional[float]) -> float:
    """USD that count against a budget: the cost, else the most that it can be, as far as that is known."""
    return cost if cost is not None else at_most or 0.0


def without_cost(answer: Union[Reply, AgentResult]) -> Dict[str, Any]:
    """Fields of the same answer where it is given once more: it was paid for, so its cost is saved."""
    return {
        "attempts": 0,
        "cost": 0.0,
        "cost_at_most": 0.0,
        "saved_cost": answer.saved_cost if answer.cached or answer.shared else answer.cost,
        "prompt_cache_saving": None,
        "timeline": (),
    }


def clear_cost(error: CallError) -> None:
    """The same failure where it is told once more: its requests count for the one who was told first."""
    error.attempts, error.cost, error.cost_at_most, error.timeline = 0, None, 0.0, ()


@dataclass
class CostTotals:
    """What results add up to.

    Attributes:
        cost: USD that are known to be billed; `unpriced` counts the calls whose cost is not known.
        unpriced_at_most: the most USD that those may have cost, as far as it is known.
        saved: what answers that were not paid for now would have cost, as far as it is known.
        prompt_cache_saving: what the API's prompt cache took off the rest; below 0 where it was only written.
    """

    cost: float = 0.0
    unpriced: int = 0
    saved: float = 0.0
    prompt_cache_saving: float = 0.0
    unpriced_at_most: float = 0.0

    @classmethod
    def of(cls, results: Iterable[AgentResult]) -> CostTotals:
        """All of them together."""
        spent = cls()
        for result in results:
            spent.add(result)
        return spent

    def add(self, result: AgentResult) -> None:
        """One more that has ended."""
        self.cost += result.cost or 0.0
        if result.cost is None:
            self.unpriced += is_unpriced(result.success, result.cost, result.cost_at_most)
            self.unpriced_at_most += result.cost_at_most or 0.0
        self.saved += result.saved_cost or 0.0
        self.prompt_cache_saving += result.prompt_cache_saving or 0.0

    @property
    def full_cost(self) -> Optional[float]:
        """`cost`, or None where that is not all."""
        return None if self.unpriced else self.cost
