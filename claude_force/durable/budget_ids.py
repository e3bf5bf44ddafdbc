"""What a call is called in a durable run, and what an outcome counts for: delivered before, or charged to
another budget."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from typing import List, Optional, Tuple
from weakref import WeakKeyDictionary

from ..cache.request_key import RequestKey, cache_key, request_key
from ..cache.request_key import question as as_question
from ..costs import clear_cost, cost_or_bound, without_cost
from ..engine.executor import CacheConfig
from ..errors import CallError, CancelledCallError, InvalidOptionError
from ..limits.budget import Budget
from ..limits.call_context import CallContext
from ..limits.call_cost import at_most
from ..types import Call, Reply
from .calls import SaveResult
from .delivery import Row
from .serialization import Outcome, charged_to, outcome_texts

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def fingerprinted(call: Call, kept: CacheConfig) -> RequestKey:
    """What identifies the call. Raises InvalidOptionError where it has no written form."""
    question = request_key(call, kept.service)
    if question is None:
        raise InvalidOptionError(
            f"An option of the call to {call.agent_name} has no written form, so it can't be handed over. "
            "Give plain values: text, numbers, lists and dicts."
        )
    return question


def checked_run_id(given: Optional[str]) -> str:
    """The one that is given, else a new one. Raises InvalidOptionError for one that can't be kept."""
    if given is not None and not _RUN_ID.fullmatch(given):
        raise InvalidOptionError(f"run_id is {given!r}; use up to 64 letters, digits, '_' and '-'.")
    return given or uuid.uuid4().hex


def call_id_of(context: CallContext, question: RequestKey) -> str:
    """The call's id: of the same run, place and text it is the same again."""
    return f"{context.call_id or 'call-' + uuid.uuid4().hex}:{cache_key(as_question(*question)).hex()}"


def counted_before(outcome: Outcome, age: float) -> Outcome:
    """What was delivered to somebody already, who paid for it."""
    if isinstance(outcome, Reply):
        return replace(
            outcome,
            **without_cost(outcome),
            wasted_cost=0.0,
            cached=True,
            cache_age=max(0.0, age),
        )
    if isinstance(outcome, CallError):
        clear_cost(outcome)
    return outcome


class BudgetIds:
    """Budgets of this process, by ids that no other one has."""

    def __init__(self) -> None:
        self._ids: WeakKeyDictionary[Budget, str] = WeakKeyDictionary()

    def id_of(self, budget: Budget) -> str:
        return self._ids.setdefault(budget, uuid.uuid4().hex)

    def ids(self, context: CallContext) -> Tuple[str, ...]:
        return tuple(map(self.id_of, context.budgets))

    def owing(self, context: CallContext, row: Row) -> List[Budget]:
        """Those of the call's budgets that its outcome was not charged to: it was handed over with another
        process's."""
        charged = charged_to(row.figures) if context.budgets else ()
        return [budget for budget in context.budgets if self.id_of(budget) not in charged]


def paid(outcome: Outcome) -> float:
    """USD that count against a budget, with its failed attempts: at the most where that is not known."""
    if isinstance(outcome, Reply):
        return at_most(outcome) or 0.0
    return cost_or_bound(outcome.cost, outcome.cost_at_most) if isinstance(outcome, CallError) else 0.0


def cancelled(call_id: str) -> SaveResult:
    """The outcome of a call that nobody waits for any more."""
    figures, text = outcome_texts(CancelledCallError("The call was cancelled"), 0.0)
    return SaveResult(call_id, figures, text, success=False, cancelled=True, delivered=True)
