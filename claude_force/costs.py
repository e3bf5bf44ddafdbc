"""What calls cost, in USD: how costs pass through the package, and how they add up. Pure.

1. The tokens of an attempt (`AttemptRecord`) are priced by the caller's own prices, else by the price list:
   `limits.prices`. A caller's price applies to the model that was asked for, the list's to the model that
   answered. An unknown cost is None, never 0.
2. Budgets are charged attempt by attempt, however the call ends: `limits.budget.Budget`, or the
   database for durable runs (`durable.shared_limiter`).
3. `CallCost` adds up the attempts of a call, which ends as a Reply or a CallError. The Reply has the `cost`
   of its answer and the `wasted_cost` of failed attempts. Where a request was lost or its usage not
   reported, that is None, and `cost_at_most` is its bound.
4. `engine.result_builder` makes an AgentResult of either, whose `cost` includes all attempts. The ledger,
   bulk runs, workflows and observers read it there. An answer that another caller paid for costs 0.
5. `CostTotals` adds up results. Only the ledger, which may have millions of lines, adds columns instead
   (`ledger.metrics`); tests/test_money.py holds the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Optional, Union

from .errors import CallError
from .types import AgentResult, Reply


def is_unpriced(success: bool, cost: Optional[float], at_most: Optional[float] = 0.0) -> bool:
    """Whether the cost of a call is unknown: an answer has no price, or a failed call may have been billed.

    `at_most` bounds the cost of a failed call in USD; None means unbounded, 0 that nothing was billed.
    """
    return cost is None and (success or at_most != 0)


def cost_or_bound(cost: Optional[float], at_most: Optional[float]) -> float:
    """Returns the USD that count against a budget: the cost, else its bound, else 0."""
    return cost if cost is not None else at_most or 0.0


def without_cost(answer: Union[Reply, AgentResult]) -> Dict[str, Any]:
    """Returns the fields to replace where a paid answer is given again: its cost becomes a saving."""
    return {
        "attempts": 0,
        "cost": 0.0,
        "cost_at_most": 0.0,
        "saved_cost": _worth(answer),
        "prompt_cache_saving": None,
        "timeline": (),
    }


def _worth(answer: Union[Reply, AgentResult]) -> Optional[float]:
    """What all of the answer would cost; of the turns of an agent, some may not have been paid for."""
    if answer.cached or answer.shared:
        return answer.saved_cost
    if answer.cost is None or answer.saved_cost is None:
        return answer.cost
    return answer.cost + answer.saved_cost


def clear_cost(error: CallError) -> None:
    """Clears the costs of an error that another caller has been charged for."""
    error.attempts, error.cost, error.cost_at_most, error.timeline = 0, None, 0.0, ()


@dataclass
class CostTotals:
    """The summed costs of results, in USD.

        totals = CostTotals.of(results)
        print(totals.cost, totals.unpriced)

    Attributes:
        cost: what is known to be billed; `unpriced` counts the calls of unknown cost.
        unpriced_at_most: the most that those may have cost, as far as that is known.
        saved: what cached and shared answers would have cost, as far as that is known.
        prompt_cache_saving: what the API's prompt cache saved; below 0 where it was only written.
    """

    cost: float = 0.0
    unpriced: int = 0
    saved: float = 0.0
    prompt_cache_saving: float = 0.0
    unpriced_at_most: float = 0.0

    @classmethod
    def of(cls, results: Iterable[AgentResult]) -> CostTotals:
        """Adds up the results."""
        spent = cls()
        for result in results:
            spent.add(result)
        return spent

    def add(self, result: AgentResult) -> None:
        """Adds one result."""
        self.cost += result.cost or 0.0
        if result.cost is None:
            self.unpriced += is_unpriced(result.success, result.cost, result.cost_at_most)
            self.unpriced_at_most += result.cost_at_most or 0.0
        self.saved += result.saved_cost or 0.0
        self.prompt_cache_saving += result.prompt_cache_saving or 0.0

    @property
    def full_cost(self) -> Optional[float]:
        """`cost`, or None where the cost of a call is unknown."""
        return None if self.unpriced else self.cost
