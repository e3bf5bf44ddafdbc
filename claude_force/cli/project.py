"""`list` and `info`: what the project's files hold. Neither needs the SDK."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from .. import settings
from ..agents import Registry, all_fields, listed_fields
from ..agents.agent_settings import NOTE
from ..agents.names import suggest
from ..errors import AgentNotFoundError, InputError, InvalidAgentNameError
from ..formatting import pluralize
from ..storage.private_files import PRIVATE_FOLDER, PUBLIC_FILE, PUBLIC_FOLDER, Folder
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
    close = suggest(name, workflows)
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


SAMPLES = Path(__file__).parent / "samples"


def init(args: argparse.Namespace) -> int:
    """Returns 0. Raises InputError where nothing can be written, ConfigurationError for a broken file."""
    project = Path(args.folder or ".").resolve()
    try:
        is_folder = project.is_dir()
    except OSError as error:
        raise InputError(f"{project} can't be used: {error.strerror}.") from error
    if not is_folder:
        raise InputError(f"{project} is no folder: make it first, or name another one.")
    registry = Registry(start=project)
    needed = not (_serves(registry.folder, project) and registry.list_agents())
    written = dict(_write(project)) if needed else {}
    _report(args, _fields(Registry(start=project), needed, written))
    return 0


def _serves(folder: Path, project: Path) -> bool:
    """Whether this `.claude` folder is the project's, and not the user's own, which serves everywhere."""
    if folder.parent == settings.user_folder().parent:
        return project == settings.user_folder().parent
    return folder.parent in (project, *project.parents)


def _write(project: Path) -> Iterator[Tuple[str, bool]]:
    """The path of each sample, and whether it was written now: what is there already stays as it is."""
    # The user's own folder is for nobody else; a project's is as its other folders are.
    mode = PRIVATE_FOLDER if project == settings.user_folder().parent else PUBLIC_FOLDER
    for sample in sorted(path for path in SAMPLES.rglob("*") if path.is_file()):
        target = project / ".claude" / sample.relative_to(SAMPLES)
        try:
            with Folder(target.parent, project, make=True, mode=mode) as folder, os.fdopen(
                folder.open(target.name, os.O_EXCL, PUBLIC_FILE), "wb"
            ) as file:
                file.write(sample.read_bytes())
        except FileExistsError:
            yield str(target), False
        except OSError as error:
            raise InputError(f"{target} can't be written: {error.strerror}.") from error
        else:
            yield str(target), True


def _fields(registry: Registry, needed: bool, written: Dict[str, bool]) -> Dict[str, Any]:
    agents = [agent["name"] for agent in registry.list_agents()]
    return {
        "needed": needed,
        "folder": str(registry.folder),
        "made": [path for path, is_new in written.items() if is_new],
        "kept": [path for path, is_new in written.items() if not is_new],
        "agents": agents,
        "workflows": list(registry.list_workflows()),
        "next": _next_command(agents),
    }


def _next_command(agents: List[str]) -> str:
    return f'claude-force run agent {agents[0]} --task "..."' if agents else "claude-force doctor"


def _report(args: argparse.Namespace, fields: Dict[str, Any]) -> None:
    if args.json:
        streams.as_json(fields)
        return
    if not fields["needed"]:
        streams.write(
            f"{fields['folder']} has {pluralize(len(fields['agents']), 'agent')}: nothing is needed"
        )
    for what in ("made", "kept"):
        for path in fields[what]:
            streams.write(f"{what} {path}")
    streams.write(f"next: {fields['next']}")
