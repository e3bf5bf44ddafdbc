"""What is known of an agent, for people and programs that look at it."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ..agent_types import Agent
from ..errors import InvalidOptionError
from .front_matter_keys import AGENT, COMMAND, SHOWN, keys_of, unused
from .models import choose_model, model_id, takes_effort


def listed_fields(agent: Agent) -> Dict[str, Any]:
    """The four fields of the old package, and what tells the agent from others."""
    return {
        "name": agent.name,
        "file": agent.file,
        "domains": list(agent.domains),
        "priority": agent.priority,
        "model": model_for(agent),
        "model_as_written": written_model(agent),
        "description": agent.description,
        "tools": None if agent.settings.tools is None else list(agent.settings.tools),
        "skills": list(agent.settings.skills),
        "source": agent.source,
        "kind": kind_of(agent),
    }


def all_fields(agent: Agent) -> Dict[str, Any]:
    """As `listed_fields`, with its contract and everything that its front matter sets.

    `not_used` has the keys of its front matter without an effect here, each with what it would have meant.
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
    """Either "agent" or "command"."""
    return COMMAND if agent.is_command else AGENT


def model_for(agent: Agent) -> Optional[str]:
    """The model that a call without one of its own is sent to; None where that can't be called."""
    if agent.wrong_model is not None:
        return None
    try:
        return model_id(choose_model(None, agent.model))
    except InvalidOptionError:
        # Of the environment, which is at fault for all agents and is told when it is used.
        return None


def written_model(agent: Agent) -> Optional[str]:
    """What its file has as the model."""
    return agent.model if agent.wrong_model is None else agent.wrong_model


def argument_hint(agent: Agent) -> Optional[str]:
    """What a command says of its arguments. YAML reads `[pr] [priority]` as a list."""
    hint = agent.front_matter.get("argument-hint")
    if isinstance(hint, (list, tuple)):
        return " ".join(f"[{one}]" for one in hint)
    return None if hint is None else str(hint)


def unused_keys(agent: Agent) -> Dict[str, str]:
    """The keys of its front matter without an effect here, each with what it would have meant."""
    found = {name: key.meaning for name, key in unused(agent.front_matter, kind_of(agent))}
    if not effort_is_sent(agent):
        found["effort"] = f"{model_for(agent)} is not known to have levels of effort"
    return found


def effort_is_sent(agent: Agent) -> bool:
    """False where its file asks for an effort that its model is not known to take."""
    model = model_for(agent)
    return agent.settings.effort is None or model is None or takes_effort(model)


def changes_the_work(name: str, kind: str) -> bool:
    """Whether an agent works otherwise for want of this key."""
    key = keys_of(kind).get(name)
    return key is None or key.use != SHOWN
