"""What one call has used of the wire so far: its attempts, and what they are known to have cost. No I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Tuple

from ..errors import CallError
from ..transport.protocol import AttemptRecord
from ..types import Attempt, Reply


class CallCost:
    """Up to date at each moment, so that it holds for a call that is cancelled too.

    Attributes:
        timeline: the attempts that got onto the wire, by the engine's clock.
        wasted: USD of those that failed; None as long as nothing is known to be billed.
        answer: USD of the one that was answered; None where there is none, or its cost is not known.
        doubtful: USD that attempts of unknown cost can have cost at most; None where that is unknown too.
        has_reply: there is a reply that has all of this on it.
        inherited: what it bears beside, of identical calls that failed when their callers had left; None
            for nothing.
    """

    def __init__(self) -> None:
        self.inherited: Optional[CallCost] = None
        self._told: Optional[CallCost] = None
        self._empty()

    def _empty(self) -> None:
        self.timeline: Tuple[Attempt, ...] = ()
        self.failed_cost: Optional[float] = None
        self.answer_cost: Optional[float] = None
        self.unknown_at_most: Optional[float] = 0.0
        self.has_reply: bool = False

    @property
    def usd(self) -> Optional[float]:
        """All that was billed; None where that is nothing, or not known."""
        return _sum(self.failed_cost, self.answer_cost) if self.unknown_at_most == 0 else None

    @property
    def at_most(self) -> Optional[float]:
        """The most that may have been billed; None where that is unknown."""
        return (
            None
            if self.unknown_at_most is None
            else (self.failed_cost or 0.0) + (self.answer_cost or 0.0) + self.unknown_at_most
        )

    @property
    def before_the_answer(self) -> Optional[float]:
        """USD of the attempts that failed; None where that is not known."""
        return (self.failed_cost or 0.0) if self.unknown_at_most == 0 else None

    def record_attempt(self, record: AttemptRecord, error: Optional[BaseException] = None) -> None:
        """An attempt that ended; one that did not get onto the wire is none."""
        if record.began is not None and record.ended is not None:
            kind = type(error).__name__ if error is not None else None
            self.timeline += (Attempt(record.began, record.ended, record.window, kind),)

    def add_failed_cost(self, cost: float) -> None:
        """Adds an attempt that failed, and was billed all the same."""
        self.failed_cost = (self.failed_cost or 0.0) + cost

    def add_unknown_cost(self, most: Optional[float]) -> None:
        """Adds an attempt whose cost is not known, and `most` USD at the most."""
        if most == 0:
            self.add_failed_cost(0.0)
        else:
            self.unknown_at_most = _bound(self.unknown_at_most, most)

    def copy_to(self, error: CallError) -> None:
        error.attempts, error.timeline = len(self.timeline), self.timeline
        error.cost, error.cost_at_most = self.usd, self.at_most

    def absorb(self, other: CallCost) -> None:
        """All that is on the other one is on this one now, and there no more."""
        self.timeline += other.timeline
        self.failed_cost = _sum(self.failed_cost, other.failed_cost)
        self.answer_cost = _sum(self.answer_cost, other.answer_cost)
        self.unknown_at_most = _bound(self.unknown_at_most, other.unknown_at_most)
        other._empty()

    def transfer(self, landed: bool) -> None:
        """Its caller leaves, and the attempts go on for others. What there was so far is the caller's, the
        rest is for one of them: all of it where the work has `landed`, or has its reply already, which tells
        of all attempts."""
        self._told = CallCost()
        if not (landed or self.has_reply):
            self._told.absorb(self)

    def own_share(self) -> CallCost:
        """What falls to the call itself, once it is cancelled."""
        left = self._told or self
        if self.inherited is not None:
            left.absorb(self.inherited)
        return left

    def inherit(self, error: CallError) -> None:
        """From an identical call that failed so, and whose caller had left."""
        self.inherited = self.inherited or CallCost()
        self.inherited.timeline += error.timeline
        if error.cost is not None:
            self.inherited.add_failed_cost(error.cost)
        elif error.cost_at_most != 0:
            self.inherited.add_unknown_cost(error.cost_at_most)

    def with_inherited(self, reply: Reply) -> Reply:
        """The call's own reply."""
        one = self.inherited
        if one is None:
            return reply
        wasted = reply.wasted_cost
        return replace(
            reply,
            attempts=reply.attempts + len(one.timeline),
            wasted_cost=None if wasted is None or one.unknown_at_most != 0 else wasted + (one.usd or 0.0),
            cost_at_most=_bound(at_most(reply), one.at_most),
            timeline=one.timeline + reply.timeline,
        )

    def add_inherited(self, error: CallError) -> None:
        """To the call's own error."""
        one = self.inherited
        if one is None:
            return
        most = error.cost_at_most if error.cost is None else error.cost
        is_known = one.unknown_at_most == 0 and (error.cost is not None or error.cost_at_most == 0)
        error.attempts += len(one.timeline)
        error.cost, error.cost_at_most = (
            _sum(one.usd, error.cost) if is_known else None,
            _bound(one.at_most, most),
        )
        error.timeline = one.timeline + error.timeline


def at_most(reply: Reply) -> Optional[float]:
    """USD that the reply and the attempts before it can have cost at most."""
    if reply.cost is None or reply.wasted_cost is None:
        return reply.cost_at_most
    return reply.cost + reply.wasted_cost


def _sum(one: Optional[float], other: Optional[float]) -> Optional[float]:
    if one is None or other is None:
        return one if other is None else other
    return one + other


def _bound(one: Optional[float], other: Optional[float]) -> Optional[float]:
    return None if one is None or other is None else one + other
