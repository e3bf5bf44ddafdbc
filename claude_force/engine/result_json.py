"""Results as JSON text and back, for checkpoints and the database of durable runs. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, Dict, Mapping, Optional, Type

from .. import errors
from ..costs import without_cost
from ..errors import CallError, ClaudeForceError
from ..types import AgentResult, Attempt, PatchNote, ToolCall, Turn, Usage

# The fields of a CallError; its class documents them.
ERROR_FIELDS = (
    "message",
    "advice",
    "status",
    "kind",
    "request_id",
    "retry_after",
    "attempts",
    "cost",
    "cost_at_most",
)
_OF_TOOLS = ("turns", "tool_calls")
_OF_COPIES = ("patch", "changed_files", "patch_note")


def dumps(result: AgentResult) -> str:
    """Returns a result as JSON text."""
    fields = dict(vars(result))
    fields["usage"] = asdict(result.usage)
    fields["timeline"] = [asdict(one) for one in result.timeline]
    for name in _OF_TOOLS:
        if fields[name]:
            fields[name] = [asdict(one) for one in fields[name]]
        else:
            # Versions without them can read the result too.
            del fields[name]
    if result.patch_note is not None:
        fields["patch_note"] = asdict(result.patch_note)
    for name in _OF_COPIES:
        if fields[name] in (None, ()):
            del fields[name]
    fields["error"] = (
        None if result.error is None else {"text": str(result.error), **error_fields(result.error)}
    )
    return json.dumps(fields, default=str)


def loads(text: str) -> AgentResult:
    """Returns the result in the text of `dumps`. Raises ValueError, TypeError, KeyError for other text."""
    try:
        fields: Dict[str, Any] = json.loads(text)
    except RecursionError:
        raise ValueError("The text is nested too deep.") from None
    fields["usage"] = Usage(**fields["usage"])
    fields["timeline"] = tuple(Attempt(**one) for one in fields["timeline"])
    fields["turns"] = tuple(_turn(one) for one in fields.get("turns", ()))
    fields["tool_calls"] = tuple(ToolCall(**one) for one in fields.get("tool_calls", ()))
    fields["changed_files"] = tuple(fields.get("changed_files", ()))
    note = fields.get("patch_note")
    fields["patch_note"] = None if note is None else PatchNote(**note)
    error = fields["error"]
    fields["error"] = None if error is None else error_from(error, ClaudeForceError)
    return AgentResult(**fields)


def _turn(fields: Mapping[str, Any]) -> Turn:
    return Turn(**{**fields, "usage": Usage(**fields["usage"])})


def as_cached(result: AgentResult, age: float) -> AgentResult:
    """Returns the result of an answer that was paid for `age` seconds ago, and costs nothing now."""
    return replace(
        result,
        metadata={
            **result.metadata,
            "cached": True,
            "cache_age_seconds": age,
            "estimated_cost": 0.0,
            "execution_time_ms": 0.0,
        },
        **without_cost(result),
        cached=True,
        cache_age=age,
        shared=False,
        duration=0.0,
        turns=tuple(map(_as_cached_turn, result.turns)),
    )


def _as_cached_turn(turn: Turn) -> Turn:
    saved = turn.saved_cost if turn.cached or turn.shared else turn.cost
    return replace(turn, cost=0.0, cost_at_most=0.0, saved_cost=saved, attempts=0, cached=True, shared=False)


def error_fields(error: ClaudeForceError) -> Dict[str, Any]:
    """Returns its class, message and fields, without the timeline, whose clock is another process's."""
    message = error.message if isinstance(error, CallError) else str(error)
    known: Dict[str, Any] = {"type": type(error).__name__, "message": message}
    if isinstance(error, CallError):
        known.update({name: getattr(error, name) for name in ERROR_FIELDS})
    own = {name: value for name, value in vars(error).items() if name not in known and name != "timeline"}
    return {**known, "own": own} if own else known


def error_from(fields: Mapping[str, Any], otherwise: Type[ClaudeForceError]) -> ClaudeForceError:
    """Returns the error that `error_fields` described; an `otherwise` if this version has no such class."""
    found: Optional[Any] = getattr(errors, str(fields["type"]), None)
    kind = found if isinstance(found, type) and issubclass(found, ClaudeForceError) else otherwise
    # Not by its own constructor, which may take anything.
    error: ClaudeForceError = kind.__new__(kind)
    if isinstance(error, CallError):
        CallError.__init__(error, fields["message"])
    else:
        Exception.__init__(error, fields["text"] if "text" in fields else fields["message"])
    known = {name: fields[name] for name in ERROR_FIELDS if name in fields and isinstance(error, CallError)}
    for name, value in {**fields.get("own", {}), **known}.items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error
