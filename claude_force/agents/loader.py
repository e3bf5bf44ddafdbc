"""Reads all sources of agents and applies their precedence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..agent_types import Agent
from ..errors import ConfigurationError
from ..storage.path_text import printable
from .agent_settings import NOTE, WARNING, find_faults, read_model, read_settings
from .config import AgentEntry, Config, load_config
from .definition import Definition
from .discovery import Sources
from .files import AgentFiles
from .names import hashed_slug, is_lossy, slug
from .plugins import Plugin, find_plugins
from .skills import Place, find_skills
from .snapshot import Problem, RegistrySnapshot

_A_NOTE = "it has no front matter and is taken for notes; an agent's begins with '---'"
_PLAIN_ENTRY = AgentEntry()


class AgentSource(NamedTuple):
    """A source of agent files.

    Attributes:
        label: "claude.json", "project", "user" or "plugin NAME".
        folder: paths are relative to it and must stay inside.
        skills: where its agents' skills are searched: folders, each with a path below it.
        prefix: a plugin's name and ":".
    """

    label: str
    folder: Path
    skills: Tuple[Place, ...]
    prefix: str = ""


class AgentFile(NamedTuple):
    """A file that can be an agent; `title` is its name as written."""

    title: str
    file: str
    definition: Definition


def load_sources(sources: Sources) -> RegistrySnapshot:
    """Reads all sources. Raises ConfigurationError if claude.json is unreadable; faults of agents become
    problems of the snapshot.
    """
    with AgentFiles(sources.bounds) as reader:
        return _load(sources, RegistrySnapshot(reader))


def _load(sources: Sources, loaded: RegistrySnapshot) -> RegistrySnapshot:
    config = _config(loaded, sources)
    loaded.workflows = config.workflows
    for slip in config.slips:
        loaded.remarks.append(Problem(sources.config.name, sources.config.name, slip, WARNING))
    is_users = sources.user.absolute() == sources.folder.absolute()
    folders = [sources.folder] if is_users else [sources.folder, sources.user]
    skills = tuple((folder, "skills") for folder in folders)
    entries = AgentSource("claude.json", sources.folder, skills)
    claimed = {_add_entry(loaded, entries, name, entry) for name, entry in config.agents.items()}
    loaded.end_source()
    # A file that an entry uses under another name is not loaded a second time.
    used = {sources.folder / entry.file for entry in config.agents.values()}
    labels = ["user"] if is_users else ["project", "user"]
    places = [AgentSource(label, folder, skills) for label, folder in zip(labels, folders)]
    for place in places:
        _add_agents(loaded, place, ("agents",), claimed, used)
        loaded.end_source()
    for place in places:
        _add_commands(loaded, place, ("commands",), claimed)
        loaded.end_source()
    if sources.plugins is not None:
        for plugin in find_plugins(loaded, sources.plugins):
            _add_plugin(loaded, plugin, sources.plugins, skills)
        _add_short_names(loaded)
    return loaded


def _config(loaded: RegistrySnapshot, sources: Sources) -> Config:
    folder, name = sources.folder, sources.config.name
    found = loaded.find_file(folder, name, shared=True, subject=None)
    if found is None:
        return Config({}, {})
    return load_config(sources.config, loaded.reader.text(folder, name, found, subject=None))


def _add_plugin(loaded: RegistrySnapshot, plugin: Plugin, root: Path, skills: Tuple[Place, ...]) -> None:
    own = (root, f"{plugin.folder}/skills" if plugin.folder else "skills")
    source = AgentSource(f"plugin {plugin.name}", root, (own, *skills), f"{plugin.name}:")
    _add_agents(loaded, source, plugin.agents, set(), set())
    _add_commands(loaded, source, plugin.commands, set())
    loaded.end_source()


def _add_short_names(loaded: RegistrySnapshot) -> None:
    """Lets a plugin's agent be found without its prefix if the short name is unambiguous."""
    names: Dict[str, List[str]] = {}
    for name in loaded.agents:
        if ":" in name:
            names.setdefault(name.rpartition(":")[2], []).append(name)
    for short, full in names.items():
        if len(full) == 1 and short not in loaded.agents:
            loaded.titles.setdefault(short, full[0])


def _add_entry(loaded: RegistrySnapshot, source: AgentSource, name: str, entry: AgentEntry) -> str:
    """Adds an entry of claude.json. Returns the slug that it claims, even if its files can't be used."""
    own = slug(name)
    try:
        if entry.problem:
            raise ConfigurationError(entry.problem)
        if not own:
            raise ConfigurationError("its name has no letter of a to z and no digit; add one")
        if own in loaded.agents and is_lossy(name):
            own = hashed_slug(name)
        if own in loaded.agents:
            other = loaded.agents[own].title
            raise ConfigurationError(f"its name is read as '{own}', which '{other}' has; rename one")
        definition = _read(loaded, source.folder, entry.file)
        _check(definition)
        contract = None if entry.contract is None else _read_contract(loaded, source.folder, entry.contract)
    except ConfigurationError as error:
        loaded.problems.append(Problem(name, entry.file or "claude.json", str(error)))
        return own
    _add(loaded, source, AgentFile(name, entry.file, definition), own, entry, contract)
    return own


def _read_contract(loaded: RegistrySnapshot, folder: Path, file: str) -> Optional[str]:
    text = loaded.text(folder, file, f"its contract {printable(file)}")
    return text if text.strip() else None


def _read(loaded: RegistrySnapshot, folder: Path, file: str) -> Definition:
    return loaded.definition(folder, loaded.text(folder, file))


def _check(definition: Definition) -> None:
    if definition.problem:
        raise ConfigurationError(definition.problem)
    if not definition.body.strip():
        raise ConfigurationError("it has no instructions; write them below the front matter")


def _add_agents(
    loaded: RegistrySnapshot, source: AgentSource, places: Sequence[str], claimed: Set[str], used: Set[Path]
) -> None:
    """Adds the agents of a source, except names and files of sources with higher precedence."""
    found: List[AgentFile] = []
    for file in _markdown_files(loaded, source, places):
        if source.folder / file not in used:
            found += _found(loaded, source, file)
    # A file without front matter is a note if any other file has front matter, else an agent.
    marked = any(one.definition.has_front_matter for one in found)
    agents = []
    for one in found:
        if _is_note(one, marked):
            loaded.problems.append(Problem(one.title, one.file, _A_NOTE, NOTE))
        else:
            agents.append(one)
    for one, name in _named(agents, loaded):
        whole = one._replace(title=source.prefix + one.title)
        _add_unless_taken(loaded, source, whole, source.prefix + name, claimed)


def _found(loaded: RegistrySnapshot, source: AgentSource, file: str) -> Iterator[AgentFile]:
    title = PurePosixPath(file).stem
    try:
        definition = _read(loaded, source.folder, file)
        title = definition.text("name") or title
        _check(definition)
    except ConfigurationError as error:
        loaded.problems.append(Problem(source.prefix + title, file, str(error)))
        return
    yield AgentFile(title, file, definition)


def _is_note(found: AgentFile, marked: bool) -> bool:
    if found.definition.fields or found.definition.late:
        return False
    is_readme = PurePosixPath(found.file).name.lower() == "readme.md"
    return is_readme or (marked and not found.definition.has_front_matter)


def _named(found: Sequence[AgentFile], loaded: RegistrySnapshot) -> Iterator[Tuple[AgentFile, str]]:
    """Yields each file with its agent's name.

    A title with letters that names can't have is replaced by the file's name, then by its slug if that is
    unique.
    """
    names = [_plain_name(one) for one in found]
    left = [slug(one.title) or slug(PurePosixPath(one.file).stem) for one in found]
    taken = Counter([name or rest for name, rest in zip(names, left)])
    for one, name, rest in zip(found, names, left):
        if name is None:
            is_free = rest and taken[rest] == 1 and rest not in loaded.agents
            name = rest if is_free else hashed_slug(one.title)
        if is_lossy(one.title):
            reason = f"its name has letters that names can't have, and it is listed as '{name}'"
            loaded.remarks.append(Problem(one.title, one.file, f"{reason}; both names find it", NOTE))
        yield one, name


def _plain_name(found: AgentFile) -> Optional[str]:
    """Returns the slug of the title, else of the file's name, if the slug loses no letters."""
    for text in (found.title, PurePosixPath(found.file).stem):
        if not is_lossy(text) and slug(text):
            return slug(text)
    return None


def _add_unless_taken(
    loaded: RegistrySnapshot, source: AgentSource, found: AgentFile, name: str, claimed: Set[str]
) -> None:
    """Adds the agent under `name` unless that is taken."""
    other = loaded.agents.get(name)
    if other is not None and other.source == source.label:
        reason = f"its name '{name}' is taken by {other.file}, which is used; rename one"
        loaded.problems.append(Problem(found.title, found.file, reason))
    elif other is not None or name in claimed:
        stronger = (
            f"the {other.source}'s {other.file}" if other and other.source == "project" else "claude.json"
        )
        reason = f"its name '{name}' is taken by {stronger}, which is used in its place"
        loaded.remarks.append(Problem(found.title, found.file, reason, NOTE))
    else:
        _add(loaded, source, found, name)


def _add_commands(
    loaded: RegistrySnapshot, source: AgentSource, places: Sequence[str], claimed: Set[str]
) -> None:
    """Adds commands under their file names; taken names are prefixed with the folder or "command"."""
    for file in _markdown_files(loaded, source, places):
        path = PurePosixPath(file)
        for one in _found(loaded, source, file):
            if path.name.lower() == "readme.md" and not one.definition.has_front_matter:
                loaded.problems.append(Problem(one.title, file, _A_NOTE, NOTE))
                continue
            stem = path.stem if not is_lossy(path.stem) and slug(path.stem) else hashed_slug(path.stem)
            folder = (
                slug(path.parent.name) if len(path.parts) > len(PurePosixPath(places[0]).parts) + 1 else ""
            )
            found = one._replace(title=f"/{source.prefix}{path.stem}")
            _add_command(loaded, source, found, slug(stem), folder, claimed)


def _add_command(
    loaded: RegistrySnapshot, source: AgentSource, found: AgentFile, stem: str, folder: str, claimed: Set[str]
) -> None:
    if source.prefix:
        names = [source.prefix + stem, *([f"{source.prefix}{folder}-{stem}"] if folder else [])]
    else:
        names = [stem, *([f"{folder}:{stem}"] if folder else []), f"command:{stem}"]
    free = next((name for name in names if name not in loaded.agents and name not in claimed), None)
    if free is None:
        _add_unless_taken(loaded, source, found, names[-1], claimed)
        return
    _add(loaded, source, found, free, is_command=True)
    if free != names[0]:
        other = loaded.agents.get(names[0])
        taken_by = other.file if other else "claude.json"
        reason = f"its name '{stem}' is taken by {taken_by}, and it is listed as '{free}'"
        loaded.remarks.append(Problem(found.title, found.file, reason, NOTE))
    elif folder and not source.prefix:
        # The name in Claude Code up to version 2.
        loaded.titles.setdefault(f"{folder}:{stem}", free)


def _add(
    loaded: RegistrySnapshot,
    source: AgentSource,
    found: AgentFile,
    name: str,
    entry: AgentEntry = _PLAIN_ENTRY,
    contract: Optional[str] = None,
    is_command: bool = False,
) -> None:
    definition, model = found.definition, read_model(found.definition)
    settings, faults = read_settings(definition, is_command)
    faults += find_faults(definition, is_command)
    texts, paths, missing = find_skills(loaded, source.folder, source.prefix, source.skills, settings.skills)
    for reason, state in (*faults, *((one, WARNING) for one in missing)):
        loaded.remarks.append(Problem(found.title, found.file, reason, state))
    agent = Agent(
        name=name,
        definition=definition.body,
        file=found.file,
        contract=contract,
        contract_file=entry.contract,
        description=definition.text("description"),
        model=model.name,
        domains=entry.domains,
        priority=entry.priority,
        title=found.title,
        source=source.label,
        is_command=is_command,
        wrong_model=model.wrong,
        settings=settings,
        skill_texts=texts,
        front_matter=definition.fields,
    )
    own = [source.folder / found.file]
    if entry.contract is not None:
        own.append(source.folder / entry.contract)
    loaded.add(agent, *own, *paths)


def _markdown_files(loaded: RegistrySnapshot, source: AgentSource, places: Sequence[str]) -> Iterator[str]:
    """Yields the markdown files in the places, as paths relative to the source's folder."""
    seen: Set[str] = set()
    for place in places:
        try:
            found = loaded.find_file(source.folder, place, shared=True)
        except ConfigurationError as error:
            name = source.prefix.rstrip(":") or PurePosixPath(place).stem
            loaded.problems.append(Problem(name, place, str(error)))
            continue
        is_folder = found is not None and found.place.is_folder
        names = (
            (place,) if place.lower().endswith(".md") and not is_folder else _in_folder(loaded, source, place)
        )
        for name in names:
            if name not in seen:
                seen.add(name)
                yield name


def _in_folder(loaded: RegistrySnapshot, source: AgentSource, place: str) -> Iterator[str]:
    """Yields the markdown files below a folder; folders that can't be read become problems."""
    skipped: Dict[str, str] = {}
    for one in loaded.reader.walk(source.folder, place, skipped):
        if one.real is not None:
            loaded.watch_shared(source.folder / one.file)
        loaded.watch_shared(one.real or source.folder / one.file, one.stamp)
        yield from (f"{one.file}/{name}" for name in one.names if name.lower().endswith(".md"))
    for file, reason in skipped.items():
        loaded.watch_shared(source.folder / file)
        loaded.problems.append(Problem(PurePosixPath(file).stem, file, reason))
