"""`init`, `list` and `info`: the agents and workflows of a project. None of them needs the SDK."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

from .. import settings
from ..agents import Registry, all_fields, listed_fields
from ..agents.agent_settings import NOTE
from ..agents.names import suggest
from ..errors import AgentNotFoundError, InputError, InvalidAgentNameError
from ..formatting import pluralize
from ..storage.private_files import PRIVATE_FOLDER, PUBLIC_FILE, PUBLIC_FOLDER, Folder
from . import render, streams

SAMPLES = Path(__file__).parent / "samples"

# Columns of a label in `info`, and characters of an agent's description in a table.
_LABEL_WIDTH, _MAX_DESCRIPTION = 17, 100


def show_list(args: argparse.Namespace) -> int:
    """Lists the agents or workflows; names files on stderr that could not be loaded as an agent."""
    registry = Registry(args.config)
    if args.what == "agents":
        _list_agents(registry, args.json)
    else:
        _list_workflows(registry, args.json)
    for problem in registry.problems():
        if problem.state == NOTE:
            streams.status(f"{problem.file} is not an agent: {problem.reason}")
        else:
            streams.warn(f"{problem.name} ({problem.file}) could not be loaded: {problem.reason}")
    faults = sum(remark.state != NOTE for remark in registry.remarks())
    if faults and args.what == "agents":
        streams.status(f"{pluralize(faults, 'warning')}: run doctor")
    return 0


def _list_agents(registry: Registry, as_json: bool) -> None:
    found = registry.agents()
    agents = [listed_fields(agent) for agent in found]
    if as_json:
        # Imported here: nothing else needs to know what tools are.
        from .agent_tools import AgentTools

        tools = AgentTools(registry)
        streams.write_json([{**fields, **tools.fields(one)} for fields, one in zip(agents, found)])
    elif streams.stdout_is_terminal():
        heads = ("agent", "model", "description", "file")
        rows = [(a["name"], a["model"] or "?", _shortened(a["description"]), a["file"]) for a in agents]
        without_file = heads[:-1], [row[:-1] for row in rows]
        # A broken name or path can't be copied, and `info` shows the file too.
        has_room = render.fits_names(heads, rows) or not render.fits_names(*without_file)
        render.show_table(*((heads, rows) if has_room else without_file))
    else:
        for agent in agents:
            cells = (agent["name"], agent["priority"], ",".join(agent["domains"]), agent["file"])
            streams.write_line("\t".join(map(streams.one_line, cells)))
    if not agents:
        streams.status(
            "there are no agents here; put one in .claude/agents/NAME.md, or run claude-force init"
        )


def _shortened(text: str) -> str:
    """Returns the first line of a description, which may have pages of examples."""
    line = text.strip().partition("\n")[0].partition("\\n")[0].strip()
    return line if len(line) <= _MAX_DESCRIPTION else line[: _MAX_DESCRIPTION - 3].rstrip() + "..."


def _list_workflows(registry: Registry, as_json: bool) -> None:
    workflows = registry.list_workflows()
    rows = [(name, _steps(value)) for name, value in workflows.items()]
    if as_json:
        streams.write_json(workflows)
    elif streams.stdout_is_terminal():
        render.show_table(("workflow", "steps"), rows)
    else:
        for name, steps in rows:
            streams.write_line(f"{streams.one_line(name)}\t{streams.one_line(steps)}")
    if not workflows:
        streams.status('there are no workflows here; write one under "workflows" in .claude/claude.json')


def _steps(workflow: Any) -> str:
    if isinstance(workflow, list):
        return " -> ".join(str(agent) for agent in workflow)
    steps = workflow.get("steps", []) if isinstance(workflow, dict) else []
    return f"a graph of {pluralize(len(steps), 'step')}"


def show_info(args: argparse.Namespace) -> int:
    """Shows an agent, or the workflow of that name. Raises InvalidAgentNameError, AgentNotFoundError."""
    registry = Registry(args.config)
    workflows = registry.list_workflows()
    try:
        fields = _agent_fields(registry, args.name, args.tools)
    except (AgentNotFoundError, InvalidAgentNameError) as error:
        if args.name not in workflows:
            raise type(error)(f"{error}{_nearest_workflow(args.name, workflows)}") from None
        fields = _workflow_fields(args.name, workflows[args.name])
    if args.json:
        streams.write_json(fields)
        return 0
    if fields.get("tools", ()) is None:
        fields["tools"] = "all"
    if "offered" in fields:
        fields["offered"] = {name: ", ".join(tools) or "none" for name, tools in fields["offered"].items()}
    for name, value in fields.items():
        streams.write_line(f"{name + ':':{_LABEL_WIDTH}} {_info_text(value) or '-'}")
    return 0


def _agent_fields(registry: Registry, name: str, grant: Optional[str]) -> Dict[str, Any]:
    from .agent_tools import AgentTools

    agent = registry.get(name)
    remarks = [one.reason for one in registry.remarks() if (one.name, one.file) == (agent.title, agent.file)]
    return {**all_fields(agent), **AgentTools(registry, grant).fields(agent), "remarks": remarks}


def _nearest_workflow(name: str, workflows: Dict[str, Any]) -> str:
    close = suggest(name, workflows)
    return f" Did you mean the workflow {' or '.join(close)}?" if close else ""


def _workflow_fields(name: str, workflow: Any) -> Dict[str, Any]:
    """Returns `name`, `description` and `steps`, each step with the ids of those that it waits for."""
    if isinstance(workflow, dict):
        steps = [step for step in workflow.get("steps") or () if isinstance(step, dict)]
        fields = [_step_fields(step.get("id"), step.get("agent"), step.get("dependencies")) for step in steps]
        return {"name": name, "description": workflow.get("description") or "", "steps": fields}
    agents = workflow if isinstance(workflow, list) else []
    fields = [
        _step_fields(number, agent, [number - 1] if number > 1 else [])
        for number, agent in enumerate(agents, 1)
    ]
    return {"name": name, "description": "", "steps": fields}


def _step_fields(step_id: Any, agent: Any, dependencies: Any) -> Dict[str, Any]:
    waits_for = [str(one) for one in dependencies] if isinstance(dependencies, list) else []
    return {"id": str(step_id), "agent": str(agent), "dependencies": waits_for}


def _info_text(value: Any) -> str:
    if isinstance(value, dict):
        lines = [f"{key}: {text}" for key, text in value.items()]
    elif not isinstance(value, list):
        lines = ["" if value is None else value]
    elif all(isinstance(one, dict) for one in value):
        lines = [_step_text(step) for step in value]
    else:
        lines = [", ".join(value)]
    return f"\n{'':{_LABEL_WIDTH}} ".join(map(streams.one_line, lines))


def _step_text(step: Dict[str, Any]) -> str:
    after = f" (after {', '.join(step['dependencies'])})" if step["dependencies"] else ""
    return f"{step['id']}. {step['agent']}{after}"


def init(args: argparse.Namespace) -> int:
    """Makes a `.claude` folder with sample agents, for a project without agents; keeps existing files.

    Returns 0. Raises InputError where nothing can be written, ConfigurationError for a broken claude.json.
    """
    project = Path(args.folder or ".").resolve()
    try:
        is_folder = project.is_dir()
    except OSError as error:
        raise InputError(f"{project} can't be used: {error.strerror}.") from error
    if not is_folder:
        raise InputError(f"{project} is not a folder: make it first, or name another one.")
    registry = Registry(start=project)
    needed = not (_serves(registry.folder, project) and registry.list_agents())
    written = dict(_write_samples(project)) if needed else {}
    _report_init(_init_fields(Registry(start=project), needed, written), args.json)
    return 0


def _serves(folder: Path, project: Path) -> bool:
    """Returns whether this `.claude` folder is the project's, not the user's own, which serves everywhere."""
    if folder.parent == settings.user_folder().parent:
        return project == settings.user_folder().parent
    return folder.parent in (project, *project.parents)


def _write_samples(project: Path) -> Iterator[Tuple[str, bool]]:
    """Yields the path of each sample, and whether it was written; an existing file stays as it is."""
    # The user's own folder is private; a project's has the modes of its other folders.
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


def _init_fields(registry: Registry, needed: bool, written: Dict[str, bool]) -> Dict[str, Any]:
    agents: Sequence[str] = [agent["name"] for agent in registry.list_agents()]
    command = f'claude-force run agent {agents[0]} --task "..."' if agents else "claude-force doctor"
    return {
        "needed": needed,
        "folder": str(registry.folder),
        "made": [path for path, is_new in written.items() if is_new],
        "kept": [path for path, is_new in written.items() if not is_new],
        "agents": agents,
        "workflows": list(registry.list_workflows()),
        "next": command,
    }


def _report_init(fields: Dict[str, Any], as_json: bool) -> None:
    if as_json:
        streams.write_json(fields)
        return
    if not fields["needed"]:
        streams.write_line(
            f"{fields['folder']} has {pluralize(len(fields['agents']), 'agent')}: nothing is needed"
        )
    for what in ("made", "kept"):
        for path in fields[what]:
            streams.write_line(f"{what} {path}")
    streams.write_line(f"next: {fields['next']}")
