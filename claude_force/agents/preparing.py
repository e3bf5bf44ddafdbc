"""From what a caller says to the call that it means: the agent, the task as it is, the model."""

from __future__ import annotations

from typing import Any, Optional

from ..types import Call
from .models import resolve_model, warn_if_retired
from .names import check_task
from .registry import Registry
from .thinking import default_max_tokens


def prepare_call(
    registry: Registry,
    agent_name: str,
    task: str,
    model: Optional[str] = None,
    max_tokens: Optional[int] = None,
    temperature: Optional[float] = None,
    cache_ttl: str = "5m",
    **options: Any,
) -> Call:
    """Raises InputError. Whether the API takes the options is for others to say."""
    agent = registry.get(agent_name)
    check_task(task)
    chosen = resolve_model(call=model, agent=agent.model)
    warn_if_retired(chosen)
    if temperature is not None:
        options["temperature"] = temperature
    most = default_max_tokens(chosen, options) if max_tokens is None else max_tokens
    return Call(agent.name, agent.system, task, chosen, most, options, cache_ttl)
