"""Estimates what calls will use and cost before anything is sent.

A token of English prose or code has 3 to 5 bytes, so the range is wide until calls of the same model have
been answered; then their bytes per token are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, NamedTuple, Optional, Set, Tuple

from ..errors import InputError
from ..formatting import byte_size
from ..limits.prices import Price, max_searches
from ..limits.token_estimator import TokenEstimator
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


@dataclass
class Estimator:
    """Adds up the estimate of a run, call by call."""

    token_estimator: TokenEstimator
    price: Price
    rows: int = 0
    cached: int = 0
    unrunnable: int = 0
    _input: Range = _NOTHING
    _output: Range = _NOTHING
    _cost: Range = _NOTHING
    _unpriced: Dict[str, None] = field(default_factory=dict)
    _keys: Set[bytes] = field(default_factory=set)
    _seen: Set[Tuple[str, Tuple[str, ...]]] = field(default_factory=set)

    async def estimate(
        self,
        tasks: AsyncIterator[Any],
        prepare: Callable[[Any], Call],
        is_cached: Callable[[Call], Awaitable[bool]],
    ) -> Estimate:
        """Returns the estimate of all `tasks`. `prepare` makes the call of a task, or raises InputError."""
        async for task in tasks:
            try:
                call = prepare(task)
            except InputError:
                self.unrunnable += 1
            else:
                if await is_cached(call):
                    self.cached += 1
                else:
                    self.add(call)
            self.rows += 1
        return self.result()

    def is_repeated(self, key: Optional[bytes]) -> bool:
        """Whether a call with this key was seen before; None is never seen."""
        if key is None or key in self._keys:
            return key is not None
        self._keys.add(key)
        return False

    def add(self, call: Call) -> None:
        """Adds a call that would be sent."""
        expected, spread = self.token_estimator.prompt_tokens(call), _GUESSED
        if self.token_estimator.has_counted(call.model):
            spread = _LEARNED
        prompt = Range(spread[0] * expected, expected, spread[1] * expected)
        answer = Range(1.0, self.token_estimator.answer_tokens(call), float(call.max_tokens))
        self._input, self._output = self._input.plus(prompt), self._output.plus(answer)
        read = self._read_share(call)
        usages = [
            _usage(prompt.low, answer.low, read),
            _usage(prompt.expected, answer.expected, read),
            Usage(
                0,
                round(answer.high),
                round(prompt.high),
                web_search_requests=max_searches(call.options) or 0,
            ),
        ]
        costs = [self.price(call.model, usage, call.options) for usage in usages]
        known = [cost for cost in costs if cost is not None]
        if len(known) == len(costs):
            self._cost = self._cost.plus(Range(*known))
        else:
            self._unpriced[call.model] = None

    def _read_share(self, call: Call) -> float:
        """The part of the prompt that is read from the prompt cache, where an earlier row has written it."""
        system = sum(byte_size(text) for text in call.system)
        key = (call.model, call.system)
        seen = key in self._seen
        self._seen.add(key)
        if not seen or system * self.token_estimator.tokens_per_byte(call.model) < _CACHED_FROM:
            return 0.0
        return system / (system + byte_size(call.task))

    def result(self) -> Estimate:
        """The estimate of everything that was added."""
        cost = None if self._unpriced else self._cost
        return Estimate(
            self.rows, self.cached, self.unrunnable, self._input, self._output, cost, tuple(self._unpriced)
        )


def _usage(prompt: float, answer: float, read: float) -> Usage:
    return Usage(round(prompt * (1 - read)), round(answer), 0, round(prompt * read))
