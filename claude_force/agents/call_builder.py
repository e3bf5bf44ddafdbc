"""Builds a call from the caller's arguments, the agent's file, the environment and the defaults."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from .. import settings
from ..agent_types import Agent
from ..errors import ConfigurationError, InputError, InvalidTaskError
from ..lazy_pattern import pattern
from ..types import Call
from .commands import render
from .models import (
    LONG_CONTEXT_BETA,
    ModelChoice,
    betas_of,
    choose_model,
    default_max_tokens,
    inherits_model,
    model_id,
    takes_effort,
    warn_if_retired,
)
from .names import check_task, is_agent_name
from .registry import Registry


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
    """Builds a call. Arguments that are not given come from the agent's file, the environment or defaults.

    `is_composed`: the task was assembled from answers and files; its length is checked elsewhere.

    Raises InputError. Does not check whether the API accepts the options.
    """
    agent = registry.get(agent_name)
    check_task(task, is_composed)
    choice = _choice(agent, model)
    chosen = model_id(choice)
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


def _choice(agent: Agent, model: Optional[str]) -> ModelChoice:
    if agent.wrong_model is not None and inherits_model(model):
        raise ConfigurationError(
            f"Agent '{agent.name}' can't be used: its model is {agent.wrong_model!r:.60}, which can't be the "
            f"name of a model. Write one id or alias in {agent.file}, or give the call a model."
        )
    return choose_model(model, agent.model)


def _add(options: Dict[str, Any], name: str, **fields: Any) -> None:
    """Adds fields to an option that is an object; the caller's fields win."""
    given = options.get(name)
    if given is None or isinstance(given, dict):
        options[name] = {**fields, **(given or {})}


class CallRefusals:
    """Checks calls against the agents that exist at the time it is created.

    Raises ConfigurationError as `Registry` does.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry, self._names = registry, registry.names()

    def kind(self, agent_name: str, task: str) -> Optional[str]:
        """Returns why the call can't be made, in words that all such calls share; None if it can."""
        if agent_name not in self._names:
            return "an unknown agent" if is_agent_name(agent_name) else "an invalid agent name"
        try:
            check_task(task)
        except InvalidTaskError:
            if len(task) > settings.MAX_TASK_CHARACTERS:
                return "a task that is too long"
            return "a task that is not valid Unicode" if task.strip() else "an empty task"
        return None

    def reason(self, agent_name: str, task: str) -> str:
        """Returns the full message for a call that `kind` refuses, with suggestions."""
        try:
            self._registry.get(agent_name)
            check_task(task)
        except InputError as error:
            return str(error)
        return "its agent did not exist a moment ago"


# Context sizes: the API's page "Context windows".
_CONTEXT_TOKENS, _LONG_CONTEXT_TOKENS = 200_000, 1_000_000
# Models with the smaller context unless a beta header asks for the larger one.
_SMALL = pattern(r"claude-(?:\d|instant|[a-z]+-4(?:-[0-5])?(?:-\d{8})?$)")
# Text has fewer characters per token, so the API would refuse these too.
_MOST_CHARACTERS_PER_TOKEN = 5


def context_tokens(model: str, options: Mapping[str, Any]) -> Optional[int]:
    """Returns a model's context size in tokens; None if unknown."""
    if not model.startswith("claude-"):
        return None
    headers = options.get("extra_headers") or {}
    is_long = LONG_CONTEXT_BETA in str(headers.get("anthropic-beta", ""))
    return _LONG_CONTEXT_TOKENS if is_long or not _SMALL.match(model) else _CONTEXT_TOKENS


def check_context(call: Call) -> None:
    """Raises InvalidTaskError if a task over the caller's limit and its answer exceed the model's context."""
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
