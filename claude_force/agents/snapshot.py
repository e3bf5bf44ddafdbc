"""The agents as they were read at one moment, with the stamps that show when files changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

from ..agent_types import Agent
from ..errors import ConfigurationError
from .agent_settings import PROBLEM
from .definition import Definition, front_matter_marks, read_definition
from .files import AgentFiles, FoundPath, Stamp, stamp, stamp_of
from .names import agent_slug

# YAML punctuation in all front matter below one folder. YAML takes about 10 us for each; a file has about 50.
MOST_MARKS = 200_000


class Problem(NamedTuple):
    """A fault of a file or an entry; the text after the first "; " says what to do about it.

    `state` is "problem", "warning" or "note".
    """

    name: str
    file: str
    reason: str
    state: str = PROBLEM


class RegistrySnapshot:
    """All sources as `reader` read them.

    Attributes:
        problems: files and entries that can't be agents.
        remarks: faults of files that are loaded as agents nevertheless.
        stamps: the state of each watched path when it was read.
        shared: paths that concern several agents (folders and claude.json), in order of precedence.
        files: the paths that concern one agent.
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
        # The text of each skill that was looked for; None if it does not exist.
        self.skills: Dict[Path, Optional[str]] = {}
        # The system block of each skill, by its name and text.
        self.skill_blocks: Dict[Tuple[str, str], str] = {}
        # Real paths of files that are links or are reached through one.
        self._real: Dict[Path, Path] = {}
        self._levels: Dict[str, int] = {}
        self._marks: Dict[Path, int] = {}
        self._watched: Dict[str, List[Tuple[str, Stamp]]] = {}

    def is_current(self, name: str) -> bool:
        """Whether no path has changed that could change the agent with this name."""
        watched = self._watched.get(name)
        if watched is None:
            # Strings: each call checks them, and hashing a Path costs more than the stat.
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
        """Returns the text of a file below `folder`, and watches the file from before it is read.

        Raises ConfigurationError, which names the file `subject`, or its path if that is None.
        """
        found = self.find_file(folder, file, subject=subject)
        return self.reader.text(folder, file, found, subject)

    def definition(self, folder: Path, text: str) -> Definition:
        """Parses the text of a file below `folder`."""
        marks = self._marks[folder] = self._marks.get(folder, 0) + front_matter_marks(text)
        if marks > MOST_MARKS:
            problem = f"all front matter together has over {MOST_MARKS:,} YAML punctuation marks; shorten it"
            return Definition({}, problem=problem)
        return read_definition(text)

    def find_file(
        self, folder: Path, file: str, shared: bool = False, subject: Optional[str] = "it"
    ) -> Optional[FoundPath]:
        """Returns what is at a path below `folder`, and watches it; `shared`: see `watch_shared`.

        Raises ConfigurationError as `text` does.
        """
        path = folder / file
        try:
            found = self.reader.find(folder, file, subject)
        except ConfigurationError:
            self._watch(path, shared)
            raise
        if found is None or found.real is not None:
            # For a link, watch both the link and its target.
            self._watch(path, shared)
        if found is not None:
            self._watch(found.real or path, shared, stamp_of(found.place.info))
            if found.real is not None:
                self._real[path] = found.real
        return found

    def watch_shared(self, path: Path, found: Optional[Stamp] = None) -> None:
        """Watches a path that concerns all agents of its source and of sources with lower precedence.

        `found` is its stamp from before it was read.
        """
        self._watch(path, True, found)

    def _watch(self, path: Path, shared: bool, found: Optional[Stamp] = None) -> None:
        """Call this before reading, so that a change during the read is noticed."""
        self.stamps.setdefault(path, stamp(path) if found is None else found)
        if shared and path not in self._are_shared:
            self._are_shared.add(path)
            self.shared.append(path)

    def add(self, agent: Agent, *paths: Path) -> None:
        self.agents[agent.name] = agent
        self.files[agent.name] = paths
        self.titles.setdefault(agent.title, agent.name)

    def end_source(self) -> None:
        """Shared paths added after this do not concern the agents added so far."""
        for name in self.agents:
            self._levels.setdefault(name, len(self.shared))
