"""A call as the cache knows it: what identifies its answer, and the reply that a kept answer makes. Pure."""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple, Optional, Tuple

from ..errors import InvalidOptionError
from ..types import Call, Reply, Usage
from .service import Service

USE, REFRESH, OFF = "use", "refresh", "off"
_POLICIES = (USE, REFRESH, OFF)


class Asked(NamedTuple):
    """What identifies an answer, as the cache takes it."""

    agent: str
    task: str
    model: str
    fingerprint: Dict[str, str]

    def key(self) -> Tuple[Any, ...]:
        return (*self[:3], *sorted(self.fingerprint.items()))


def check_policy(policy: str) -> None:
    """Raises InvalidOptionError for anything but `use`, `refresh` and `off`."""
    if policy not in _POLICIES:
        raise InvalidOptionError(f"cache is {policy!r}; choose one of {', '.join(_POLICIES)}.")


def asked(call: Call, service: Service) -> Optional[Asked]:
    """All that changes the answer to `call`; None where an option has no written form to compare."""
    try:
        options = json.dumps(dict(call.options), sort_keys=True)
    except (TypeError, ValueError):
        return None
    definition, *contract = call.system or ("",)
    fingerprint = {
        "definition": definition,
        "contract": "\n".join(contract),
        "max_tokens": str(call.max_tokens),
        "options": options,
        **dict(service),
    }
    return Asked(call.agent_name, call.task, call.model, fingerprint)


def kept_reply(hit: Optional[Dict[str, Any]], model: str) -> Optional[Reply]:
    """What `ResponseCache.get` found, as a reply; `model` is the one that was asked."""
    if hit is None:
        return None
    usage = hit.get("usage")
    return Reply(
        text=hit["response"],
        model=hit.get("model", model),
        usage=Usage(**usage) if usage else Usage(hit["input_tokens"], hit["output_tokens"]),
        stop_reason=hit.get("stop_reason"),
        request_id=hit.get("request_id"),
        attempts=0,
        cost=0.0,
        saved_cost=hit["estimated_cost"],
        cached=True,
        cache_age=hit["cache_age_seconds"],
    )
