"""Counts the tokens of a prompt, and which of them the prompt cache writes or reads. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple

CHARACTERS_PER_TOKEN = 4


def estimate(characters: int) -> int:
    """Estimates the tokens of a text from its number of characters."""
    return max(1, characters // CHARACTERS_PER_TOKEN)


def texts(content: Any) -> Iterator[str]:
    """The text of each block of a `system` or `content` field; a block of another type as its JSON."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            text = block.get("text") if isinstance(block, dict) else None
            yield text if isinstance(text, str) else json.dumps(block)


def input_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of the whole prompt: tools, system and messages."""
    characters = sum(len(text) for text in texts(body.get("system")))
    for message in body.get("messages") or ():
        characters += sum(len(text) for text in texts(message.get("content")))
    if body.get("tools"):
        characters += len(json.dumps(body["tools"]))
    return estimate(characters)


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt; `key` is the part that the cache stores, or None."""

    fresh: int
    created: int = 0
    read: int = 0
    one_hour: bool = False
    key: Optional[Tuple[Any, ...]] = None

    def usage(self, output_tokens: int) -> Dict[str, Any]:
        """The `usage` object of the API."""
        return {
            "input_tokens": self.fresh,
            "cache_creation_input_tokens": self.created,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 0 if self.one_hour else self.created,
                "ephemeral_1h_input_tokens": self.created if self.one_hour else 0,
            },
            "output_tokens": output_tokens,
            "service_tier": "standard",
        }


class PromptCache:
    """Remembers marked prefixes of `system`, one set per model. They never expire.

    `minimum` is the number of tokens below which a prefix is not cached, as in the API.
    """

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum
        self._known: Set[Tuple[Any, ...]] = set()

    def measure(self, body: Mapping[str, Any]) -> Prompt:
        """Counts a prompt; nothing is remembered before `keep`."""
        total = input_tokens(body)
        prefix = _marked_prefix(body.get("system"))
        if not prefix:
            return Prompt(total)
        cached = estimate(sum(len(text) for text in texts(prefix)))
        if cached < self._minimum:
            return Prompt(total)
        key = (body["model"], *texts(prefix))
        one_hour = prefix[-1]["cache_control"].get("ttl") == "1h"
        if key in self._known:
            return Prompt(total - cached, read=cached, one_hour=one_hour, key=key)
        return Prompt(total - cached, created=cached, one_hour=one_hour, key=key)

    def keep(self, prompt: Prompt) -> None:
        """Stores the prompt's prefix: from now on it is read, not created."""
        if prompt.key is not None:
            self._known.add(prompt.key)


def _marked_prefix(system: Any) -> List[Any]:
    """The blocks up to the last that has a `cache_control`."""
    blocks = system if isinstance(system, list) else []
    for end in range(len(blocks), 0, -1):
        if isinstance(blocks[end - 1].get("cache_control"), dict):
            return blocks[:end]
    return []
