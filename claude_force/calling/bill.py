"""What one call has used of the wire so far: its attempts, and what they are known to have cost. No I/O."""

from __future__ import annotations

from typing import Optional, Tuple

from ..errors import CallError
from ..types import Attempt
from .transport import Meter


class Bill:
    """Up to date at each moment, so that it holds for a call that is cancelled too.

    Attributes:
        timeline: the attempts that got onto the wire, by the engine's clock.
        wasted: USD of those that failed; None as long as nothing is known to be billed.
        answer: USD of the one that was answered; None where there is none, or its price is not known.
        told: USD that were told of its call when that was cancelled; where an identical call goes on with the
            attempts, the rest is that one's.
    """

    def __init__(self) -> None:
        self.timeline: Tuple[Attempt, ...] = ()
        self.wasted: Optional[float] = None
        self.answer: Optional[float] = None
        self.told: Optional[float] = None
        self._unknown = False

    @property
    def usd(self) -> Optional[float]:
        """All that is known to be billed."""
        known = [cost for cost in (self.wasted, self.answer) if cost is not None]
        return sum(known) if known else None

    def note(self, meter: Meter, error: Optional[BaseException] = None) -> None:
        """An attempt that ended; one that did not get onto the wire is none."""
        if meter.began is not None and meter.ended is not None:
            kind = type(error).__name__ if error is not None else None
            self.timeline += (Attempt(meter.began, meter.ended, meter.window, kind),)

    def waste(self, cost: Optional[float]) -> None:
        """An attempt that failed, and was billed all the same."""
        self._unknown = self._unknown or cost is None
        self.wasted = None if self._unknown or cost is None else (self.wasted or 0.0) + cost

    def hand_over(self) -> None:
        """All so far is told; it begins anew for whoever it goes on for."""
        self.told, self.timeline = self.usd, ()
        self.wasted = self.answer = None
        self._unknown = False

    def put_on(self, error: CallError) -> None:
        error.attempts, error.cost, error.timeline = len(self.timeline), self.usd, self.timeline
