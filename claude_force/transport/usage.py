"""Reads the `usage` object of an answer, which says what is billed. Pure.

Source: the Messages API reference, `Usage` and `MessageDeltaUsage`. A missing or impossible count is unknown,
never 0.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Tuple

from ..types import Usage

# No answer has so many: a context window holds millions of tokens.
_MOST_TOKENS = 10**8
_OBJECTS = ("cache_creation", "server_tool_use", "output_tokens_details")
# Server tools that cost only the tokens they add to the prompt.
_FREE_USES = ("web_fetch_requests", "tool_search_requests")
_TERMS = ("service_tier", "speed", "inference_geo")


class _Contradiction:
    """A member on which two events disagree; read as unknown."""


def merged_usage(usage: Mapping[str, Any], more: Any) -> Dict[str, Any]:
    """Adds what a later event says. Counts are cumulative and never fall; servers repeat different ones."""
    merged = dict(usage)
    for name, value in (more if isinstance(more, dict) else {}).items():
        before = merged.get(name)
        if name in _OBJECTS and isinstance(before, dict) and isinstance(value, dict):
            merged[name] = {**before, **{key: _larger(before.get(key), one) for key, one in value.items()}}
        else:
            merged[name] = _larger(before, value)
    return merged


def _larger(before: Any, value: Any) -> Any:
    if before is None or value is None:
        return value if before is None else before
    if _is_count(before) and _is_count(value):
        return max(before, value)
    same = type(before) is type(value) and before == value
    return value if same else _Contradiction()


def read_usage(usage: Any, *, is_final: bool = True) -> Usage:
    """The counts of one answer.

    Args:
        usage: as sent by the server, or as merged by `merged_usage`.
        is_final: whether output tokens are required; input tokens always are.

    Returns:
        Usage with `is_known` False if a count that is billed is missing or impossible.
    """
    if not isinstance(usage, dict):
        return _UNKNOWN
    reader = _Reader(usage)
    created = reader.count("cache_creation_input_tokens")
    long_lived, short_lived = reader.within("cache_creation")
    searches = reader.searches()
    terms = [reader.term(name) for name in _TERMS]
    return Usage(
        input_tokens=reader.count("input_tokens", required=True),
        output_tokens=reader.count("output_tokens", required=is_final),
        cache_creation_input_tokens=max(created, long_lived + short_lived),
        cache_read_input_tokens=reader.count("cache_read_input_tokens"),
        cache_creation_1h_input_tokens=long_lived,
        web_search_requests=searches,
        service_tier=terms[0] if terms[0] != "standard" else None,
        speed=terms[1],
        inference_geo=terms[2],
        is_known=reader.is_known,
    )


_UNKNOWN = Usage(is_known=False)


class _Reader:
    """Reads the members of one object; `is_known` turns False with the first that can't be read."""

    __slots__ = ("_usage", "is_known")

    def __init__(self, usage: Mapping[str, Any]) -> None:
        self._usage, self.is_known = usage, True

    def count(self, name: str, *, required: bool = False) -> int:
        return self._counted(self._usage.get(name), required)

    def _counted(self, value: Any, required: bool = False) -> int:
        if _is_count(value):
            return int(value)
        if value is not None or required:
            self.is_known = False
        return 0

    def within(self, name: str) -> Tuple[int, int]:
        """Tokens written to the prompt cache for an hour, and for five minutes."""
        split = self._object(name)
        hour = self._counted(split.get("ephemeral_1h_input_tokens"))
        return hour, self._counted(split.get("ephemeral_5m_input_tokens"))

    def searches(self) -> int:
        uses = self._object("server_tool_use")
        for name, value in uses.items():
            if name != "web_search_requests" and self._counted(value) and name not in _FREE_USES:
                # A tool whose fee is unknown.
                self.is_known = False
        return self._counted(uses.get("web_search_requests"))

    def term(self, name: str) -> Optional[str]:
        value = self._usage.get(name)
        if value is None or isinstance(value, str):
            return value
        self.is_known = False
        return None

    def _object(self, name: str) -> Mapping[str, Any]:
        value = self._usage.get(name)
        if isinstance(value, dict):
            return value
        if value is not None:
            self.is_known = False
        return {}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_TOKENS
