"""What calls will use and cost, judged before anything is sent.

A token of English prose or code has 3 to 5 bytes, so the range of a prompt nobody has counted yet is wide;
once calls of the same model have been answered, their own measure takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, NamedTuple, Optional, Set, Tuple

from ..errors import InputError
from ..formatting import byte_size
from ..limits.budget import Price
from ..limits.prices import max_searches
from ..limits.token_estimator import TokenEstimator
from ..types import Call, Usage

# Of what is expected: how far a prompt's tokens may be off, before and after the first answers.
_GUESSED, _LEARNED = (0.6, 1.75), (0.85, 1.15)
# Below this many tokens no model's prompt cache keeps a prompt.
_CACHED_FROM = 1024


class Range(NamedTuple):
    """`expected` lies between `low` and `high`; what is spent lies there too, unless attempts fail."""

    low: float
    expected: float
    high: float

    def plus(self, other: Range) -> Range:
        return Range(*(one + more for one, more in zip(self, other)))


_NOTHING = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Estimate:
    """What a run would use and cost.

    Attributes:
        rows: all rows; of these `cached` are answered at no cost, and `unrunnable` can't be run.
        input_tokens, output_tokens: of the requests, each at most one attempt.
        cost: USD; None where the price of one of `unpriced` models is not known.
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
    """Adds up an estimate, call by call."""

    forecast: TokenEstimator
    price: Price
    rows: int = 0
    cached: int = 0
    unrunnable: int = 0
    _input: Range = _NOTHING
    _output: Range = _NOTHING
    _cost: Range = _NOTHING
    _unpriced: Dict[str, None] = field(default_factory=dict)
    _questions: Set[bytes] = field(default_factory=set)
    _seen: Set[Tuple[str, Tuple[str, ...]]] = field(default_factory=set)

    async def estimate(
        self,
        tasks: AsyncIterator[Any],
        prepare: Callable[[Any], Call],
        is_kept: Callable[[Call], Awaitable[bool]],
    ) -> Estimate:
        """Of all `tasks`: `prepare` makes a call of one or raises InputError."""
        async for task in tasks:
            try:
                call = prepare(task)
            except InputError:
                self.unrunnable += 1
            else:
                if await is_kept(call):
                    self.cached += 1
                else:
                    self.add(call)
            self.rows += 1
        return self.result()

    def is_repeated(self, question: Optional[bytes]) -> bool:
        """Whether the same was asked before; what can't be compared is asked anew."""
        if question is None or question in self._questions:
            return question is not None
        self._questions.add(question)
        return False

    def add(self, call: Call) -> None:
        """A call that would be sent."""
        expected, spread = self.forecast.prompt_tokens(call), _GUESSED
        if self.forecast.has_counted(call.model):
            spread = _LEARNED
        prompt = Range(spread[0] * expected, expected, spread[1] * expected)
        answer = Range(1.0, self.forecast.answer_tokens(call), float(call.max_tokens))
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
        """The part of the prompt that the prompt cache has from a row before."""
        system = sum(byte_size(text) for text in call.system)
        key = (call.model, call.system)
        seen = key in self._seen
        self._seen.add(key)
        if not seen or system * self.forecast.tokens_per_byte(call.model) < _CACHED_FROM:
            return 0.0
        return system / (system + byte_size(call.task))

    def result(self) -> Estimate:
        """Of all that was added."""
        cost = None if self._unpriced else self._cost
        return Estimate(
            self.rows, self.cached, self.unrunnable, self._input, self._output, cost, tuple(self._unpriced)
        )


def _usage(prompt: float, answer: float, read: float) -> Usage:
    return Usage(round(prompt * (1 - read)), round(answer), 0, round(prompt * read))
