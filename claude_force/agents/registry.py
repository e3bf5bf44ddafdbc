"""Finds agents by name in every source; reads files again after they change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Optional, Union

from ..agent_types import Agent
from ..errors import AgentNotFoundError, ConfigurationError, WorkflowNotFoundError
from ..storage.path_text import printable
from ..storage.project_root import working_folder
from .agent_settings import PROBLEM
from .discovery import Sources, find_sources
from .files import stamp
from .loader import load_sources
from .names import agent_slug, check_name, suggest
from .snapshot import Problem, RegistrySnapshot


class Registry:
    """Finds agents by name. Thread-safe. Edits of files take effect on the next call.

    >>> registry = Registry("examples/team")
    >>> registry.get("code-reviewer").description
    """

    def __init__(self, config_path: Union[str, Path, None] = None, start: Optional[Path] = None) -> None:
        """`config_path`: a claude.json, a .claude folder or a project; None to walk up from `start`.

        Raises ConfigurationError if `config_path` does not exist, FileAccessError if there is no working
        directory.
        """
        self._sources: Sources = find_sources(config_path, start or working_folder())
        self._ledger = self._sources.ledger
        self._lock = threading.Lock()
        self._loaded: Optional[RegistrySnapshot] = None

    @property
    def folder(self) -> Path:
        """The `.claude` folder in use: the project's, else the user's."""
        return self._sources.folder

    @property
    def project(self) -> Path:
        """The folder that contains `.claude`, or the folder of claude.json if that lies elsewhere."""
        folder = self._sources.folder
        return folder.parent if folder.name == ".claude" else folder

    @property
    def sources_path(self) -> Path:
        """The path that finds the same sources from any folder: the project, else the configuration file."""
        project, config = self.project.resolve(), _placed(self._sources.config)
        return project if _placed(find_sources(project, project).config) == config else config

    @property
    def ledger_folder(self) -> Path:
        """The folder of the ledger."""
        return self._ledger

    def get(self, name: str) -> Agent:
        """Returns the agent with this name, as its file spells it or as its slug.

        Raises InvalidAgentNameError, AgentNotFoundError, or ConfigurationError if the configuration
        names the agent but its files can't be used.
        """
        agent = self._unchanged(name)
        if agent is not None:
            return agent
        loaded = self._fresh()
        agent = loaded.find(name)
        if agent is not None:
            return agent
        check_name(name)
        problem = loaded.find_problem(name)
        if problem is not None:
            reason = problem.reason.rstrip(".")
            raise ConfigurationError(f"Agent '{name}' can't be used: {reason} ({problem.file}).")
        raise AgentNotFoundError(f"Agent '{name}' not found. {self._hint(name, loaded)}")

    def _hint(self, name: str, loaded: RegistrySnapshot) -> str:
        close = suggest(name, loaded.agents)
        if close:
            return f"Did you mean: {', '.join(close)}?"
        if loaded.agents:
            return f"There are: {_first(sorted(loaded.agents))}."
        none = f"There are no agents in {self._sources.folder}"
        for problem in loaded.problems:
            if problem.state == PROBLEM:
                return f"{none}. {printable(problem.file)} can't be used: {problem.reason.rstrip('.')}."
        return f"{none}: put one in .claude/agents/{name}.md."

    def list_agents(self) -> List[Dict[str, Any]]:
        """Each agent's `name`, `file`, `domains` and `priority`, by priority, then by name."""
        return [
            {"name": one.name, "file": one.file, "domains": list(one.domains), "priority": one.priority}
            for one in self.agents()
        ]

    def agents(self) -> List[Agent]:
        """All agents and commands, by priority, then by name."""
        return sorted(self._fresh().agents.values(), key=lambda one: (one.priority, one.name))

    def get_agent_info(self, agent_name: str) -> Dict[str, Any]:
        """Returns `name`, `file`, `contract`, `domains`, `priority`, `description`.
        Raises InvalidAgentNameError, AgentNotFoundError, ConfigurationError."""
        agent = self.get(agent_name)
        return {
            "name": agent.name,
            "file": agent.file,
            "contract": agent.contract_file,
            "domains": list(agent.domains),
            "priority": agent.priority,
            "description": agent.description,
        }

    def list_workflows(self) -> Dict[str, Any]:
        """Returns the workflows by name, as claude.json has them."""
        return dict(self._fresh().workflows)

    def workflow(self, name: str) -> Any:
        """Returns one workflow as claude.json has it. Raises WorkflowNotFoundError."""
        workflows = self._fresh().workflows
        if name in workflows:
            return workflows[name]
        close = suggest(str(name), workflows)
        known = f"There are: {_first(list(workflows))}." if workflows else "claude.json has no workflows."
        if close:
            known = f"Did you mean: {', '.join(close)}?"
        raise WorkflowNotFoundError(f"Workflow '{name}' not found. {known}")

    def names(self) -> FrozenSet[str]:
        """Returns every name that `get` knows: agents, their spellings, and agents that can't be used."""
        loaded = self._fresh()
        spoiled = (name for one in loaded.problems for name in (one.name, agent_slug(one.name)))
        return frozenset((*loaded.agents, *loaded.titles, *spoiled))

    def problems(self) -> List[Problem]:
        """Returns the files and entries that can't be agents, each with the reason."""
        return list(self._fresh().problems)

    def remarks(self) -> List[Problem]:
        """Returns the faults of files that are loaded as agents nevertheless."""
        return list(self._fresh().remarks)

    def _unchanged(self, name: object) -> Optional[Agent]:
        """Returns the agent from memory if none of its files changed, else None.

        Checks the folders, claude.json and this agent's files, not the files of other agents.
        """
        loaded = self._loaded
        agent = loaded.find(name) if loaded is not None else None
        if loaded is None or agent is None:
            return None
        return agent if loaded.is_current(agent.name) else None

    def _fresh(self) -> RegistrySnapshot:
        with self._lock:
            loaded = self._loaded
            if loaded is None or any(stamp(path) != was for path, was in loaded.stamps.items()):
                loaded = self._loaded = load_sources(self._sources)
            return loaded


def _placed(file: Path) -> Path:
    """Resolves the folder of a file, but not the file itself, which may be a link."""
    return file.parent.resolve() / file.name


def _first(names: List[str]) -> str:
    return f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
