"""A call in the words of OpenTelemetry's conventions for generative AI. Pure; needs nothing of OpenTelemetry.

Source: the GenAI semantic conventions, github.com/open-telemetry/semantic-conventions-genai. Where they have
renamed something that backends still look for (`gen_ai.system`, `cache_creation`), both names are given.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Optional, Sequence, Tuple, Union
from urllib.parse import urlsplit

from ..transport.error_mapping import redact
from ..types import AgentResult, Call, CallCompleted

Attributes = Dict[str, Union[str, bool, int, float, Sequence[str]]]

# Seconds of a whole call, seconds of one request, tokens: the bounds that the conventions ask for.
CALL_BUCKETS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)
REQUEST_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = tuple(4**power for power in range(14))

_PORTS = {"http": 80, "https": 443}
_NUMBERS = ("temperature", "top_p", "top_k")
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "tool_use": "tool_call",
}


def source(result: AgentResult) -> str:
    """Where the answer came, or was to come from: "model", "cache" or "shared" (another's identical call)."""
    return "cache" if result.cached else "shared" if result.shared else "model"


def server(base_url: Optional[str]) -> Attributes:
    """The endpoint's host and port; empty where it is not known."""
    parts = urlsplit(base_url or "")
    if not parts.hostname:
        return {}
    port = parts.port or _PORTS.get(parts.scheme)
    return _known({"server.address": parts.hostname, "server.port": port})


def of_call(executed: CallCompleted) -> Attributes:
    """What is known of a call before its answer."""
    call = executed.call
    return _known(
        {
            **_request("invoke_agent", call),
            "claude_force.workflow.name": executed.workflow_name,
            "claude_force.workflow.position": executed.workflow_position,
        }
    )


def of_attempt(executed: CallCompleted, number: int, endpoint: Attributes) -> Attributes:
    """One request of a call and what it came to; `number` counts from 1.

    The answer, or the status of the error, is that of the last.
    """
    result = executed.result
    last, error = number == len(result.timeline), result.timeline[number - 1].error
    told = {
        **_request("chat", executed.call),
        **endpoint,
        "claude_force.attempt": number,
        "error.type": error,
    }
    if last and error is None:
        told.update(_answer(result))
    elif last:
        told["http.response.status_code"] = getattr(result.error, "status", None)
    return _known(told)


def of_result(result: AgentResult) -> Attributes:
    """What a call came to."""
    return _known(
        {
            **_answer(result),
            "error.type": type(result.error).__name__ if result.error else None,
            "claude_force.source": source(result),
            "claude_force.attempts": result.attempts,
            "claude_force.wait": result.wait,
            "claude_force.cost": result.cost,
            "claude_force.saved_cost": result.saved_cost,
            "claude_force.cache.age": result.cache_age,
        }
    )


def of_content(executed: CallCompleted) -> Attributes:
    """The system prompt, the task and the answer, as JSON in the conventions' form."""
    call, result = executed.call, executed.result
    told: Dict[str, Any] = {
        "gen_ai.system_instructions": [_part(text) for text in call.system],
        "gen_ai.input.messages": [{"role": "user", "parts": [_part(call.task)]}],
    }
    if result.success:
        reason = result.stop_reason or ""
        told["gen_ai.output.messages"] = [
            {
                "role": "assistant",
                "parts": [_part(result.output)],
                "finish_reason": _FINISH.get(reason, reason),
            }
        ]
    return {name: sendable(json.dumps(value, ensure_ascii=False)) for name, value in told.items()}


def of_measure(executed: CallCompleted) -> Attributes:
    """What figures of a call are told apart by: few values each."""
    result = executed.result
    return _known(
        {
            "gen_ai.agent.name": executed.call.agent_name,
            "gen_ai.request.model": executed.call.model,
            "claude_force.source": source(result),
            "claude_force.workflow.name": executed.workflow_name,
            "error.type": type(result.error).__name__ if result.error else None,
        }
    )


def of_request_measure(executed: CallCompleted, endpoint: Attributes, error: Optional[str]) -> Attributes:
    """What figures of a request are told apart by; `error` is the type of what it met."""
    return _known(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.agent.name": executed.call.agent_name,
            "gen_ai.request.model": executed.call.model,
            "gen_ai.response.model": None if error else executed.result.model,
            "error.type": error,
            **endpoint,
        }
    )


def tokens(result: AgentResult) -> Tuple[Tuple[str, int], ...]:
    """Those that an answer used, by their type; none for one that was not made for this call."""
    if not result.success or source(result) != "model":
        return ()
    return ("input", result.usage.prompt_tokens), ("output", result.usage.output_tokens)


def description(result: AgentResult) -> str:
    """What went wrong, without secrets."""
    return sendable(redact(str(result.error)))


def sendable(text: str) -> str:
    """`text` as UTF-8 can carry it: half a character would cost the whole batch that it is exported with."""
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
        "gen_ai.request.stop_sequences": [sendable(str(stop)) for stop in stops] if stops else None,
        **numbers,
    }


def _answer(result: AgentResult) -> Dict[str, Any]:
    """Tokens only where the answer was made for this call, so that a sum over all calls is what was used."""
    told: Dict[str, Any] = {"anthropic.request.id": result.request_id}
    if result.success:
        reason = result.stop_reason
        told.update({"gen_ai.response.model": result.model})
        told.update({"gen_ai.response.finish_reasons": [sendable(reason)] if reason else None})
    for kind, count in tokens(result):
        told[f"gen_ai.usage.{kind}_tokens"] = count
    if tokens(result):
        written = result.usage.cache_creation_input_tokens
        told["gen_ai.usage.cache_read.input_tokens"] = result.usage.cache_read_input_tokens
        told["gen_ai.usage.cache_write.input_tokens"] = written
        told["gen_ai.usage.cache_creation.input_tokens"] = written
    return told


def _part(text: str) -> Dict[str, str]:
    return {"type": "text", "content": text}


def _number(value: Any) -> Optional[float]:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _known(values: Dict[str, Any]) -> Attributes:
    return {
        name: sendable(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }
