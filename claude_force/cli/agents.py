"""`list` and `info`: what the project's files hold. Neither needs the SDK."""

from __future__ import annotations

import argparse
from typing import Any, Dict, List

from ..agents import Registry, all_fields, listed_fields
from ..agents.building import NOTE
from ..agents.names import nearest
from ..errors import AgentNotFoundError, InvalidAgentNameError
from ..formatting import pluralize
from . import render, streams


def show_list(args: argparse.Namespace) -> int:
    """Lists agents or workflows; files that could not become an agent are named on stderr."""
    registry = Registry(args.config)
    if args.what == "agents":
        found = [listed_fields(agent) for agent in registry.agents()]
        render.agents(found, args.json)
        if not found:
            streams.status(
                "there are no agents here; put one in .claude/agents/NAME.md, or run claude-force init"
            )
    else:
        workflows = registry.list_workflows()
        render.workflows(workflows, args.json)
        if not workflows:
            streams.status('there are no workflows here; write one under "workflows" in .claude/claude.json')
    for problem in registry.problems():
        if problem.state == NOTE:
            streams.status(f"{problem.file} is not an agent: {problem.reason}")
        else:
            streams.warn(f"{problem.name} ({problem.file}) could not be loaded: {problem.reason}")
    faults = sum(remark.state != NOTE for remark in registry.remarks())
    if faults and args.what == "agents":
        streams.status(f"{pluralize(faults, 'warning')}: run doctor")
    return 0


def show_info(args: argparse.Namespace) -> int:
    """An agent, or else a workflow of that name. Raises InvalidAgentNameError, AgentNotFoundError."""
    registry = Registry(args.config)
    workflows = registry.list_workflows()
    try:
        found = _agent_fields(registry, args.name)
    except (AgentNotFoundError, InvalidAgentNameError) as error:
        if args.name not in workflows:
            raise type(error)(f"{error}{_nearest_workflow(args.name, workflows)}") from None
        found = workflow_fields(args.name, workflows[args.name])
    if not args.json and found.get("tools", ()) is None:
        found["tools"] = "all"
    render.info(found, args.json)
    return 0


def _agent_fields(registry: Registry, name: str) -> Dict[str, Any]:
    agent = registry.get(name)
    remarks = [one.reason for one in registry.remarks() if (one.name, one.file) == (agent.title, agent.file)]
    return {**all_fields(agent), "remarks": remarks}


def _nearest_workflow(name: str, workflows: Dict[str, Any]) -> str:
    close = nearest(name, workflows)
    return f" Did you mean the workflow {' or '.join(close)}?" if close else ""


def workflow_fields(name: str, written: Any) -> Dict[str, Any]:
    """`name`, `description` and `steps`, each with the ids that it waits for, however it is written."""
    if isinstance(written, dict):
        steps = [step for step in written.get("steps") or () if isinstance(step, dict)]
        described = [_step(step.get("id"), step.get("agent"), step.get("dependencies")) for step in steps]
        return {"name": name, "description": written.get("description") or "", "steps": described}
    agents = written if isinstance(written, list) else []
    described = [
        _step(str(place), agent, [str(place - 1)] if place > 1 else [])
        for place, agent in enumerate(agents, 1)
    ]
    return {"name": name, "description": "", "steps": described}


def _step(identity: Any, agent: Any, after: Any) -> Dict[str, Any]:
    waits: List[str] = [str(one) for one in after] if isinstance(after, list) else []
    return {"id": str(identity), "agent": str(agent), "dependencies": waits}
