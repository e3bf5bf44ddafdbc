"""Adds up the turns of an agent with tools, for the result of the whole."""

from __future__ import annotations

from dataclasses import fields
from typing import List, Optional

from ..errors import CallError
from ..limits.call_cost import CallCost
from ..types import AgentResult, Reply, Turn, Usage, fast_replace

_COUNTS = tuple(one.name for one in fields(Usage) if one.type == "int")
_NO_USAGE = Usage()


class TurnTotals:
    """The figures of all turns so far. What another call or an earlier run has paid for costs nothing.

    Attributes:
        cost: receives what the turns cost.
        turns: the turns that have ended.
        paid, free: the tokens of answers that were paid for now, and of cached and shared ones.
    """

    def __init__(self, cost: CallCost) -> None:
        self.cost = cost
        self.turns: List[Turn] = []
        self.paid, self.free = _NO_USAGE, _NO_USAGE
        self._saved: List[Optional[float]] = []
        self._prompt_cache_savings: List[Optional[float]] = []
        self._cache_age: Optional[float] = None

    def add_reply(self, reply: Reply) -> None:
        """Adds an answer with its attempts."""
        self.cost.absorb_reply(reply)
        if not (reply.cached or reply.shared):
            self.paid = _sum_of_usage(self.paid, reply.usage)
            self._prompt_cache_savings.append(reply.prompt_cache_saving)
            return
        self.free = _sum_of_usage(self.free, reply.usage)
        self._saved.append(reply.saved_cost)
        if reply.cache_age is not None:
            self._cache_age = max(self._cache_age or 0.0, reply.cache_age)

    def add_error(self, error: CallError) -> None:
        """Adds the attempts of a turn that failed."""
        self.cost.absorb_error(error)

    def add_turn(self, result: AgentResult, began: float) -> Turn:
        """Adds the record of a turn, which began so many seconds after the start of the run."""
        turn = Turn(
            usage=result.usage,
            cost=result.cost,
            cached=result.cached,
            stop_reason=result.stop_reason,
            attempts=result.attempts,
            seconds=result.duration,
            began=began,
            shared=result.shared,
            saved_cost=result.saved_cost,
            cost_at_most=result.cost_at_most,
            request_id=result.request_id,
            error=type(result.error).__name__ if result.error else None,
        )
        self.turns.append(turn)
        return turn

    def reply(self, last: Reply, text: str) -> Reply:
        """Returns the last answer with the figures of all turns."""
        is_free = all(turn.cached or turn.shared for turn in self.turns)
        is_known = self.cost.unknown_at_most == 0
        return fast_replace(
            last,
            text=text,
            content=(),
            usage=self.usage,
            attempts=len(self.cost.timeline),
            timeline=self.cost.timeline,
            cost=(self.cost.answer_cost or 0.0) if is_known else None,
            wasted_cost=self.cost.wasted,
            cost_at_most=self.cost.at_most,
            saved_cost=self.saved_cost,
            cached=is_free and not any(turn.shared for turn in self.turns),
            shared=is_free and any(turn.shared for turn in self.turns),
            cache_age=self._cache_age if is_free else None,
            prompt_cache_saving=_sum(self._prompt_cache_savings),
        )

    def add_to_failure(self, result: AgentResult) -> None:
        """Sets the figures of a run that failed or was cancelled."""
        usage = result.usage = self.usage
        result.saved_cost, result.prompt_cache_saving = self.saved_cost, _sum(self._prompt_cache_savings)
        result.cost, result.cost_at_most = self.cost.usd, self.cost.at_most
        result.attempts = len(self.cost.timeline)
        result.metadata.update(
            tokens_used=usage.total_tokens,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            estimated_cost=result.cost,
        )

    @property
    def usage(self) -> Usage:
        """The tokens that were paid for now; those of all answers where none was."""
        return self.free if self.paid is _NO_USAGE else self.paid

    @property
    def saved_cost(self) -> Optional[float]:
        """What cached and shared answers would have cost; None where there are none, or that is unknown."""
        return _sum(self._saved)


def _sum(amounts: List[Optional[float]]) -> Optional[float]:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known and len(known) == len(amounts) else None


def _sum_of_usage(one: Usage, other: Usage) -> Usage:
    """Adds the counts; what is no count is that of the later one."""
    if one is _NO_USAGE:
        return other
    counts = {name: getattr(one, name) + getattr(other, name) for name in _COUNTS}
    return fast_replace(other, **counts, is_known=one.is_known and other.is_known)
