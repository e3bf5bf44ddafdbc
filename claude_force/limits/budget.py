"""Budgets: the worst case is reserved before a request, and replaced by its cost afterwards. No I/O."""

from __future__ import annotations

import math
from typing import Any, Callable, List, Mapping, Optional

from ..errors import BudgetExceededError, InvalidOptionError, UnknownPriceError
from ..formatting import Wording, byte_size, format_usd
from ..types import Call, Usage
from .prices import Price, max_searches, priced_options, unknown_fee

# Money is counted in whole nano-USD: integers add up exactly, in whatever order calls end.
_NANO = 10**9
# What the API adds to a prompt: a few tokens for its frame, some hundreds for tools.
_FRAME_TOKENS, _TOOLS_TOKENS = 50, 1000


class Budget:
    """A hard cap in USD: what is reserved and what is spent never exceed it together.

    Example:
        budget = Budget(1.0)
        if budget.reserve(0.25):
            budget.settle(0.25, 0.03)  # held 25 cents, spent 3
    """

    def __init__(self, usd: float, is_of_call: bool = False) -> None:
        """Raises InvalidOptionError for a limit that is not above 0.

        `is_of_call`: it is that of one call, so that others go on where it is used up.
        """
        if not 0 < usd < float("inf"):
            raise InvalidOptionError(f"The budget is {usd!r} USD; give an amount above 0.")
        self.usd, self._is_of_call = usd, is_of_call
        self._limit = round(usd * _NANO)
        self._spent = self._reserved = 0
        self._waiting: List[Callable[[], None]] = []

    @property
    def spent(self) -> float:
        """USD of requests that have ended."""
        return self._spent / _NANO

    @property
    def reserved(self) -> float:
        """USD of requests in flight, each at its worst case."""
        return self._reserved / _NANO

    def reserve(self, worst: float) -> bool:
        """Reserves `worst` USD; returns False if that fits only once others have settled for less.

        Raises BudgetExceededError if it can never fit.
        """
        amount = to_nano_usd(worst)
        if self._spent + amount > self._limit:
            error = budget_exceeded(self.usd, self.spent, worst)
            error.is_of_call = self._is_of_call
            raise error
        if self._spent + self._reserved + amount > self._limit:
            return False
        self._reserved += amount
        return True

    def settle(self, worst: float, usd: float) -> None:
        """Replaces a reservation of `worst` USD by the `usd` that were spent."""
        self._reserved -= to_nano_usd(worst)
        self._spent += to_nano_usd(usd)
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def when_settled(self, wake: Callable[[], None]) -> None:
        """Calls `wake` once, after the next settlement."""
        self._waiting.append(wake)


def budget_exceeded(most: float, spent: float, worst: float) -> BudgetExceededError:
    """Returns the error of a call that does not fit. All amounts are USD."""
    return BudgetExceededError(
        f"Of the budget of {format_usd(most)}, {format_usd(spent)} is spent, and this call may cost up to "
        f"{format_usd(worst)}: it was not sent"
    )


def worst_cost(call: Call, price: Price) -> Optional[float]:
    """USD that a request can cost at most; None if the price is unknown.

    No token of text is shorter than a byte, the whole prompt may have to be written to the prompt cache, and
    the answer may be as long as it is allowed to be. Of a conversation, what the API has counted is known.
    Web searches count as often as `max_uses` allows; without it the worst is unknown. What they add to the
    prompt can't be known beforehand.
    """
    options = priced_options(call)
    searches = max_searches(options)
    if searches is None:
        return None
    more = byte_size(repr(dict(call.options))) + _TOOLS_TOKENS if call.options else 0
    prompt = _most_tokens(call) + more + _FRAME_TOKENS
    costs = [
        price(call.model, Usage(prompt, call.max_tokens, web_search_requests=searches), options),
        price(call.model, _cache_write_usage(prompt, call, searches), options),
    ]
    known = [cost for cost in costs if cost is not None]
    return max(known) if len(known) == len(costs) else None


def _most_tokens(call: Call) -> int:
    """The most tokens that the prompt can have, without what the options add."""
    conversation = call.conversation
    if conversation is None:
        return sum(byte_size(text) for text in (*call.system, call.task))
    if conversation.counted:
        # The API has counted all but what is new.
        size = conversation.added
        return conversation.counted + size.text + size.media_at_most
    size = conversation.size
    return sum(map(byte_size, call.system)) + size.text + size.media_at_most + _TOOLS_TOKENS


def require_worst_cost(call: Call, price: Price) -> float:
    """As `worst_cost`, but raises UnknownPriceError if nothing bounds the cost."""
    worst = worst_cost(call, price)
    if worst is None:
        _check_tools(priced_options(call))
        unknown = f"The price of {call.model} is not known, so a budget can't be enforced."
        python = f"prices={{{call.model!r}: {{'input': ..., 'output': ...}}}} in USD per million tokens"
        shell = f"--price {call.model}=INPUT,OUTPUT in USD per million tokens"
        raise UnknownPriceError(Wording(f"{unknown} Give {python}.", f"{unknown} Give {shell}."))
    return worst


def _check_tools(options: Mapping[str, Any]) -> None:
    """Raises UnknownPriceError if a server tool can cost any amount."""
    if max_searches(options) is None:
        raise UnknownPriceError(
            "What web searches may cost is not bounded, so a budget can't be enforced. Give the web search "
            "tool max_uses."
        )
    tool = unknown_fee(options)
    if tool is not None:
        raise UnknownPriceError(
            f"What the tool {tool!r} costs is not known, so a budget can't be enforced. Leave out the tool "
            "or the budget."
        )


def _cache_write_usage(prompt: int, call: Call, searches: int) -> Usage:
    long_lived = prompt if call.cache_ttl == "1h" else 0
    return Usage(0, call.max_tokens, prompt, 0, long_lived, searches)


def to_nano_usd(usd: float) -> int:
    """Rounds up to whole nano-USD."""
    # Rounded up, so that the sum is never below what was spent; but not for the noise of a float.
    return math.ceil(round(usd * _NANO, 3))
