"""An execution as its line of JSON, an `Entry` without the detour over one. Pure."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite
from typing import Any, List, Optional

from ..types import Attempt, Call, CallCompleted, Usage

_NO_USAGE = Usage()
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def line_of_execution(executed: CallCompleted, run: str) -> str:
    """ASCII, without its newline.

    Written piece by piece, as each call has one: by way of a dict and the encoder it takes longer.
    """
    call, result = executed.call, executed.result
    usage = _NO_USAGE if result.cached or result.shared else result.usage
    prompt, service, duration = usage.prompt_tokens, result.service, result.duration
    line = (
        # Not as the caller spelt it: an agent that has two spellings is one.
        f'{{"timestamp":"{_iso(executed.started + duration)}","agent_name":{_quoted(call.agent_name)},'
        f'"task_hash":"{_hash(call)}","success":{_truth(result.success)},'
        f'"execution_time_ms":{duration * 1000:.3f},"model":{_text(result.model or call.model)},'
        f'"input_tokens":{prompt:d},"output_tokens":{usage.output_tokens:d},'
        f'"total_tokens":{prompt + usage.output_tokens:d},"estimated_cost":{_value(result.cost)},'
        f'"error_type":{_text(type(result.error).__name__ if result.error else None)},'
        f'"workflow_name":{_value(executed.workflow_name)},'
        f'"workflow_position":{_value(executed.workflow_position)},"run":"{run}",'
        f'"attempts":{result.attempts:d},"wait_ms":{max(0.0, duration - service) * 1000:.3f},'
        f'"service_time_ms":{service * 1000:.3f}'
    )
    return f"{line}{''.join(_more(executed, usage))}}}"


def _more(executed: CallCompleted, usage: Usage) -> List[str]:
    """The fields that are left out where they have their default, which is a third of the text."""
    result, more = executed.result, []
    if result.cached:
        more.append(',"cached":true')
    if result.shared:
        more.append(',"shared":true')
    if not result.success or result.truncated:
        more += [f',"{name}":true' for name in ("truncated", "refused", "empty") if getattr(result, name)]
    if result.cost is None and result.cost_at_most != 0:
        more.append(f',"cost_at_most":{_value(result.cost_at_most)}')
    if usage.cache_read_input_tokens:
        more.append(f',"cache_read_tokens":{usage.cache_read_input_tokens:d}')
    if usage.cache_creation_input_tokens:
        more.append(f',"cache_write_tokens":{usage.cache_creation_input_tokens:d}')
    for name, text in (("stop_reason", result.stop_reason), ("request_id", result.request_id)):
        if text is not None:
            more.append(f',"{name}":{_quoted(text)}')
    status = getattr(result.error, "status", None)
    for name, value in (
        ("status", status),
        ("saved_cost", result.saved_cost),
        ("prompt_cache_saving", result.prompt_cache_saving),
    ):
        if value is not None:
            more.append(f',"{name}":{_value(value)}')
    if result.timeline:
        more.append(f',"timeline":[{",".join([_trip(one) for one in result.timeline])}]')
    return more


def _trip(attempt: Attempt) -> str:
    return (
        f"[{attempt.began * 1000:.3f},{attempt.ended * 1000:.3f},{attempt.window:d},{_text(attempt.error)}]"
    )


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _text(value: Optional[str]) -> str:
    return "null" if value is None else _quoted(value)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if type(value) is float:
        # JSON has no other; the line could not be read.
        return repr(value) if isfinite(value) else "null"
    return _encode(value)


def _hash(call: Call) -> str:
    return sha256(call.task.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _iso(unix: float) -> str:
    return datetime.fromtimestamp(unix, timezone.utc).isoformat()
