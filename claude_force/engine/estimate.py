"""Estimates what calls will use and cost before anything is sent.

A token of English prose or code has 3 to 5 bytes, so the range is wide until calls of the same model have
been answered; then their bytes per token are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, AsyncIterator, Awaitable, Callable, NamedTuple, Optional, Set, Tuple

from ..errors import InputError
from ..limits.prices import Price, max_searches, priced_options
from ..limits.token_estimator import TokenEstimator, prefix_size
from ..types import Call, Usage

# The factors between which a prompt's tokens lie, before and after the first answers.
_GUESSED, _LEARNED = (0.6, 1.75), (0.85, 1.15)
# The fewest tokens of a prompt that any model caches.
_CACHED_FROM = 1024


class Range(NamedTuple):
    """An estimate and its bounds, within which the real value lies unless attempts fail.

    Example: `Range(2.0, 5.0, 9.0).expected` is 5.0.
    """

    low: float
    expected: float
    high: float

    def plus(self, other: Range) -> Range:
        """Returns the sums of the bounds and of the estimates."""
        return Range(*(one + more for one, more in zip(self, other)))


_NOTHING = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Estimate:
    """What a run would use and cost.

    Attributes:
        rows: how many there are; `cached` of them cost nothing, and `unrunnable` of them can't be run.
        input_tokens, output_tokens: of the rows that would be sent, with one attempt each.
        cost: USD; None if a price is unknown.
        unpriced: the models whose prices are unknown.

    Example:
        estimate = await orchestrator.estimate([("python-expert", "Explain decorators")])
        if estimate.cost is not None:
            print(f"{estimate.cost.low:.2f} to {estimate.cost.high:.2f} USD")
    """

    rows: int = 0
    cached: int = 0
    unrunnable: int = 0
    input_tokens: Range = _NOTHING
    output_tokens: Range = _NOTHING
    cost: Optional[Range] = _NOTHING
    unpriced: Tuple[str, ...] = ()

    def plus(self, other: Estimate) -> Estimate:
        """Returns the estimate of both; its cost is known if both are."""
        return Estimate(
            self.rows + other.rows,
            self.cached + other.cached,
            self.unrunnable + other.unrunnable,
            self.input_tokens.plus(other.input_tokens),
            self.output_tokens.plus(other.output_tokens),
            self.cost.plus(other.cost) if self.cost is not None and other.cost is not None else None,
            tuple(dict.fromkeys((*self.unpriced, *other.unpriced))),
        )


class Estimator:
    """Adds up the estimate of a run, call by call."""

    def __init__(self, token_estimator: TokenEstimator, price: Price) -> None:
        self._token_estimator, self._price = token_estimator, price
        self._keys: Set[bytes] = set()
        self._prompts: Set[Tuple[str, str, Tuple[str, ...]]] = set()

    async def estimate(
        self,
        tasks: AsyncIterator[Any],
        prepare: Callable[[Any], Call],
        is_cached: Callable[[Call], Awaitable[bool]],
    ) -> Estimate:
        """Returns the estimate of all `tasks`. `prepare` makes the call of a task, or raises InputError."""
        total = Estimate()
        async for task in tasks:
            try:
                call = prepare(task)
            except InputError:
                total = total.plus(Estimate(1, unrunnable=1))
            else:
                total = total.plus(Estimate(1, cached=1) if await is_cached(call) else self._of(call))
        return total

    def is_repeated(self, key: Optional[bytes]) -> bool:
        """Whether a call with this key was seen before. A key of None never repeats."""
        if key is None or key in self._keys:
            return key is not None
        self._keys.add(key)
        return False

    def _of(self, call: Call) -> Estimate:
        """Returns the estimate of a call that would be sent."""
        options = priced_options(call)
        expected, spread = self._token_estimator.prompt_tokens(call), _GUESSED
        if self._token_estimator.has_counted(call.model):
            spread = _LEARNED
        prompt = Range(spread[0] * expected, expected, spread[1] * expected)
        answer = Range(1.0, self._token_estimator.answer_tokens(call), float(call.max_tokens))
        read, searches = self._read_share(call), max_searches(options) or 0
        usages = [
            _usage(prompt.low, answer.low, read),
            _usage(prompt.expected, answer.expected, read),
            Usage(0, round(answer.high), round(prompt.high), web_search_requests=searches),
        ]
        costs = [self._price(call.model, usage, options) for usage in usages]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return Estimate(1, 0, 0, prompt, answer, None, (call.model,))
        return Estimate(1, 0, 0, prompt, answer, Range(*known))

    def _read_share(self, call: Call) -> float:
        """The part of the prompt that is read from the prompt cache, where an earlier row has written it."""
        tools = "" if call.conversation is None else call.conversation.tools
        key = (call.model, tools, call.system)
        seen = key in self._prompts
        self._prompts.add(key)
        shared = prefix_size(call) * self._token_estimator.tokens_per_byte(call.model)
        if not seen or shared < _CACHED_FROM:
            return 0.0
        return shared / self._token_estimator.prompt_tokens(call)


def _usage(prompt: float, answer: float, read: float) -> Usage:
    return Usage(round(prompt * (1 - read)), round(answer), 0, round(prompt * read))
