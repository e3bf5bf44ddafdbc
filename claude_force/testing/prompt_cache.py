"""Which tokens of a prompt the API's prompt cache writes and reads. Pure.

Source: the API's documentation, chapter "Prompt caching".
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from .tokens import block_size, blocks_of, estimate

# How many blocks before a breakpoint are looked at, itself among them.
_LOOK_BACK = 20
# What else changes the messages' part of the prefix.
_OF_MESSAGES = ("tool_choice", "thinking")


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt; `keys` are the prefixes that the cache stores."""

    fresh: int
    created: int = 0
    read: int = 0
    one_hour: bool = False
    keys: Tuple[bytes, ...] = ()

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


class _Place(NamedTuple):
    """The end of a block: a hash of all up to it, their characters, and the breakpoint there, if any."""

    key: bytes
    size: int
    control: Optional[Mapping[str, Any]]


class PromptCache:
    """Remembers the prefixes that ended at a breakpoint, for each model. They never expire.

    `minimum` is the number of tokens below which a prefix is not cached, as in the API.
    """

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum
        self._known: Set[bytes] = set()

    def measure(self, body: Mapping[str, Any]) -> Prompt:
        """Counts a prompt; nothing is remembered before `keep`."""
        blocks = list(blocks_of(body))
        sizes = [block_size(block) for _, block in blocks]
        total, places = estimate(sum(sizes)), list(_places(body, blocks, sizes))
        ends = [
            at
            for at, place in enumerate(places)
            if place.control is not None and estimate(place.size) >= self._minimum
        ]
        if not ends:
            return Prompt(total)
        read = max(self._read(places, at) for at in ends)
        last = places[ends[-1]]
        one_hour = last.control is not None and last.control.get("ttl") == "1h"
        written = estimate(last.size)
        return Prompt(total - written, written - read, read, one_hour, tuple(places[at].key for at in ends))

    def _read(self, places: List[_Place], end: int) -> int:
        """Tokens of the longest known prefix that is found from the breakpoint at this place."""
        for at in range(end, max(-1, end - _LOOK_BACK), -1):
            if places[at].key in self._known:
                return estimate(places[at].size)
        return 0

    def keep(self, prompt: Prompt) -> None:
        """Stores the prompt's prefixes: from now on they are read, not created."""
        self._known.update(prompt.keys)


def _places(body: Mapping[str, Any], blocks: List[Tuple[str, Any]], sizes: List[int]) -> Iterator[_Place]:
    """The ends of all blocks up to the last breakpoint."""
    controls = [_control(block) for _, block in blocks]
    if blocks and controls[-1] is None:
        controls[-1] = _control(body)
    marked = [at for at, control in enumerate(controls) if control is not None]
    digest, size, part = hashlib.sha256(str(body.get("model")).encode()), 0, ""
    for at in range(marked[-1] + 1 if marked else 0):
        before, (part, block) = part, blocks[at]
        if part != before and part not in ("tools", "system"):
            digest.update(json.dumps([part, *map(body.get, _OF_MESSAGES)]).encode())
        digest.update(b"\0" + _text(block).encode())
        size += sizes[at]
        yield _Place(digest.digest(), size, controls[at])


def _control(holder: Any) -> Optional[Mapping[str, Any]]:
    control = holder.get("cache_control") if isinstance(holder, dict) else None
    return control if isinstance(control, dict) else None


def _text(block: Any) -> str:
    """The block without its breakpoint, which is not part of the prefix."""
    if isinstance(block, dict) and "cache_control" in block:
        block = {name: value for name, value in block.items() if name != "cache_control"}
    return json.dumps(block)
