"""Checks of the project: its configuration, every file of an agent, workflows, models."""

from __future__ import annotations

import datetime
from typing import Any, Dict, Iterator, List

from ... import settings
from ...agents import Registry, resolve_model
from ...agents.models import newest, open_alias, retirement
from ...spelled import count
from ...workflow import faults
from .finding import OK, PROBLEM, WARNING, Finding


def project(registry: Registry) -> Iterator[Finding]:
    """Raises ConfigurationError for a claude.json that can't be read."""
    agents, workflows = registry.list_agents(), registry.list_workflows()
    text = f"{count(len(agents), 'agent')} and {count(len(workflows), 'workflow')} in {registry.folder}"
    if agents:
        yield Finding("project", OK, text)
    else:
        yield Finding("project", WARNING, text, "Run `claude-force init`, or add .claude/agents/NAME.md.")
    yield from _files(registry)
    yield from _workflows(workflows, registry)
    yield from _models(registry, agents)
    yield from _in_cloud(registry, agents)


def _files(registry: Registry) -> Iterator[Finding]:
    for problem in registry.problems():
        fault, _, mend = problem.reason.partition("; ")
        # Notes among the agents are no fault of anybody's.
        state = WARNING if "taken for notes" in fault else PROBLEM
        yield Finding("agent", state, f"{problem.name} ({problem.file}): {fault}", _sentence(mend))
    for remark in registry.remarks():
        fault, _, mend = remark.reason.partition("; ")
        yield Finding("agent", WARNING, f"{remark.name} ({remark.file}): {fault}", _sentence(mend))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def _workflows(workflows: Dict[str, Any], registry: Registry) -> Iterator[Finding]:
    for name, written in workflows.items():
        for fault in faults(name, written, registry.get):
            yield Finding("workflow", PROBLEM, f"{name}: {fault}", "Correct it in claude.json.")


def _models(registry: Registry, agents: List[Dict[str, Any]]) -> Iterator[Finding]:
    wanted: Dict[str, List[str]] = {}
    for agent in agents:
        model = resolve_model(call=None, agent=registry.get(agent["name"]).model)
        wanted.setdefault(model, []).append(agent["name"])
    today = datetime.date.today()
    for model, names in wanted.items():
        found = retirement(model)
        if found is None:
            continue
        is_past = found.date is None or found.date < today
        when = "is retired" if is_past else f"retires on {found.date}"
        text = f"{model} {when}; it is what {', '.join(names)} asks for"
        yield Finding("model", PROBLEM if is_past else WARNING, text, f"Use {found.successor}.")
    if wanted and not any(map(retirement, wanted)):
        yield Finding("model", OK, ", ".join(sorted(wanted)))


def _in_cloud(registry: Registry, agents: List[Dict[str, Any]]) -> Iterator[Finding]:
    """A cloud has names of its own for models, and nobody but the user knows which of them an alias means."""
    if len(settings.clouds()) != 1:
        return
    from ...calling.clouds import CLOUDS

    cloud = CLOUDS[settings.clouds()[0]]
    aliases: Dict[str, List[str]] = {}
    strange: Dict[str, List[str]] = {}
    for agent in agents:
        written = registry.get(agent["name"]).model
        alias, model = open_alias(call=None, agent=written), resolve_model(call=None, agent=written)
        if alias is not None:
            aliases.setdefault(alias, []).append(agent["name"])
        elif cloud.is_strange(model, None):
            strange.setdefault(model, []).append(agent["name"])
    for alias, names in aliases.items():
        variable, model = settings.alias_variable(alias), newest(alias)
        text = f"{variable} is not set, so that {cloud.title} is asked for {model} by {', '.join(names)}"
        state = PROBLEM if cloud.is_strange(model, None) else WARNING
        yield Finding("model", state, text, f"Set it to a name of {cloud.title}'s, such as {cloud.example}.")
    for model, names in strange.items():
        text = f"{cloud.title} has no model {model!r}; it is what {', '.join(names)} asks for"
        yield Finding("model", PROBLEM, text, cloud.naming)
