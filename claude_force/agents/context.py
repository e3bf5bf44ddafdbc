"""Whether a task that the package itself has put together fits into the model's context. Pure.

Source: the API's page "Context windows".
"""

from __future__ import annotations

from typing import Any, Mapping, Optional

from .. import settings
from ..errors import InvalidTaskError
from ..lazy_pattern import pattern
from ..types import Call
from .models import LONG_CONTEXT_BETA

_CONTEXT_TOKENS, _LONG_CONTEXT_TOKENS = 200_000, 1_000_000
# Models with the smaller context, as long as no beta asks for the larger one.
_SMALL = pattern(r"claude-(?:\d|instant|[a-z]+-4(?:-[0-5])?(?:-\d{8})?$)")
# Text has fewer characters for a token, so what is refused would be refused by the API too.
_MOST_CHARACTERS_PER_TOKEN = 5


def context_tokens(model: str, options: Mapping[str, Any]) -> Optional[int]:
    """The context of a model; None for one that is not known."""
    if not model.startswith("claude-"):
        return None
    headers = options.get("extra_headers") or {}
    is_long = LONG_CONTEXT_BETA in str(headers.get("anthropic-beta", ""))
    return _LONG_CONTEXT_TOKENS if is_long or not _SMALL.match(model) else _CONTEXT_TOKENS


def check_context(call: Call) -> None:
    """Raises InvalidTaskError where a task, longer than a caller may give, and the answer can't fit."""
    task, model, max_tokens = call.task, call.model, call.max_tokens
    if len(task) <= settings.MAX_TASK_CHARACTERS:
        return
    most, least = context_tokens(model, call.options), len(task) // _MOST_CHARACTERS_PER_TOKEN
    if most is not None and least + max_tokens > most:
        raise InvalidTaskError(
            f"Task too large: {len(task):,} characters were put together for this step, {least:,} tokens "
            f"at least. With max_tokens={max_tokens:,} that exceeds the context of {model}, {most:,} tokens. "
            "Tell the step fewer answers, lower max_tokens of the steps before it, or choose a model with a "
            "larger context."
        )
