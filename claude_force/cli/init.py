"""`init`: a `.claude` folder with sample agents, for a project that has none. What is there is kept."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from .. import settings
from ..agents import Registry
from ..errors import InputError
from ..formatting import pluralize
from ..storage.private_files import PRIVATE_FOLDER, PUBLIC_FILE, PUBLIC_FOLDER, Folder
from . import streams

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
