"""What calls cost: the one road that money takes through the package, and how it adds up. USD. Pure.

1. An attempt's tokens (`calling.transport.Meter`) get a price: a caller's own (`calling.budget.price_by`),
   else that of the list (`calling.pricing`). None is a price that nobody knows; it is never taken for 0.
2. Against the caps, attempt by attempt, whatever becomes of the call: `calling.budget.Budget`, or for calls
   of durable runs the database (`durable.guard`), whose driver settles its own budgets on the outcomes.
3. For the one who asked, call by call: `calling.bill.Bill` adds up the attempts, and the call ends as a
   Reply, with the `cost` of its answer and the `wasted_cost` of the attempts before, or as a CallError.
4. `results` makes of either an AgentResult, whose `cost` is all of it. Whoever tells or keeps what was paid
   reads it there: the ledger, the lines of bulk runs and their progress, workflows and their journal,
   observers. An answer that somebody else has paid for is `free`, here and in a reply.
5. Sums are `Spent`. Only the ledger, which may have millions of lines, adds up by columns (`ledger.figures`),
   by the same rules, as tests/test_money.py holds against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Optional, Union

from .errors import CallError
from .types import AgentResult, Reply


def is_unpriced(success: bool, cost: Optional[float]) -> bool:
    """Whether it is an answer whose price is not known. A failed call may have cost nothing at all."""
    return success and cost is None


def free(answer: Union[Reply, AgentResult]) -> Dict[str, Any]:
    """Fields of the same answer where it is given once more: it was paid for, so its cost is saved."""
    return {
        "attempts": 0,
        "cost": 0.0,
        "saved_cost": answer.saved_cost if answer.cached or answer.shared else answer.cost,
        "prompt_cache_saving": None,
        "timeline": (),
    }


def make_free(error: CallError) -> None:
    """The same failure where it is told once more: its requests count for the one who was told first."""
    error.attempts, error.cost, error.timeline = 0, None, ()


@dataclass
class Spent:
    """What results add up to.

    Attributes:
        cost: USD that are known to be billed; `unpriced` counts the answers whose price is not known.
        saved: what answers that were not paid for now would have cost, as far as it is known.
        prompt_cache_saving: what the API's prompt cache took off the rest; below 0 where it was only written.
    """

    cost: float = 0.0
    unpriced: int = 0
    saved: float = 0.0
    prompt_cache_saving: float = 0.0

    @classmethod
    def of(cls, results: Iterable[AgentResult]) -> Spent:
        """All of them together."""
        spent = cls()
        for result in results:
            spent.add(result)
        return spent

    def add(self, result: AgentResult) -> None:
        """One more that has ended."""
        self.cost += result.cost or 0.0
        self.unpriced += is_unpriced(result.success, result.cost)
        self.saved += result.saved_cost or 0.0
        self.prompt_cache_saving += result.prompt_cache_saving or 0.0

    @property
    def full_cost(self) -> Optional[float]:
        """`cost`, or None where that is not all."""
        return None if self.unpriced else self.cost
