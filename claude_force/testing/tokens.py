"""Counts the tokens of a prompt. Pure."""

from __future__ import annotations

import json
from typing import Any, Iterator, Mapping, Sequence, Tuple

CHARACTERS_PER_TOKEN = 4
# The most that the API counts for an image.
TOKENS_PER_IMAGE = 1600


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


def blocks_of(body: Mapping[str, Any]) -> Iterator[Tuple[str, Any]]:
    """The blocks of a prompt in the order in which the API reads them: tools, system, messages.

    Each with its part: "tools", "system", or a message's number and role. A text alone is one block.
    """
    for tool in _listed(body.get("tools")):
        yield "tools", tool
    for block in _listed(body.get("system")):
        yield "system", block
    for number, message in enumerate(body.get("messages") or ()):
        for block in _listed(message.get("content")):
            yield f"{number} {message.get('role')}", block


def _listed(content: Any) -> Sequence[Any]:
    return content if isinstance(content, list) else [content] if content else ()


def block_size(block: Any) -> int:
    """The characters of a block, tokens of images among them."""
    if not isinstance(block, dict):
        return len(block if isinstance(block, str) else json.dumps(block))
    kind = block.get("type")
    if kind == "image":
        return TOKENS_PER_IMAGE * CHARACTERS_PER_TOKEN
    text = block.get("text")
    if kind == "tool_result":
        content = block.get("content")
        return len(content) if isinstance(content, str) else sum(map(block_size, content or ()))
    return len(text) if isinstance(text, str) else len(json.dumps(block))


def input_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of the whole prompt: tools, system and messages."""
    return estimate(sum(block_size(block) for _, block in blocks_of(body)))
