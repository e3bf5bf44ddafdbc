"""What a call is called in a durable run, and what an outcome counts for: delivered before, or charged to
another budget."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from typing import List, Optional, Tuple
from weakref import WeakKeyDictionary

from ..asking import Keeping
from ..cache.asked import Asked, asked
from ..cache.key import cache_key
from ..cache.key import question as as_question
from ..calling import Budget, Terms, at_most
from ..errors import CallError, CancelledCallError, InvalidOptionError
from ..money import bounded, free, make_free
from ..types import Call, Reply
from .calls import Finish
from .collecting import Row
from .parcel import Outcome, charged_to, outcome_texts

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def fingerprinted(call: Call, kept: Keeping) -> Asked:
    """What identifies the call. Raises InvalidOptionError where it has no written form."""
    question = asked(call, kept.service)
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


def ticket_of(terms: Terms, question: Asked) -> str:
    """The call's id: of the same run, place and text it is the same again."""
    return f"{terms.ticket or 'call-' + uuid.uuid4().hex}:{cache_key(as_question(*question)).hex()}"


def counted_before(outcome: Outcome, age: float) -> Outcome:
    """What was delivered to somebody already, who paid for it."""
    if isinstance(outcome, Reply):
        return replace(
            outcome,
            **free(outcome),
            wasted_cost=0.0,
            cached=True,
            cache_age=max(0.0, age),
        )
    if isinstance(outcome, CallError):
        make_free(outcome)
    return outcome


class Purses:
    """Budgets of this process, by ids that no other one has."""

    def __init__(self) -> None:
        self._ids: WeakKeyDictionary[Budget, str] = WeakKeyDictionary()

    def id_of(self, budget: Budget) -> str:
        return self._ids.setdefault(budget, uuid.uuid4().hex)

    def ids(self, terms: Terms) -> Tuple[str, ...]:
        return tuple(map(self.id_of, terms.budgets))

    def owing(self, terms: Terms, row: Row) -> List[Budget]:
        """Those of the call's budgets that its outcome was not charged to: it was handed over with another
        process's."""
        charged = charged_to(row.figures) if terms.budgets else ()
        return [budget for budget in terms.budgets if self.id_of(budget) not in charged]


def paid(outcome: Outcome) -> float:
    """USD that count against a budget, with its failed attempts: at the most where that is not known."""
    if isinstance(outcome, Reply):
        return at_most(outcome) or 0.0
    return bounded(outcome.cost, outcome.cost_at_most) if isinstance(outcome, CallError) else 0.0


def cancelled(ticket: str) -> Finish:
    """The outcome of a call that nobody waits for any more."""
    figures, text = outcome_texts(CancelledCallError("The call was cancelled"), 0.0)
    return Finish(ticket, figures, text, success=False, cancelled=True, delivered=True)
