"""What one call has used of the wire so far: its attempts, and what they are known to have cost. No I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Tuple

from ..errors import CallError
from ..types import Attempt, Reply
from .transport import Meter


class Bill:
    """Up to date at each moment, so that it holds for a call that is cancelled too.

    Attributes:
        timeline: the attempts that got onto the wire, by the engine's clock.
        wasted: USD of those that failed; None as long as nothing is known to be billed.
        answer: USD of the one that was answered; None where there is none, or its price is not known.
        inherited: what it bears beside, of identical calls that failed when their callers had left; None
            for nothing.
    """

    def __init__(self) -> None:
        self.inherited: Optional[Bill] = None
        self._told: Optional[Bill] = None
        self._empty()

    def _empty(self) -> None:
        self.timeline: Tuple[Attempt, ...] = ()
        self.wasted: Optional[float] = None
        self.answer: Optional[float] = None
        self._unknown = False

    @property
    def usd(self) -> Optional[float]:
        """All that is known to be billed."""
        return _sum(self.wasted, self.answer)

    def note(self, meter: Meter, error: Optional[BaseException] = None) -> None:
        """An attempt that ended; one that did not get onto the wire is none."""
        if meter.began is not None and meter.ended is not None:
            kind = type(error).__name__ if error is not None else None
            self.timeline += (Attempt(meter.began, meter.ended, meter.window, kind),)

    def waste(self, cost: Optional[float]) -> None:
        """An attempt that failed, and was billed all the same."""
        self._unknown = self._unknown or cost is None
        self.wasted = None if self._unknown or cost is None else (self.wasted or 0.0) + cost

    def put_on(self, error: CallError) -> None:
        error.attempts, error.cost, error.timeline = len(self.timeline), self.usd, self.timeline

    def take(self, other: Bill) -> None:
        """All that is on the other one is on this one now, and there no more."""
        self.timeline += other.timeline
        self._unknown = self._unknown or other._unknown
        self.wasted = None if self._unknown else _sum(self.wasted, other.wasted)
        self.answer = _sum(self.answer, other.answer)
        other._empty()

    def hand_over(self, landed: bool) -> None:
        """Its caller leaves, and the attempts go on for others. What there was so far is the caller's, the
        rest is for one of them: all of it where the work has `landed`."""
        self._told = Bill()
        if not landed:
            self._told.take(self)

    def of_one_who_leaves(self) -> Bill:
        """What falls to the call itself, once it is cancelled."""
        left = self._told or self
        if self.inherited is not None:
            left.take(self.inherited)
        return left

    def inherit(self, error: CallError) -> None:
        """From an identical call that failed so, and whose caller had left."""
        self.inherited = self.inherited or Bill()
        self.inherited.timeline += error.timeline
        if error.cost is not None:
            self.inherited.waste(error.cost)

    def with_inherited(self, reply: Reply) -> Reply:
        """The call's own reply."""
        one = self.inherited
        if one is None:
            return reply
        return replace(
            reply,
            attempts=reply.attempts + len(one.timeline),
            wasted_cost=reply.wasted_cost + (one.usd or 0.0),
            timeline=one.timeline + reply.timeline,
        )

    def add_inherited(self, error: CallError) -> None:
        """To the call's own error."""
        one = self.inherited
        if one is not None:
            error.attempts += len(one.timeline)
            error.cost = _sum(one.usd, error.cost)
            error.timeline = one.timeline + error.timeline


def _sum(one: Optional[float], other: Optional[float]) -> Optional[float]:
    if one is None or other is None:
        return one if other is None else other
    return one + other
