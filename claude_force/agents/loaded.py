"""One reading of all sources of agents, and whether the files are still as they were then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..types import Agent
from .building import PROBLEM
from .files import Stamp, stamp


class Problem(NamedTuple):
    """What is wrong with a file or an entry, and after the first "; " what to do about it.

    `state` is "problem", "warning" or "note".
    """

    name: str
    file: str
    reason: str
    state: str = PROBLEM


class Loaded:
    """One reading of all sources.

    `problems` are what can't be an agent, `remarks` what became one all the same. `stamps` tell when it is
    out of date: `shared` are the paths that concern more than one agent (folders and claude.json), in the
    order of precedence, `files` the ones that concern one agent.
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
        # The text of each skill that was looked for, None for one that is not there.
        self.skills: Dict[Path, Optional[str]] = {}
        self._levels: Dict[str, int] = {}
        self._watched: Dict[str, List[Tuple[str, Stamp]]] = {}

    def is_current(self, name: str) -> bool:
        """Whether all is unchanged that could make the agent of this name another one."""
        watched = self._watched.get(name)
        if watched is None:
            # As text: it is asked for at each call, and a Path takes longer to look up than to stat.
            paths = (*self.shared[: self._levels.get(name)], *self.files[name])
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
        """As `watch`, for a path that concerns every agent of its source and of weaker ones."""
        self.watch(path)
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
