"""Describes agents for `list`, `info` and `doctor`."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ..agent_types import Agent
from ..errors import InvalidOptionError
from .front_matter_keys import AGENT, COMMAND, SHOWN, keys_of, unused
from .models import choose_model, model_id, takes_effort


def listed_fields(agent: Agent) -> Dict[str, Any]:
    """Returns the fields of `list agents --json`; the first four are those of version 1.x."""
    return {
        "name": agent.name,
        "file": agent.file,
        "domains": list(agent.domains),
        "priority": agent.priority,
        "model": model_for(agent),
        "model_as_written": agent.model if agent.wrong_model is None else agent.wrong_model,
        "description": agent.description,
        "tools": None if agent.settings.tools is None else list(agent.settings.tools),
        "skills": list(agent.settings.skills),
        "source": agent.source,
        "kind": kind_of(agent),
    }


def all_fields(agent: Agent) -> Dict[str, Any]:
    """Returns `listed_fields` plus the contract and everything set in front matter.

    `not_used` has the front matter keys without effect here, each with its meaning.
    """
    settings = agent.settings
    return {
        **listed_fields(agent),
        "contract": agent.contract_file,
        "disallowed_tools": list(settings.disallowed_tools),
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "effort": settings.effort,
        "argument_hint": argument_hint(agent),
        "not_used": unused_keys(agent),
    }


def kind_of(agent: Agent) -> str:
    """Returns "agent" or "command"."""
    return COMMAND if agent.is_command else AGENT


def model_for(agent: Agent) -> Optional[str]:
    """Returns the model used when a call names none; None if it can't be called."""
    if agent.wrong_model is not None:
        return None
    try:
        return model_id(choose_model(None, agent.model))
    except InvalidOptionError:
        # The environment is wrong for all agents; the first call reports it.
        return None


def argument_hint(agent: Agent) -> Optional[str]:
    """Returns a command's argument hint. YAML reads `[pr] [priority]` as a list."""
    hint = agent.front_matter.get("argument-hint")
    if isinstance(hint, (list, tuple)):
        return " ".join(f"[{one}]" for one in hint)
    return None if hint is None else str(hint)


def unused_keys(agent: Agent) -> Dict[str, str]:
    """Returns the front matter keys without effect here, each with its meaning."""
    found = {name: key.meaning for name, key in unused(agent.front_matter, kind_of(agent))}
    if not effort_is_sent(agent):
        found["effort"] = f"{model_for(agent)} is not known to accept an effort level"
    return found


def effort_is_sent(agent: Agent) -> bool:
    """Returns False if its file sets an effort that its model is not known to accept."""
    model = model_for(agent)
    return agent.settings.effort is None or model is None or takes_effort(model)


def changes_the_work(name: str, kind: str) -> bool:
    """Whether ignoring this key changes how the agent works."""
    key = keys_of(kind).get(name)
    return key is None or key.use != SHOWN
