"""`doctor`: what is wrong here, and what mends it."""

from __future__ import annotations

import argparse
import datetime
from typing import Any, Dict, Iterator, List, Tuple

from .. import settings
from ..agents import Registry, resolve_model
from ..agents.agent_settings import NOTE
from ..agents.description import changes_the_work, kind_of, model_for, unused_keys
from ..agents.models import newest_model, open_alias, retirement
from ..errors import ConfigurationError, InvalidOptionError
from ..formatting import pluralize
from ..types import Agent
from ..workflow import faults
from . import machine_checks as machine
from . import render, streams
from .machine_checks import OK, PROBLEM, WARNING, CheckResult


def doctor(args: argparse.Namespace) -> int:
    """Returns 0, or 1 where something is a problem."""
    found: List[CheckResult] = []
    for finding in _checked(args):
        found.append(finding)
        if not args.json:
            _show(finding)
    problems = sum(one.state == PROBLEM for one in found)
    if args.json:
        checks = [one._asdict() for one in found]
        streams.write_json({"success": not problems, "problems": problems, "checks": checks})
    else:
        warnings = sum(one.state == WARNING for one in found)
        streams.write_line(f"{pluralize(problems, 'problem')}, {pluralize(warnings, 'warning')}")
    return 1 if problems else 0


def _checked(args: argparse.Namespace) -> Iterator[CheckResult]:
    yield machine.python()
    yield machine.sdk()
    yield from _of_project(args)
    yield from machine.cache()
    if args.offline:
        yield machine.credentials()
        return
    from .endpoint_checks import endpoint

    try:
        model = resolve_model(call=args.model, agent=None)
    except InvalidOptionError as error:
        yield CheckResult("endpoint", PROBLEM, f"it was not asked, as there is no model to ask for: {error}")
        return
    with render.Spinner("asking the endpoint", args.json):
        found = endpoint(model, args.send)
    yield from found


def _of_project(args: argparse.Namespace) -> Iterator[CheckResult]:
    try:
        registry = Registry(args.config)
        yield from project(registry)
    except ConfigurationError as error:
        yield CheckResult("project", PROBLEM, str(error), "Nothing of it can be run before that.")
        return
    yield machine.metrics(registry.ledger)


def _show(finding: CheckResult) -> None:
    streams.write_line(f"{finding.state:8} {finding.name:12} {streams.one_line(finding.text)}")
    if finding.advice:
        streams.write_line(f"{'':21} {streams.one_line(finding.advice)}")


_STATES = {"problem": PROBLEM, "warning": WARNING, "note": OK}
# Agents that one finding names.
_MOST_NAMED = 5
# Faults of workflows, after which no further one is checked: a hostile project may have any number.
_MOST_OF_WORKFLOWS = 20


def project(registry: Registry) -> Iterator[CheckResult]:
    """Raises ConfigurationError for a claude.json that can't be read."""
    agents, workflows = registry.agents(), registry.list_workflows()
    text = (
        f"{pluralize(len(agents), 'agent')} and {pluralize(len(workflows), 'workflow')} in {registry.folder}"
    )
    if agents:
        yield CheckResult("project", OK, text)
    else:
        yield CheckResult("project", WARNING, text, "Run `claude-force init`, or add .claude/agents/NAME.md.")
    yield from _files(registry)
    yield from _front_matter(agents)
    yield from _workflows(workflows, registry)
    yield from _models(agents)
    yield from _in_cloud(agents)


def _files(registry: Registry) -> Iterator[CheckResult]:
    for problem in registry.problems():
        fault, _, mend = problem.reason.partition("; ")
        # WorkerNotices among the agents are no fault of anybody's.
        state = WARNING if problem.state == NOTE else PROBLEM
        yield CheckResult("agent", state, f"{problem.name} ({problem.file}): {fault}", _sentence(mend))
    for remark in registry.remarks():
        fault, _, mend = remark.reason.partition("; ")
        state = _STATES[remark.state]
        yield CheckResult("agent", state, f"{remark.name} ({remark.file}): {fault}", _sentence(mend))


def _front_matter(agents: List[Agent]) -> Iterator[CheckResult]:
    """The keys that have no effect here: each for itself where agents work otherwise for want of it."""
    unused: Dict[Tuple[str, str], List[str]] = {}
    shown: Dict[str, None] = {}
    for agent in agents:
        for key, meaning in unused_keys(agent).items():
            if changes_the_work(key, kind_of(agent)):
                unused.setdefault((key, meaning), []).append(agent.name)
            else:
                shown[key] = None
    for (key, meaning), names in sorted(unused.items()):
        yield CheckResult("front matter", WARNING, f"{key} of {_several(names)} is not used: {meaning}")
    if shown:
        yield CheckResult("front matter", OK, f"of no effect here: {', '.join(sorted(shown))}")


def _several(names: List[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {pluralize(more, 'more', 'more')}" if more > 0 else "")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def _workflows(workflows: Dict[str, Any], registry: Registry) -> Iterator[CheckResult]:
    told = 0
    for number, (name, written) in enumerate(workflows.items()):
        if told >= _MOST_OF_WORKFLOWS:
            left = pluralize(len(workflows) - number, "workflow")
            yield CheckResult("workflow", WARNING, f"{left} not checked", "Correct those above first.")
            return
        for fault in faults(name, written, registry.get):
            told += 1
            yield CheckResult("workflow", PROBLEM, f"{name}: {fault}", "Correct it in claude.json.")


def _models(agents: List[Agent]) -> Iterator[CheckResult]:
    wanted: Dict[str, List[str]] = {}
    wrong: Dict[str, None] = {}
    for agent in agents:
        if agent.wrong_model is not None:
            text = f"{agent.name} ({agent.file}) asks for {agent.wrong_model!r:.60}"
            mend = "Write one id or alias in its front matter."
            yield CheckResult("model", PROBLEM, f"{text}, which can't be the name of a model", mend)
            continue
        try:
            wanted.setdefault(resolve_model(call=None, agent=agent.model), []).append(agent.name)
        except InvalidOptionError as error:
            wrong[str(error)] = None
    for reason in wrong:
        yield CheckResult("model", PROBLEM, *reason.split(": ", 1))
    today = datetime.date.today()
    for model, names in wanted.items():
        found = retirement(model)
        if found is None:
            continue
        is_past = found.date is None or found.date < today
        when = "is retired" if is_past else f"retires on {found.date}"
        text = f"{model} {when}; it is what {_several(names)} asks for"
        yield CheckResult("model", PROBLEM if is_past else WARNING, text, f"Use {found.successor}.")
    if wanted and not any(map(retirement, wanted)):
        yield CheckResult("model", OK, ", ".join(sorted(wanted)))


def _in_cloud(agents: List[Agent]) -> Iterator[CheckResult]:
    """A cloud has names of its own for models, and nobody but the user knows which of them an alias means."""
    if len(settings.clouds()) != 1:
        return
    from ..transport.services import CLOUDS

    cloud = CLOUDS[settings.clouds()[0]]
    aliases: Dict[str, List[str]] = {}
    strange: Dict[str, List[str]] = {}
    for agent in agents:
        model = model_for(agent)
        if model is None:
            continue
        alias = open_alias(call=None, agent=agent.model)
        if alias is not None:
            aliases.setdefault(alias, []).append(agent.name)
        elif cloud.is_strange(model, None):
            strange.setdefault(model, []).append(agent.name)
    for alias, names in aliases.items():
        variable, model = settings.alias_variable(alias), newest_model(alias)
        text = f"{variable} is not set, so that {cloud.title} is asked for {model} by {', '.join(names)}"
        state = PROBLEM if cloud.is_strange(model, None) else WARNING
        yield CheckResult(
            "model", state, text, f"Set it to a name of {cloud.title}'s, such as {cloud.example}."
        )
    for model, names in strange.items():
        text = f"{cloud.title} has no model {model!r}; it is what {', '.join(names)} asks for"
        yield CheckResult("model", PROBLEM, text, cloud.naming)
