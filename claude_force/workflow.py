"""Workflows: what runs after what, what each agent is told, and a runner over any async `run`."""

from __future__ import annotations

from typing import Any, AsyncIterator, Awaitable, Callable, Sequence, Tuple

from .errors import InputError
from .results import Run, failed
from .types import AgentResult

# An agent, its task and its place, counted from 1.
RunStep = Callable[[str, str, int], Awaitable[AgentResult]]


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


async def run_in_turn(
    name: str, agents: Sequence[str], task: str, pass_output_to_next: bool, run: RunStep
) -> AsyncIterator[AgentResult]:
    """The agents' results, one after the other, up to the first that fails."""
    given = task
    for position, agent in enumerate(agents, start=1):
        try:
            result = await run(agent, given, position)
        except InputError as error:
            # An answer can make the next task too long: by then earlier steps are paid for.
            result = failed(Run(agent, name, position), error, None, 0.0)
        yield result
        if not result.success:
            return
        given = hand_over(task, agent, result.output) if pass_output_to_next else task
