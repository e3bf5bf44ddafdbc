"""`doctor`: checks the machine, the project and the endpoint, and says what to do about each problem."""

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
from .agent_tools import AgentTools
from .machine_checks import OK, PROBLEM, WARNING, CheckResult, ok, problem, warning


def doctor(args: argparse.Namespace) -> int:
    """Runs all checks. Returns 0, or 1 if one is a problem."""
    results: List[CheckResult] = []
    for result in _run_checks(args):
        results.append(result)
        if not args.json:
            _show(result)
    problems = sum(one.state == PROBLEM for one in results)
    if args.json:
        checks = [one._asdict() for one in results]
        streams.write_json({"success": not problems, "problems": problems, "checks": checks})
    else:
        warnings = sum(one.state == WARNING for one in results)
        streams.write_line(f"{pluralize(problems, 'problem')}, {pluralize(warnings, 'warning')}")
    return 1 if problems else 0


def _run_checks(args: argparse.Namespace) -> Iterator[CheckResult]:
    yield machine.python()
    yield machine.sdk()
    yield from _check_project(args)
    yield from machine.cache()
    if args.offline:
        yield machine.credentials()
        return
    from .endpoint_checks import check_endpoint

    try:
        model = resolve_model(call=args.model, agent=None)
    except InvalidOptionError as error:
        yield problem("endpoint", f"it was not checked, as there is no model to ask for: {error}")
        return
    with render.Spinner(lambda: "asking the endpoint", args.json):
        results = check_endpoint(model, args.send)
    yield from results


def _check_project(args: argparse.Namespace) -> Iterator[CheckResult]:
    try:
        registry = Registry(args.config)
        yield from _project(registry)
    except ConfigurationError as error:
        yield problem("project", str(error), "No agent can be run before that is corrected.")
        return
    yield machine.metrics(registry.ledger_folder)


def _show(result: CheckResult) -> None:
    streams.write_line(f"{result.state:8} {result.name:12} {streams.one_line(result.text)}")
    if result.advice:
        streams.write_line(f"{'':21} {streams.one_line(result.advice)}")


_STATES = {"problem": PROBLEM, "warning": WARNING, "note": OK}
# The most agents that one result names.
_MAX_NAMED = 5
# Faults of workflows after which no more is checked: a hostile project may have any number.
_MAX_WORKFLOW_FAULTS = 20


def _project(registry: Registry) -> Iterator[CheckResult]:
    """Checks agents, workflows and models. Raises ConfigurationError for an unreadable claude.json."""
    agents, workflows = registry.agents(), registry.list_workflows()
    text = (
        f"{pluralize(len(agents), 'agent')} and {pluralize(len(workflows), 'workflow')} in {registry.folder}"
    )
    if agents:
        yield ok("project", text)
    else:
        yield warning("project", text, "Run `claude-force init`, or add .claude/agents/NAME.md.")
    yield from _files(registry)
    yield from _front_matter(agents)
    yield from AgentTools(registry).checks(agents)
    yield from _workflows(workflows, registry)
    yield from _models(agents)
    yield from _in_cloud(agents)


def _files(registry: Registry) -> Iterator[CheckResult]:
    for one in registry.problems():
        fault, _, advice = one.reason.partition("; ")
        # A note in the folder of agents is not a fault.
        state = WARNING if one.state == NOTE else PROBLEM
        yield CheckResult("agent", state, f"{one.name} ({one.file}): {fault}", _sentence(advice))
    for remark in registry.remarks():
        fault, _, advice = remark.reason.partition("; ")
        state = _STATES[remark.state]
        yield CheckResult("agent", state, f"{remark.name} ({remark.file}): {fault}", _sentence(advice))


def _front_matter(agents: List[Agent]) -> Iterator[CheckResult]:
    """Names the keys that have no effect; each in its own result if that changes what the agent does."""
    unused: Dict[Tuple[str, str], List[str]] = {}
    harmless: Dict[str, None] = {}
    for agent in agents:
        for key, meaning in unused_keys(agent).items():
            if changes_the_work(key, kind_of(agent)):
                unused.setdefault((key, meaning), []).append(agent.name)
            else:
                harmless[key] = None
    for (key, meaning), names in sorted(unused.items()):
        yield warning("front matter", f"{key} of {_several(names)} is not used: {meaning}")
    if harmless:
        yield ok("front matter", f"without effect here: {', '.join(sorted(harmless))}")


def _several(names: List[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {pluralize(more, 'more', 'more')}" if more > 0 else "")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def _workflows(workflows: Dict[str, Any], registry: Registry) -> Iterator[CheckResult]:
    count = 0
    for number, (name, written) in enumerate(workflows.items()):
        if count >= _MAX_WORKFLOW_FAULTS:
            left = pluralize(len(workflows) - number, "workflow")
            yield warning("workflow", f"{left} not checked", "Correct those above first.")
            return
        for fault in faults(name, written, registry.get):
            count += 1
            yield problem("workflow", f"{name}: {fault}", "Correct it in claude.json.")


def _models(agents: List[Agent]) -> Iterator[CheckResult]:
    wanted: Dict[str, List[str]] = {}
    wrong: Dict[str, None] = {}
    for agent in agents:
        if agent.wrong_model is not None:
            text = f"{agent.name} ({agent.file}) asks for {agent.wrong_model!r:.60}"
            advice = "Write one id or alias in its front matter."
            yield problem("model", f"{text}, which can't be the name of a model", advice)
            continue
        try:
            wanted.setdefault(resolve_model(call=None, agent=agent.model), []).append(agent.name)
        except InvalidOptionError as error:
            wrong[str(error)] = None
    for reason in wrong:
        yield problem("model", *reason.split(": ", 1))
    today = datetime.date.today()
    for model, names in wanted.items():
        found = retirement(model)
        if found is None:
            continue
        is_past = found.date is None or found.date < today
        when = "is retired" if is_past else f"retires on {found.date}"
        text = f"{model} {when}; it is the model of {_several(names)}"
        yield CheckResult("model", PROBLEM if is_past else WARNING, text, f"Use {found.successor}.")
    if wanted and not any(map(retirement, wanted)):
        yield ok("model", ", ".join(sorted(wanted)))


def _in_cloud(agents: List[Agent]) -> Iterator[CheckResult]:
    """Checks models for a cloud, which has its own names; only the user knows which one an alias means."""
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
        elif cloud.lacks_model(model, None):
            strange.setdefault(model, []).append(agent.name)
    for alias, names in aliases.items():
        variable, model = settings.alias_variable(alias), newest_model(alias)
        text = f"{variable} is not set, so that {cloud.title} is asked for {model} by {', '.join(names)}"
        state = PROBLEM if cloud.lacks_model(model, None) else WARNING
        yield CheckResult(
            "model", state, text, f"Set it to a model name of {cloud.title}, such as {cloud.example}."
        )
    for model, names in strange.items():
        text = f"{cloud.title} has no model {model!r}; it is the model of {', '.join(names)}"
        yield problem("model", text, cloud.naming)
