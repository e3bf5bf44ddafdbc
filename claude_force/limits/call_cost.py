"""What one call has cost so far: its attempts and their money. No I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional, Tuple

from ..errors import CallError
from ..transport.protocol import AttemptRecord
from ..types import Attempt, Reply


class CallCost:
    """Adds up a call's attempts as they end, so that it is right at every moment, cancellation included.

    Attributes:
        timeline: the attempts that were sent, in seconds of the engine's clock.
        failed_cost: USD of those that failed; None while none is known to be billed.
        answer_cost: USD of the answer; None while there is none, or its cost is unknown.
        unknown_at_most: USD that attempts of unknown cost can have cost at most; None for no bound.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.timeline: Tuple[Attempt, ...] = ()
        self.failed_cost: Optional[float] = None
        self.answer_cost: Optional[float] = None
        self.unknown_at_most: Optional[float] = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was sent and nothing billed."""
        return not self.timeline and self.usd is None and self.at_most == 0

    @property
    def is_answered(self) -> bool:
        """Whether the last attempt has succeeded: the reply that is on its way has all of this cost on it."""
        return bool(self.timeline) and self.timeline[-1].error is None

    @property
    def usd(self) -> Optional[float]:
        """All that was billed; None if that is nothing or unknown."""
        return _sum(self.failed_cost, self.answer_cost) if self.unknown_at_most == 0 else None

    @property
    def at_most(self) -> Optional[float]:
        """The most that may have been billed; None for no bound."""
        if self.unknown_at_most is None:
            return None
        return (self.failed_cost or 0.0) + (self.answer_cost or 0.0) + self.unknown_at_most

    @property
    def wasted(self) -> Optional[float]:
        """USD of the attempts that failed; None if unknown."""
        return (self.failed_cost or 0.0) if self.unknown_at_most == 0 else None

    def record_attempt(self, record: AttemptRecord, error: Optional[BaseException] = None) -> None:
        """Records an attempt that has ended; ignores one that was never sent."""
        if record.began is not None and record.ended is not None:
            kind = type(error).__name__ if error is not None else None
            self.timeline += (Attempt(record.began, record.ended, record.window, kind),)

    def add_failed_cost(self, cost: float) -> None:
        """Adds a failed attempt that was billed."""
        self.failed_cost = (self.failed_cost or 0.0) + cost

    def add_unknown_cost(self, most: Optional[float]) -> None:
        """Adds an attempt of unknown cost, of `most` USD at most."""
        if most == 0:
            self.add_failed_cost(0.0)
        else:
            self.unknown_at_most = _bound(self.unknown_at_most, most)

    def absorb(self, other: CallCost) -> None:
        """Moves everything from `other` to this one."""
        self.timeline += other.timeline
        self.failed_cost = _sum(self.failed_cost, other.failed_cost)
        self.answer_cost = _sum(self.answer_cost, other.answer_cost)
        self.unknown_at_most = _bound(self.unknown_at_most, other.unknown_at_most)
        other._clear()

    def absorb_error(self, error: CallError) -> None:
        """Adds the attempts of a call that failed with `error`."""
        self.timeline += error.timeline
        if error.cost is not None:
            self.add_failed_cost(error.cost)
        elif error.cost_at_most != 0:
            self.add_unknown_cost(error.cost_at_most)

    def copy_to(self, error: CallError) -> None:
        """Sets the figures of `error` to these."""
        error.attempts, error.timeline = len(self.timeline), self.timeline
        error.cost, error.cost_at_most = self.usd, self.at_most

    def added_to(self, reply: Reply) -> Reply:
        """The reply with these failed attempts before its own."""
        if self.is_empty:
            return reply
        wasted = reply.wasted_cost
        return replace(
            reply,
            attempts=reply.attempts + len(self.timeline),
            wasted_cost=None if wasted is None or self.wasted is None else wasted + self.wasted,
            cost_at_most=_bound(at_most(reply), self.at_most),
            timeline=self.timeline + reply.timeline,
        )


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
