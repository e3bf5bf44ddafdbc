"""Describes calls by OpenTelemetry's GenAI conventions. Pure; doesn't import OpenTelemetry.

Source: github.com/open-telemetry/semantic-conventions-genai. Where an attribute was renamed and backends
still look for its old name (`gen_ai.system`, `cache_creation`), both names are set.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Optional, Sequence, Tuple, Union
from urllib.parse import urlsplit

from ..tools.tool_names import is_known_tool
from ..transport.redaction import redact
from ..types import AgentResult, Call, CallCompleted, ToolCall, Turn

Attributes = Dict[str, Union[str, bool, int, float, Sequence[str]]]

# Histogram bounds of the conventions: seconds of a call, seconds of a request, tokens.
CALL_BUCKETS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)
REQUEST_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = tuple(4**power for power in range(14))

_PORTS = {"http": 80, "https": 443}
_LONGEST_NAME = 100
_NUMBERS = ("temperature", "top_p", "top_k")
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "tool_use": "tool_call",
}


def source_of(result: AgentResult) -> str:
    """Returns "cache", "shared" (the answer of an identical call) or "model"."""
    return "cache" if result.cached else "shared" if result.shared else "model"


def server_attributes(base_url: Optional[str]) -> Attributes:
    """Returns host and port of the endpoint; {} if it is unknown."""
    parts = urlsplit(base_url or "")
    if not parts.hostname:
        return {}
    port = parts.port or _PORTS.get(parts.scheme)
    return _without_none({"server.address": parts.hostname, "server.port": port})


def call_attributes(completed: CallCompleted) -> Attributes:
    """Returns what is known of a call before its answer."""
    return _without_none(
        {
            **_request("invoke_agent", completed.call),
            "claude_force.workflow.name": completed.workflow_name,
            "claude_force.workflow.position": completed.workflow_position,
        }
    )


def result_attributes(result: AgentResult) -> Attributes:
    """Returns what is known of a call after its end."""
    return _without_none(
        {
            **_answer(result),
            "error.type": type(result.error).__name__ if result.error else None,
            "claude_force.source": source_of(result),
            "claude_force.attempts": result.attempts,
            "claude_force.wait": result.wait,
            "claude_force.cost": result.cost,
            "claude_force.saved_cost": result.saved_cost,
            "claude_force.cache.age": result.cache_age,
            **_of_tools(result),
        }
    )


def _of_tools(result: AgentResult) -> Dict[str, Any]:
    """What only agents that used tools have."""
    if not result.turns:
        return {}
    return {
        "claude_force.turns": len(result.turns),
        "claude_force.tool_calls": len(result.tool_calls),
        "claude_force.stopped_by": result.stopped_by,
    }


def tool_attributes(call: ToolCall, content: bool) -> Attributes:
    """Returns one tool call of an agent; `content`: with the arguments that the model wrote."""
    arguments = encodable(json.dumps(call.input, ensure_ascii=False)) if content else None
    return _without_none(
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name[:_LONGEST_NAME],
            "gen_ai.tool.call.id": call.id or None,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.arguments": arguments,
            "error.type": tool_error(call),
            "claude_force.turn": call.turn,
        }
    )


def tool_dimensions(completed: CallCompleted, call: ToolCall) -> Attributes:
    """Returns the dimensions of a tool call's metrics; each has few values, whatever a model writes."""
    return _without_none(
        {
            "gen_ai.agent.name": completed.call.agent_name,
            "gen_ai.tool.name": call.name if is_known_tool(call.name) else "other",
            "error.type": tool_error(call),
        }
    )


def tool_error(call: ToolCall) -> Optional[str]:
    """Returns "denied" or "tool_error"; None for a call that succeeded."""
    return None if call.error is None else "denied" if call.is_denied else "tool_error"


def turns_by_attempt(result: AgentResult) -> Dict[int, Turn]:
    """Returns the turn that each request ended, by the number of the request; {} without tools."""
    found: Dict[int, Turn] = {}
    number = 0
    for turn in result.turns:
        number += turn.attempts
        if turn.attempts:
            found[number] = turn
    return found


def attempt_attributes(completed: CallCompleted, number: int, endpoint: Attributes) -> Attributes:
    """Returns one request of a call; `number` counts from 1.

    Only the last request has the answer or the status of the error; of an agent with tools, the last of each
    turn has that turn's answer.
    """
    result = completed.result
    is_last, error = number == len(result.timeline), result.timeline[number - 1].error
    turn = turns_by_attempt(result).get(number) if result.turns else None
    attributes = {
        **_request("chat", completed.call),
        **endpoint,
        "claude_force.attempt": number,
        "error.type": error,
    }
    if turn is not None and error is None:
        attributes.update({"claude_force.turn": result.turns.index(turn) + 1, **_turn_answer(result, turn)})
    elif is_last and error is None and not result.turns:
        attributes.update(_answer(result))
    elif is_last:
        attributes["http.response.status_code"] = getattr(result.error, "status", None)
    return _without_none(attributes)


def content_attributes(completed: CallCompleted) -> Attributes:
    """Returns system prompt, task and answer as JSON in the form of the conventions."""
    call, result = completed.call, completed.result
    content: Dict[str, Any] = {
        "gen_ai.system_instructions": [_part(text) for text in call.system],
        "gen_ai.input.messages": [{"role": "user", "parts": [_part(call.task)]}],
    }
    if result.success:
        reason = result.stop_reason or ""
        content["gen_ai.output.messages"] = [
            {
                "role": "assistant",
                "parts": [_part(result.output)],
                "finish_reason": _FINISH_REASONS.get(reason, reason),
            }
        ]
    return {name: encodable(json.dumps(value, ensure_ascii=False)) for name, value in content.items()}


def call_dimensions(completed: CallCompleted) -> Attributes:
    """Returns the dimensions of a call's metrics; each has few values."""
    result = completed.result
    return _without_none(
        {
            "gen_ai.agent.name": completed.call.agent_name,
            "gen_ai.request.model": completed.call.model,
            "claude_force.source": source_of(result),
            "claude_force.workflow.name": completed.workflow_name,
            "error.type": type(result.error).__name__ if result.error else None,
        }
    )


def request_dimensions(completed: CallCompleted, endpoint: Attributes, error: Optional[str]) -> Attributes:
    """Returns the dimensions of a request's metrics; `error` is the type of its error."""
    return _without_none(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.agent.name": completed.call.agent_name,
            "gen_ai.request.model": completed.call.model,
            "gen_ai.response.model": None if error else completed.result.model,
            "error.type": error,
            **endpoint,
        }
    )


def used_tokens(result: AgentResult) -> Tuple[Tuple[str, int], ...]:
    """Returns tokens by type; () for failures, cached and shared answers, so that sums are what was used."""
    if not result.success or source_of(result) != "model":
        return ()
    return ("input", result.usage.prompt_tokens), ("output", result.usage.output_tokens)


def error_description(result: AgentResult) -> str:
    """Returns the message of the error, without secrets."""
    return encodable(redact(str(result.error)))


def encodable(text: str) -> str:
    """Escapes lone surrogates: UTF-8 can't encode them, and the whole batch of an exporter would be lost."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _request(operation: str, call: Call) -> Dict[str, Any]:
    stops = call.options.get("stop_sequences")
    numbers = {f"gen_ai.request.{name}": _number(call.options.get(name)) for name in _NUMBERS}
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "anthropic",
        "gen_ai.system": "anthropic",
        "gen_ai.agent.name": call.agent_name,
        "gen_ai.request.model": call.model,
        "gen_ai.request.max_tokens": call.max_tokens,
        "gen_ai.request.stop_sequences": [encodable(str(stop)) for stop in stops] if stops else None,
        **numbers,
    }


def _answer(result: AgentResult) -> Dict[str, Any]:
    attributes: Dict[str, Any] = {"anthropic.request.id": result.request_id}
    if result.success:
        reason = result.stop_reason
        attributes["gen_ai.response.model"] = result.model
        attributes["gen_ai.response.finish_reasons"] = [encodable(reason)] if reason else None
    tokens = used_tokens(result)
    for kind, count in tokens:
        attributes[f"gen_ai.usage.{kind}_tokens"] = count
    if tokens:
        written = result.usage.cache_creation_input_tokens
        attributes["gen_ai.usage.cache_read.input_tokens"] = result.usage.cache_read_input_tokens
        attributes["gen_ai.usage.cache_write.input_tokens"] = written
        attributes["gen_ai.usage.cache_creation.input_tokens"] = written
    return attributes


def _turn_answer(result: AgentResult, turn: Turn) -> Dict[str, Any]:
    """As `_answer`, of one turn."""
    of_turn = AgentResult(
        result.agent_name,
        turn.error is None,
        model=result.model,
        usage=turn.usage,
        cached=turn.cached,
        shared=turn.shared,
        stop_reason=turn.stop_reason,
        request_id=turn.request_id,
    )
    return _answer(of_turn)


def _part(text: str) -> Dict[str, str]:
    return {"type": "text", "content": text}


def _number(value: Any) -> Optional[float]:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _without_none(values: Dict[str, Any]) -> Attributes:
    return {
        name: encodable(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }
