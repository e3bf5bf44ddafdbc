"""What a call is called in a durable run, and what an outcome counts for that was delivered before. Pure."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from typing import Optional

from ..asking import Keeping
from ..cache.asked import Asked, asked
from ..cache.key import cache_key
from ..cache.key import question as as_question
from ..calling import Terms
from ..errors import CallError, CancelledCallError, InvalidOptionError
from ..types import Call, Reply
from .calls import Finish
from .parcel import Outcome, outcome_texts

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def fingerprinted(call: Call, kept: Keeping) -> Asked:
    """What identifies the call. Raises InvalidOptionError where it has no written form."""
    question = asked(call, kept.endpoint)
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
            attempts=0,
            cost=0.0,
            wasted_cost=0.0,
            saved_cost=outcome.saved_cost if outcome.cached or outcome.shared else outcome.cost,
            cached=True,
            cache_age=max(0.0, age),
            prompt_cache_saving=None,
            timeline=(),
        )
    if isinstance(outcome, CallError):
        outcome.attempts, outcome.cost, outcome.timeline = 0, None, ()
    return outcome


def cancelled(ticket: str) -> Finish:
    """The outcome of a call that nobody waits for any more."""
    figures, text = outcome_texts(CancelledCallError("The call was cancelled"), 0.0)
    return Finish(ticket, figures, text, success=False, cancelled=True, delivered=True)
