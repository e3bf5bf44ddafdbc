"""From what a caller says to the call that it means: the agent, the task, the model, the options."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ..errors import ConfigurationError
from ..types import Agent, Call
from .commands import render
from .models import Choice, betas_of, choose, is_open, model_of, takes_effort, warn_if_retired
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
    is_composed: bool = False,
    **options: Any,
) -> Call:
    """What is not given is as the agent's file says, then as the environment or the defaults do.

    `is_composed`: the task is put together of answers and files, and not bounded here.

    Raises InputError. Whether the API takes the options is for others to say.
    """
    agent = registry.get(agent_name)
    check_task(task, is_composed)
    choice = _choice(agent, model)
    chosen = model_of(choice)
    warn_if_retired(chosen)
    if temperature is None:
        temperature = agent.settings.temperature
    if temperature is not None:
        options["temperature"] = temperature
    if agent.settings.effort is not None and takes_effort(chosen):
        _add(options, "output_config", effort=agent.settings.effort)
    for beta in betas_of(choice, chosen):
        _add(options, "extra_headers", **{"anthropic-beta": beta})
    if max_tokens is None:
        max_tokens = agent.settings.max_tokens or default_max_tokens(chosen, options)
    if not agent.is_command:
        return Call(agent.name, agent.system, task, chosen, max_tokens, options, cache_ttl)
    message = render(agent.definition, task)
    return Call(agent.name, agent.system, message, chosen, max_tokens, options, cache_ttl, arguments=task)


def _choice(agent: Agent, model: Optional[str]) -> Choice:
    if agent.wrong_model is not None and is_open(model):
        raise ConfigurationError(
            f"Agent '{agent.name}' can't be used: its model is {agent.wrong_model!r:.60}, which can't be the "
            f"name of a model. Write one id or alias in {agent.file}, or give the call a model."
        )
    return choose(model, agent.model)


def _add(options: Dict[str, Any], name: str, **fields: Any) -> None:
    """Adds fields to an option that is an object; those that the caller gave stay."""
    given = options.get(name)
    if given is None or isinstance(given, dict):
        options[name] = {**fields, **(given or {})}
