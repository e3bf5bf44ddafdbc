"""Results as JSON text and back: what one process has found out, another can give out again. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, Dict, Mapping, Optional

from . import errors
from .errors import CallError, ClaudeForceError
from .types import AgentResult, Attempt, Usage

# Of a CallError; what they are is for its class to say.
ERROR_FIELDS = ("message", "advice", "status", "kind", "request_id", "retry_after", "attempts", "cost")


def packed(result: AgentResult) -> str:
    """JSON text of all that a result says."""
    fields = dict(vars(result))
    fields["usage"] = asdict(result.usage)
    fields["timeline"] = [asdict(one) for one in result.timeline]
    fields["error"] = None if result.error is None else _error_fields(result.error)
    return json.dumps(fields, default=str)


def unpacked(text: str) -> AgentResult:
    """The result that was packed. Raises ValueError, TypeError, KeyError for a text that is none."""
    try:
        fields: Dict[str, Any] = json.loads(text)
    except RecursionError:
        raise ValueError("The text is nested too deep.") from None
    fields["usage"] = Usage(**fields["usage"])
    fields["timeline"] = tuple(Attempt(**one) for one in fields["timeline"])
    error = fields["error"]
    fields["error"] = None if error is None else _error(error)
    return AgentResult(**fields)


def given_again(result: AgentResult, age: float) -> AgentResult:
    """The same answer, which was paid for `age` seconds ago: it costs nothing now."""
    saved = result.saved_cost if result.cached or result.shared else result.cost
    return replace(
        result,
        metadata={
            **result.metadata,
            "cached": True,
            "cache_age_seconds": age,
            "estimated_cost": 0.0,
            "execution_time_ms": 0.0,
        },
        cost=0.0,
        saved_cost=saved,
        cached=True,
        cache_age=age,
        shared=False,
        prompt_cache_saving=None,
        attempts=0,
        duration=0.0,
        timeline=(),
    )


def _error_fields(error: ClaudeForceError) -> Dict[str, Any]:
    if isinstance(error, CallError):
        own = {name: getattr(error, name) for name in ERROR_FIELDS}
    else:
        own = {"own": vars(error)}
    return {"type": type(error).__name__, "text": str(error), **own}


def _error(fields: Mapping[str, Any]) -> ClaudeForceError:
    kind: Optional[Any] = getattr(errors, str(fields["type"]), None)
    if not (isinstance(kind, type) and issubclass(kind, ClaudeForceError)):
        kind = ClaudeForceError
    if not issubclass(kind, CallError):
        # Not by its own constructor, which may take anything.
        plain = kind.__new__(kind, fields["text"])
        Exception.__init__(plain, fields["text"])
        for name, value in fields.get("own", {}).items():
            setattr(plain, name, tuple(value) if isinstance(value, list) else value)
        return plain
    error = kind(fields["message"])
    for name in ERROR_FIELDS[1:]:
        setattr(error, name, fields[name])
    return error
