"""What a request will take of the limits, learned from what those before it took. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from ..formatting import byte_size
from ..types import Call, Usage
from .rate_limiter import TokenCost

# Before anything is known: bytes of a token, and tokens of an answer.
_BYTES_PER_TOKEN = 3.5
_ANSWER_TOKENS = 500
# The weight of the newest in the mean.
_NEWEST = 0.1


@dataclass
class _Mean:
    """An exponentially weighted mean that begins with the first value."""

    value: float
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += max(_NEWEST, 1 / self.count) * (value - self.value)


class TokenEstimator:
    """Tokens by model and agent: of a prompt by its bytes, of an answer by the answers before."""

    def __init__(self) -> None:
        self._per_byte: Dict[str, _Mean] = {}
        self._answer: Dict[Tuple[str, str], _Mean] = {}
        self._read: Dict[Tuple[str, str], bool] = {}

    def estimate(self, call: Call) -> TokenCost:
        """What `call` will count against the limits, on the average."""
        size = byte_size(call.task)
        if not self._read.get((call.model, call.agent_name)):
            size += _system_size(call)
        return TokenCost(1.0, size * self.tokens_per_byte(call.model), self.answer_tokens(call))

    def observe(self, call: Call, usage: Usage) -> None:
        """Learns from what a request used."""
        size = byte_size(call.task) + _system_size(call)
        if size and usage.prompt_tokens:
            self._per_byte.setdefault(call.model, _Mean(0.0)).add(usage.prompt_tokens / size)
        key = (call.model, call.agent_name)
        self._answer.setdefault(key, _Mean(0.0)).add(usage.output_tokens)
        self._read[key] = usage.cache_read_input_tokens > 0

    def prompt_tokens(self, call: Call) -> float:
        """Of the whole prompt, wherever the prompt cache has it from."""
        return (byte_size(call.task) + _system_size(call)) * self.tokens_per_byte(call.model)

    def has_counted(self, model: str) -> bool:
        """Whether prompts of this model are judged by the API's own count."""
        return model in self._per_byte

    def tokens_per_byte(self, model: str) -> float:
        known = self._per_byte.get(model)
        return known.value if known else 1 / _BYTES_PER_TOKEN

    def answer_tokens(self, call: Call) -> float:
        known = self._answer.get((call.model, call.agent_name))
        return min(float(call.max_tokens), known.value if known else _ANSWER_TOKENS)

    def answer_bytes(self, call: Call) -> float:
        """Of the text that is expected."""
        return self.answer_tokens(call) / self.tokens_per_byte(call.model)

    def most_bytes(self, call: Call) -> float:
        """Of the longest text that the call lets come."""
        return call.max_tokens / self.tokens_per_byte(call.model)


def billable_usage(usage: Usage) -> TokenCost:
    """What a request has counted against the limits."""
    return TokenCost(1.0, usage.input_tokens + usage.cache_creation_input_tokens, usage.output_tokens)


def _system_size(call: Call) -> int:
    return sum(byte_size(text) for text in call.system)
