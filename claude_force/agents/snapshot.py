"""One reading of all sources of agents, and whether the files are still as they were then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from ..agent_types import Agent
from ..errors import ConfigurationError
from .agent_settings import PROBLEM
from .definition import Definition, front_matter_marks, read_definition
from .files import AgentFiles, FoundPath, Stamp, stamp, stamp_of
from .names import agent_slug

# In the front matter of all files below one folder. YAML takes some 10 us for a mark; a file has about 50.
MOST_MARKS = 200_000


class Problem(NamedTuple):
    """What is wrong with a file or an entry, and after the first "; " what to do about it.

    `state` is "problem", "warning" or "note".
    """

    name: str
    file: str
    reason: str
    state: str = PROBLEM


class RegistrySnapshot:
    """One reading of all sources, by `reader`.

    `problems` are what can't be an agent, `remarks` what became one all the same. `stamps` tell when it is
    out of date: `shared` are the paths that concern more than one agent (folders and claude.json), in the
    order of precedence, `files` the ones that concern one agent.
    """

    def __init__(self, reader: AgentFiles) -> None:
        self.reader = reader
        self.agents: Dict[str, Agent] = {}
        self.titles: Dict[str, str] = {}
        self.workflows: Dict[str, Any] = {}
        self.problems: List[Problem] = []
        self.remarks: List[Problem] = []
        self.stamps: Dict[Path, Stamp] = {}
        self.shared: List[Path] = []
        self._are_shared: Set[Path] = set()
        self.files: Dict[str, Tuple[Path, ...]] = {}
        # The text of each skill that was looked for, None for one that is not there.
        self.skills: Dict[Path, Optional[str]] = {}
        # What is told to the model of a skill, by its name and text.
        self.skill_blocks: Dict[Tuple[str, str], str] = {}
        # Where files lead to that are links, or are reached by one.
        self._real: Dict[Path, Path] = {}
        self._levels: Dict[str, int] = {}
        self._marks: Dict[Path, int] = {}
        self._watched: Dict[str, List[Tuple[str, Stamp]]] = {}

    def is_current(self, name: str) -> bool:
        """Whether all is unchanged that could make the agent of this name another one."""
        watched = self._watched.get(name)
        if watched is None:
            # As text: it is asked for at each call, and a Path takes longer to look up than to stat.
            own = self.files[name]
            led_to = [self._real[path] for path in own if path in self._real]
            paths = (*self.shared[: self._levels.get(name)], *own, *led_to)
            watched = self._watched[name] = [(str(path), self.stamps[path]) for path in paths]
        return all(stamp(path) == was for path, was in watched)

    def find(self, name: object) -> Optional[Agent]:
        if not isinstance(name, str):
            return None
        return self.agents.get(name) or self.agents.get(self.titles.get(name, ""))

    def find_problem(self, name: str) -> Optional[Problem]:
        return next((one for one in self.problems if name in (one.name, agent_slug(one.name))), None)

    def text(self, folder: Path, file: str, subject: Optional[str] = "it") -> str:
        """The text of a file below `folder`, watched from before it is read.

        Raises ConfigurationError, which calls it `subject`, or by its path if that is None.
        """
        found = self.find_file(folder, file, subject=subject)
        return self.reader.text(folder, file, found, subject)

    def definition(self, folder: Path, text: str) -> Definition:
        """The parts of a file below `folder`."""
        marks = self._marks[folder] = self._marks.get(folder, 0) + front_matter_marks(text)
        if marks > MOST_MARKS:
            problem = f"all front matter together has over {MOST_MARKS:,} marks of YAML; shorten it"
            return Definition({}, problem=problem)
        return read_definition(text)

    def find_file(
        self, folder: Path, file: str, shared: bool = False, subject: Optional[str] = "it"
    ) -> Optional[FoundPath]:
        """What is at a path below `folder`, watched from then on; `shared`: see `share`.

        Raises ConfigurationError as `text` does.
        """
        path = folder / file
        try:
            found = self.reader.find(folder, file, subject)
        except ConfigurationError:
            self._watch(path, shared)
            raise
        if found is None or found.real is not None:
            # Of a link both are watched: where it leads, and what is there.
            self._watch(path, shared)
        if found is not None:
            self._watch(found.real or path, shared, stamp_of(found.place.info))
            if found.real is not None:
                self._real[path] = found.real
        return found

    def watch_shared(self, path: Path, found: Optional[Stamp] = None) -> None:
        """Watches a path that concerns every agent of its source and of weaker ones. `found` is its stamp as
        it was before it was read."""
        self._watch(path, True, found)

    def _watch(self, path: Path, shared: bool, found: Optional[Stamp] = None) -> None:
        """To be called before the reading: what changes meanwhile is then read again."""
        self.stamps.setdefault(path, stamp(path) if found is None else found)
        if shared and path not in self._are_shared:
            self._are_shared.add(path)
            self.shared.append(path)

    def add(self, agent: Agent, *paths: Path) -> None:
        self.agents[agent.name] = agent
        self.files[agent.name] = paths
        self.titles.setdefault(agent.title, agent.name)

    def end_source(self) -> None:
        """What is shared from here on concerns none of the agents that are there."""
        for name in self.agents:
            self._levels.setdefault(name, len(self.shared))

    def by_source(self, source: str) -> Iterator[Agent]:
        return (agent for agent in self.agents.values() if agent.source == source)
