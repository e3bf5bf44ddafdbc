"""Which models think unless a request tells them not to, and how long their answers may be. Pure.

Source: the API's documentation of thinking, October 2026. Thinking is billed as output, inside `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from typing import Any, Mapping

from .. import settings
from ..lazy_pattern import pattern

# The ids of Anthropic's API; those of clouds have a prefix or a suffix.
_THINKS = pattern(r"claude-(?:(?:fable|mythos)-5|opus-5-5|sonnet-5-5)(?![.\d])")
_OFF = ("disabled", "off", "between_tools")


def thinks(model: str, options: Mapping[str, Any]) -> bool:
    """Whether an answer may begin with thinking: as the option `thinking` says, else as the model does."""
    told = options.get("thinking")
    kind = told.get("type") if isinstance(told, AnyMapping) else None
    if isinstance(kind, str):
        return kind not in _OFF
    return _THINKS.search(model.lower()) is not None


def default_max_tokens(model: str, options: Mapping[str, Any]) -> int:
    """The longest answer of a call that names none, in tokens."""
    if not thinks(model, options):
        return settings.MAX_TOKENS
    told = options.get("thinking")
    budget = told.get("budget_tokens") if isinstance(told, AnyMapping) else None
    # The API refuses a budget that leaves nothing for the answer.
    more = budget + settings.MAX_TOKENS if isinstance(budget, int) else 0
    return max(settings.MAX_TOKENS_THINKING, more)
