"""Encodes an execution as one line of the ledger. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite
from typing import Any, List

from ..types import AgentResult, Attempt, CallCompleted, ToolCall, Usage

_NO_USAGE = Usage()
# Of one execution; a line stays within some 100 KB.
_MOST_TOOL_CALLS = 1000
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def encode_line(completed: CallCompleted, run: str) -> str:
    """Returns the line as ASCII, without its newline.

    Every call pays for this. A dict and `json` would take 13 us a line; text takes 8.
    """
    service = completed.result.service
    if completed.execution_id is not None and completed.turn is None:
        completed = replace(completed, result=_without_what_turns_have(completed.result))
    call, result = completed.call, completed.result
    usage = _NO_USAGE if result.cached or result.shared else result.usage
    prompt, duration = usage.prompt_tokens, result.duration
    ended = datetime.fromtimestamp(completed.started + duration, timezone.utc).isoformat()
    task_hash = sha256(call.task.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    line = (
        # The name in the definition, not the caller's spelling of it: two spellings are one agent.
        f'{{"timestamp":"{ended}","agent_name":{_quoted(call.agent_name)},"task_hash":"{task_hash}",'
        f'"success":{_json(result.success)},"execution_time_ms":{duration * 1000:.3f},'
        f'"model":{_json(result.model or call.model)},"input_tokens":{prompt:d},'
        f'"output_tokens":{usage.output_tokens:d},"total_tokens":{prompt + usage.output_tokens:d},'
        f'"estimated_cost":{_json(result.cost)},'
        f'"error_type":{_json(type(result.error).__name__ if result.error else None)},'
        f'"workflow_name":{_json(completed.workflow_name)},'
        f'"workflow_position":{_json(completed.workflow_position)},"run":"{run}",'
        f'"attempts":{result.attempts:d},"wait_ms":{max(0.0, duration - service) * 1000:.3f},'
        f'"service_time_ms":{service * 1000:.3f}'
    )
    return f"{line}{''.join(_optional(completed, usage))}}}"


def _optional(completed: CallCompleted, usage: Usage) -> List[str]:
    """Fields that are left out where they have their default, which saves a third of the text."""
    result, found = completed.result, []
    if result.cached:
        found.append(',"cached":true')
    if result.shared:
        found.append(',"shared":true')
    if not result.success or result.truncated:
        found += [f',"{name}":true' for name in ("truncated", "refused", "empty") if getattr(result, name)]
    if result.cost is None and result.cost_at_most != 0:
        found.append(f',"cost_at_most":{_json(result.cost_at_most)}')
    for name, value in (
        ("cache_read_tokens", usage.cache_read_input_tokens or None),
        ("cache_write_tokens", usage.cache_creation_input_tokens or None),
        ("stop_reason", result.stop_reason),
        ("request_id", result.request_id),
        ("status", getattr(result.error, "status", None)),
        ("saved_cost", result.saved_cost),
        ("prompt_cache_saving", result.prompt_cache_saving),
    ):
        if value is not None:
            found.append(f',"{name}":{_json(value)}')
    if completed.execution_id is not None:
        found += _of_tools(completed)
    if result.timeline:
        found.append(f',"timeline":[{",".join(map(_attempt, result.timeline))}]')
    return found


def _of_tools(completed: CallCompleted) -> List[str]:
    """Fields of an agent with tools: of a turn, or of the whole."""
    result, found = completed.result, [f',"execution":{_json(completed.execution_id)}']
    if completed.turn is not None:
        return [*found, f',"turn":{completed.turn:d}']
    found.append(f',"turns":{len(result.turns):d}')
    if result.stopped_by is not None:
        found.append(f',"stopped_by":{_json(result.stopped_by)}')
    if result.tool_calls:
        found.append(f',"tools":[{",".join(map(_tool_call, result.tool_calls[:_MOST_TOOL_CALLS]))}]')
    return found


def _without_what_turns_have(result: AgentResult) -> AgentResult:
    """The result for the line of a whole: each turn's line has its cost, tokens and attempts."""
    return replace(
        result,
        usage=_NO_USAGE,
        cost=0.0,
        saved_cost=None,
        prompt_cache_saving=None,
        attempts=0,
        timeline=(),
    )


def _attempt(attempt: Attempt) -> str:
    return (
        f"[{attempt.began * 1000:.3f},{attempt.ended * 1000:.3f},{attempt.window:d},{_json(attempt.error)}]"
    )


def _tool_call(call: ToolCall) -> str:
    began, ended = call.began * 1000, (call.began + call.seconds) * 1000
    return f"[{call.turn:d},{_quoted(call.name)},{began:.3f},{ended:.3f},{_json(call.error is not None)}]"


def _json(value: Any) -> str:
    """Infinite and not-a-number floats become null: JSON has no others, and the line could not be read."""
    if value is None:
        return "null"
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is float:
        return repr(value) if isfinite(value) else "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return repr(value)
    return _encode(value)
