"""Estimates the tokens of a request from the requests before it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from ..formatting import byte_size
from ..types import Call, Usage
from .rate_limiter import TokenCost

# Used until a model or an agent has answered.
_BYTES_PER_TOKEN = 3.5
_ANSWER_TOKENS = 500
# The weight of the newest value in the mean.
_NEWEST_WEIGHT = 0.1


@dataclass
class _Mean:
    """An exponentially weighted mean that begins with the first value."""

    value: float
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += max(_NEWEST_WEIGHT, 1 / self.count) * (value - self.value)


class TokenEstimator:
    """Estimates a prompt by its bytes and its model, an answer by earlier answers of its model and agent.

    Example:
        estimator = TokenEstimator()
        estimator.observe(call, Usage(input_tokens=120, output_tokens=300))
        estimator.estimate(call).output_tokens  # 300.0
    """

    def __init__(self) -> None:
        self._tokens_per_byte: Dict[str, _Mean] = {}
        self._answer_tokens: Dict[Tuple[str, str], _Mean] = {}
        self._reads_prompt_cache: Dict[Tuple[str, str], bool] = {}
        # Of conversations, whose next requests read what this one wrote.
        self._writes_prompt_cache: Dict[Tuple[str, str], bool] = {}

    def estimate(self, call: Call) -> TokenCost:
        """What `call` will take of the rate limits, on average: tokens from the prompt cache don't count."""
        key, conversation = (call.model, call.agent_name), call.conversation
        if conversation is not None and conversation.sent.text and self._writes_prompt_cache.get(key):
            size, media, _ = conversation.added
        else:
            size, media = _messages_size(call), _media_tokens(call)
            if not self._reads_prompt_cache.get(key):
                size += prefix_size(call)
        return TokenCost(1.0, size * self.tokens_per_byte(call.model) + media, self.answer_tokens(call))

    def observe(self, call: Call, usage: Usage) -> None:
        """Learns from the usage of an answered request."""
        size, tokens = _messages_size(call) + prefix_size(call), usage.prompt_tokens - _media_tokens(call)
        if size and tokens > 0:
            self._tokens_per_byte.setdefault(call.model, _Mean(0.0)).add(tokens / size)
        key = (call.model, call.agent_name)
        self._answer_tokens.setdefault(key, _Mean(0.0)).add(usage.output_tokens)
        self._reads_prompt_cache[key] = usage.cache_read_input_tokens > 0
        if call.conversation is not None:
            self._writes_prompt_cache[key] = usage.prompt_tokens > usage.input_tokens

    def prompt_tokens(self, call: Call) -> float:
        """Tokens of the whole prompt, whether or not it is read from the prompt cache."""
        size = _messages_size(call) + prefix_size(call)
        return size * self.tokens_per_byte(call.model) + _media_tokens(call)

    def has_counted(self, model: str) -> bool:
        """Whether estimates for this model are based on usage."""
        return model in self._tokens_per_byte

    def tokens_per_byte(self, model: str) -> float:
        known = self._tokens_per_byte.get(model)
        return known.value if known else 1 / _BYTES_PER_TOKEN

    def answer_tokens(self, call: Call) -> float:
        known = self._answer_tokens.get((call.model, call.agent_name))
        return min(float(call.max_tokens), known.value if known else _ANSWER_TOKENS)

    def answer_bytes(self, call: Call) -> float:
        """Bytes of the expected answer."""
        return self.answer_tokens(call) / self.tokens_per_byte(call.model)

    def max_answer_bytes(self, call: Call) -> float:
        """Bytes of the longest answer that the call allows."""
        return call.max_tokens / self.tokens_per_byte(call.model)


def billable_usage(usage: Usage) -> TokenCost:
    """What a request has taken of the rate limits."""
    return TokenCost(1.0, usage.input_tokens + usage.cache_creation_input_tokens, usage.output_tokens)


def prefix_size(call: Call) -> int:
    """Bytes of the part of the prompt that an agent's calls share: its tools and its system prompt."""
    size = sum(map(byte_size, call.system))
    return size if call.conversation is None else size + byte_size(call.conversation.tools)


def _messages_size(call: Call) -> int:
    conversation = call.conversation
    if conversation is None:
        return byte_size(call.task)
    return conversation.size.text - byte_size(conversation.tools)


def _media_tokens(call: Call) -> int:
    return 0 if call.conversation is None else call.conversation.size.media
