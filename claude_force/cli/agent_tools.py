"""Explains which tools agents would be given, and why not others: for `info`, `list` and `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..agent_types import Agent
from ..agents import Registry
from ..errors import ConfigurationError, FileAccessError, InputError, ToolSandboxError
from ..formatting import for_shell, pluralize
from ..tools.default_grant import default_grant
from ..tools.grant import LEVELS, Grant, parse_grant
from ..tools.offers import (
    NOT_GRANTED,
    NOT_YET_AVAILABLE,
    OFFERED,
    UNKNOWN,
    ToolOffer,
    offer_tools,
    offered_names,
)
from ..tools.permission_rules import NO_RULES, PermissionRules
from ..tools.permission_settings import read_permission_rules
from ..tools.tool_names import BASH
from ..tools.tools_root import tools_root
from .machine_checks import CheckResult, ok, problem, warning

# The most agents that one result of `doctor` names.
_MAX_NAMED = 5


class AgentTools:
    """What the agents of a project would be offered.

    Attributes:
        problem: why no agent gets tools here; "" if they do.
    """

    def __init__(self, registry: Registry, grant: Optional[str] = None) -> None:
        """Reads the settings files. `grant`: the only one to explain; None for each level.

        Raises InvalidOptionError for an invalid grant.
        """
        self._grants = {grant: parse_grant(grant)} if grant is not None else _levels()
        self.problem, self._project = "", registry.project
        self._rules = NO_RULES
        try:
            self._rules = _rules_for(registry.project)
        except (ConfigurationError, FileAccessError) as error:
            self.problem = error.for_shell()

    def fields(self, agent: Agent) -> Dict[str, Any]:
        """Returns `offered`, the tools under each grant, and `left_out`, the reasons under the largest."""
        if self.problem:
            return {"offered": {name: [] for name in self._grants}, "left_out": {"*": self.problem}}
        found = {name: self._offers(agent, grant) for name, grant in self._grants.items()}
        largest = list(found.values())[-1]
        return {
            "offered": {name: list(offered_names(offers)) for name, offers in found.items()},
            "left_out": {one.name: for_shell(one.reason) for one in largest if one.state != OFFERED},
        }

    def checks(self, agents: List[Agent]) -> Iterator[CheckResult]:
        """Yields the results of `doctor` about tools."""
        yield from _check_default()
        if self.problem:
            yield problem("tools", self.problem)
            return
        named = [agent for agent in agents if agent.settings.tools]
        if not named:
            return
        complete = {name: self._complete(named, grant) for name, grant in self._grants.items()}
        yield ok("tools", _summary(complete, len(named)))
        if any(one.name == BASH for agent in named for one in self._offers(agent, parse_grant("bash"))):
            yield _check_sandbox(self._project)
        reasons: Dict[Tuple[str, str], List[str]] = {}
        for agent in named:
            for one in self._offers(agent, parse_grant("bash")):
                if one.state in (UNKNOWN, NOT_YET_AVAILABLE):
                    reasons.setdefault((one.name, one.reason), []).append(agent.name)
        for (tool, reason), names in sorted(reasons.items()):
            yield warning("tools", f"{tool} of {_several(names)} is left out: {for_shell(reason)}")

    def _offers(self, agent: Agent, grant: Grant) -> List[ToolOffer]:
        return offer_tools(agent.settings, grant, self._rules)

    def _complete(self, agents: List[Agent], grant: Grant) -> int:
        """Returns how many agents would get all that they name, of what they can get at all."""
        return sum(all(one.state != NOT_GRANTED for one in self._offers(agent, grant)) for agent in agents)


def _levels() -> Dict[str, Grant]:
    return {level: parse_grant(level) for level in LEVELS}


def _rules_for(project: Path) -> PermissionRules:
    return read_permission_rules(tools_root(project), [project])


def _check_default() -> Iterator[CheckResult]:
    try:
        grant = default_grant()
    except InputError as error:
        yield problem("tools", error.for_shell())
        return
    if grant:
        yield ok("tools", f"runs without --tools grant {grant} (~/.claude/claude-force.toml)")


def _check_sandbox(project: Path) -> CheckResult:
    """Checks, by starting bubblewrap, whether commands of agents can be confined on this machine."""
    # Imported here: few projects have agents that run commands.
    from ..tools.bubblewrap import bubblewrap

    try:
        program = bubblewrap([project])
    except ToolSandboxError as error:
        return warning("tools", f"Bash can't be granted: {error.for_shell()}")
    return ok("tools", f"commands of Bash run in a sandbox ({program})")


def _summary(complete: Dict[str, int], count: int) -> str:
    enough = ", ".join(f"--tools {name} is enough for {number}" for name, number in complete.items())
    return f"{pluralize(count, 'agent names', 'agents name')} tools: {enough}"


def _several(names: List[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {pluralize(more, 'more', 'more')}" if more > 0 else "")
