"""Workflows: what runs after what, and what each agent is told. Pure."""

from __future__ import annotations

from typing import Any, Tuple

from .errors import InputError


def sequence(name: str, workflow: Any) -> Tuple[str, ...]:
    """The agents of a sequential workflow, first to last. Raises InputError for any other kind."""
    if not isinstance(workflow, (list, tuple)):
        raise InputError(
            f"Workflow '{name}' is a graph of steps; only a list of agents can be run. "
            'Write it in claude.json as ["first-agent", "second-agent"].'
        )
    if not workflow:
        raise InputError(f"Workflow '{name}' has no agents. Add at least one to its list in claude.json.")
    return tuple(str(agent) for agent in workflow)


def hand_over(task: str, agent_name: str, answer: str) -> str:
    """The task for the next agent: the user's own, followed by what the agent before it answered."""
    return f'{task}\n\n<previous_answer agent="{agent_name}">\n{answer}\n</previous_answer>'
