"""Reads every source of agents and settles which of them wins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ..errors import ConfigurationError
from ..types import Agent
from .config import AgentEntry, Config, load_config
from .definition import Definition, read_definition
from .discovery import Sources
from .files import Stamp, read_text, resolve_inside, stamp
from .names import slug

_NOT_YAML = (
    "its front matter is no plain YAML and was read line by line; put a value that holds ': ' in quotes"
)


class Problem(NamedTuple):
    """What is wrong with a file or an entry, and its mend."""

    name: str
    file: str
    reason: str


class Loaded:
    """One reading of all sources.

    `problems` are what can't be an agent, `remarks` what became one all the same. `stamps` tell when it is
    out of date: `shared` are the paths that concern every agent (the folders and claude.json), `files` the
    ones that concern one agent.
    """

    def __init__(self) -> None:
        self.agents: Dict[str, Agent] = {}
        self.titles: Dict[str, str] = {}
        self.workflows: Dict[str, Any] = {}
        self.problems: List[Problem] = []
        self.remarks: List[Problem] = []
        self.stamps: Dict[Path, Stamp] = {}
        self.shared: List[Path] = []
        self.files: Dict[str, Tuple[Path, ...]] = {}
        self._watched: Dict[str, List[Tuple[str, Stamp]]] = {}

    def is_current(self, name: str) -> bool:
        """Whether all is unchanged that could make the agent of this name another one."""
        watched = self._watched.get(name)
        if watched is None:
            # As text: it is asked for at each call, and a Path takes longer to look up than to stat.
            paths = (*self.shared, *self.files[name])
            watched = self._watched[name] = [(str(path), self.stamps[path]) for path in paths]
        return all(stamp(path) == was for path, was in watched)

    def find(self, name: object) -> Optional[Agent]:
        if not isinstance(name, str):
            return None
        return self.agents.get(name) or self.agents.get(self.titles.get(name, ""))

    def problem_of(self, name: str) -> Optional[Problem]:
        return next((one for one in self.problems if one.name == name), None)

    def watch(self, path: Path) -> None:
        """To be called before the reading: what changes meanwhile is then read again."""
        self.stamps.setdefault(path, stamp(path))

    def share(self, path: Path) -> None:
        """As `watch`, for a path that concerns every agent."""
        self.watch(path)
        self.shared.append(path)

    def add(self, agent: Agent, *paths: Path) -> None:
        self.agents[agent.name] = agent
        self.files[agent.name] = paths
        self.titles.setdefault(agent.title, agent.name)


def load_sources(sources: Sources) -> Loaded:
    """Raises ConfigurationError for a claude.json that can't be read; an agent's fault is its problem."""
    loaded = Loaded()
    loaded.share(sources.config)
    config = load_config(sources.config) if sources.config.exists() else Config({}, {})
    loaded.workflows = config.workflows
    claimed = {_add_entry(loaded, sources.folder, name, entry) for name, entry in config.agents.items()}
    # An entry may use a file of the agents folder under a name of its own: that file is its alone.
    used = {sources.folder / entry.file for entry in config.agents.values()}
    _add_folder(loaded, sources.folder, claimed, used)
    if sources.user.absolute() != sources.folder.absolute():
        _add_folder(loaded, sources.user, claimed | set(loaded.agents), set())
    return loaded


def _add_entry(loaded: Loaded, folder: Path, name: str, entry: AgentEntry) -> str:
    """The slug that the entry claims, whether or not its files can be used."""
    own = slug(name)
    try:
        if entry.problem:
            raise ConfigurationError(entry.problem)
        if not own:
            raise ConfigurationError("its name has no letter or digit; add one")
        if own in loaded.agents:
            other = loaded.agents[own].title
            raise ConfigurationError(f"its name is read as '{own}', which '{other}' has; rename one")
        definition = _read_agent(loaded, folder, entry.file)
        _check(definition)
        contract = None if entry.contract is None else _read_contract(loaded, folder, entry.contract)
    except ConfigurationError as error:
        loaded.problems.append(Problem(name, entry.file or "claude.json", str(error)))
        return own
    loaded.add(
        Agent(
            name=own,
            definition=definition.body,
            file=entry.file,
            contract=contract,
            contract_file=entry.contract,
            description=definition.text("description"),
            model=definition.text("model") or None,
            domains=entry.domains,
            priority=entry.priority,
            title=name,
        ),
        *(folder / one for one in (entry.file, entry.contract) if one is not None),
    )
    return own


def _read_contract(loaded: Loaded, folder: Path, file: str) -> Optional[str]:
    loaded.watch(folder / file)
    text = read_text(resolve_inside(folder, file))
    return text if text.strip() else None


def _read_agent(loaded: Loaded, folder: Path, file: str) -> Definition:
    # The path as it is spelled: a link that comes to point elsewhere is a change too.
    loaded.watch(folder / file)
    definition = read_definition(read_text(resolve_inside(folder, file)))
    if not definition.is_yaml:
        loaded.remarks.append(Problem(Path(file).stem, file, _NOT_YAML))
    return definition


def _check(definition: Definition) -> None:
    if definition.problem:
        raise ConfigurationError(definition.problem)
    if not definition.body.strip():
        raise ConfigurationError("it has no instructions; write them below the front matter")


def _add_folder(loaded: Loaded, folder: Path, claimed: Set[str], used: Set[Path]) -> None:
    """Adds the folder's front-matter agents whose names and files no stronger source has."""
    seen: Dict[str, str] = {}
    for path in _markdown_files(loaded, folder / "agents"):
        file = path.relative_to(folder).as_posix()
        if path in used:
            continue
        agent = _front_matter_agent(loaded, folder, path, file)
        if agent is None or agent.name in claimed:
            continue
        if agent.name in seen:
            reason = f"its name '{agent.name}' is taken by {seen[agent.name]}; rename one"
            loaded.problems.append(Problem(agent.title, file, reason))
            continue
        seen[agent.name] = file
        loaded.add(agent, path)


def _front_matter_agent(loaded: Loaded, folder: Path, path: Path, file: str) -> Optional[Agent]:
    title = path.stem
    try:
        definition = _read_agent(loaded, folder, file)
        title = definition.text("name") or title
        _check(definition)
        if not definition.fields and path.name.lower() == "readme.md":
            raise ConfigurationError(
                "it has no front matter and is taken for notes; an agent's begins with '---'"
            )
        if not slug(title):
            raise ConfigurationError("its name has no letter or digit; add one")
    except ConfigurationError as error:
        loaded.problems.append(Problem(title, file, str(error)))
        return None
    return Agent(
        name=slug(title),
        definition=definition.body,
        file=file,
        description=definition.text("description"),
        model=definition.text("model") or None,
        title=title,
    )


def _markdown_files(loaded: Loaded, folder: Path) -> Iterator[Path]:
    loaded.share(folder)
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if Path(parent) != folder:
            loaded.share(Path(parent))
        for name in sorted(files):
            if name.lower().endswith(".md"):
                yield Path(parent) / name
