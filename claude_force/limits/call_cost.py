"""What one call has cost so far: its attempts and their money. No I/O."""

from __future__ import annotations

from typing import Optional, Tuple, Union

from ..errors import CallError
from ..transport.protocol import AttemptRecord
from ..types import Attempt, Call, Reply, Usage, fast_replace
from .budget import require_worst_cost, worst_cost
from .prices import Price, priced_options


class CallCost:
    """Adds up a call's attempts as they end, so that it is right at every moment, cancellation included.

    Attributes:
        timeline: the attempts that were sent, in seconds of the engine's clock.
        failed_cost: USD of those that failed; None while none is known to be billed.
        answer_cost: USD of the answer; None before it has arrived, or if its cost is unknown.
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

    def replace(self, outcome: Union[Reply, CallError]) -> None:
        """Sets this to what `outcome` says of all attempts of the call."""
        self._clear()
        if isinstance(outcome, CallError):
            self.absorb_error(outcome)
            return
        self.timeline = outcome.timeline
        if outcome.cost is None or outcome.wasted_cost is None:
            self.add_unknown_cost(outcome.cost_at_most)
        else:
            self.answer_cost, self.failed_cost = outcome.cost, outcome.wasted_cost

    def absorb_reply(self, reply: Reply) -> None:
        """Adds an answer with its attempts."""
        self.timeline += reply.timeline
        if reply.cost is None or reply.wasted_cost is None:
            self.add_unknown_cost(reply.cost_at_most)
            return
        self.answer_cost = _sum(self.answer_cost, reply.cost)
        if reply.wasted_cost:
            self.add_failed_cost(reply.wasted_cost)

    def copy_to(self, error: CallError) -> None:
        """Sets the figures of `error` to these."""
        error.attempts, error.timeline = len(self.timeline), self.timeline
        error.cost, error.cost_at_most = self.usd, self.at_most

    def added_to(self, reply: Reply) -> Reply:
        """The reply with these failed attempts before its own."""
        if self.is_empty:
            return reply
        wasted = reply.wasted_cost
        return fast_replace(
            reply,
            attempts=reply.attempts + len(self.timeline),
            wasted_cost=None if wasted is None or self.wasted is None else wasted + self.wasted,
            cost_at_most=_bound(at_most(reply), self.at_most),
            timeline=self.timeline + reply.timeline,
        )


class CallPricing:
    """Prices the attempts of one call and its reply.

    `by_answering_model` says that the price of the model that answered is used, where that is known.
    """

    def __init__(self, call: Call, price: Price, by_answering_model: bool = True) -> None:
        self._call, self._price, self._by_answering_model = call, price, by_answering_model
        self._options = priced_options(call)

    def require_worst_cost(self) -> float:
        """USD that an attempt can cost at most. Raises UnknownPriceError."""
        return require_worst_cost(self._call, self._price)

    def spent(self, record: AttemptRecord, worst: float) -> float:
        """USD that count against a budget for an attempt that costs `worst` at most."""
        if not record.usage:
            return worst if record.in_doubt else 0.0
        cost = self._cost(record.usage, record.model)
        return worst if cost is None else cost

    def add_failed(self, record: AttemptRecord, call_cost: CallCost) -> None:
        """Adds the cost of a failed attempt to `call_cost`."""
        cost = self._cost(record.usage, record.model) if record.usage else None
        if cost is not None:
            call_cost.add_failed_cost(cost)
        elif record.usage or record.in_doubt:
            call_cost.add_unknown_cost(worst_cost(self._call, self._price))

    def priced(self, reply: Reply, call_cost: CallCost) -> Reply:
        """Returns the reply with its cost and that of the attempts before it, and adds it to `call_cost`."""
        usage, wasted = reply.usage, call_cost.wasted
        cost = self._cost(usage, reply.model)
        if cost is None:
            worst = worst_cost(self._call, self._price)
            # What costs nothing at its worst costs nothing.
            cost = 0.0 if worst == 0 else None
            call_cost.add_unknown_cost(worst)
        call_cost.answer_cost = cost
        saving: Optional[float] = 0.0
        if usage.prompt_tokens != usage.input_tokens:
            uncached = self._cost(_without_cache(usage), reply.model)
            saving = None if cost is None or uncached is None else uncached - cost
        return fast_replace(
            reply,
            attempts=len(call_cost.timeline),
            cost=cost,
            wasted_cost=wasted,
            cost_at_most=call_cost.at_most,
            prompt_cache_saving=saving,
            timeline=call_cost.timeline,
        )

    def _cost(self, usage: Usage, answered: str) -> Optional[float]:
        call = self._call
        return self._price(call.model, usage, self._options, answered if self._by_answering_model else "")


def _without_cache(usage: Usage) -> Usage:
    """The same usage had the prompt cache not been used."""
    return fast_replace(
        usage,
        input_tokens=usage.prompt_tokens,
        cache_creation_input_tokens=0,
        cache_creation_1h_input_tokens=0,
        cache_read_input_tokens=0,
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
