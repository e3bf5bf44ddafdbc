"""Finds what is wrong with a workflow before anything is sent. Pure."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from ..agents.names import suggest
from ..errors import InputError, InvalidWorkflowError
from .graph import cycles, dependents
from .models import (
    INPUT,
    INPUTS,
    ITEM,
    LIST,
    SOURCES,
    STEP,
    STEPS,
    TASK,
    TESTS,
    Condition,
    ForEach,
    Step,
    Workflow,
    split_name,
    template_names,
)
from .parser import FIELD_PARSERS, MAX_FAULTS, MORE_FAULTS, read_workflow

# Raises InputError for an agent that can't be run.
CheckAgent = Callable[[str], Any]

_PARSED = ("id", "agent", "task", "dependencies", "model", "max_tokens", "retries", "optional", "tools")
# In claude.json, null means the default of these fields; a Step does not accept None for them.
_REQUIRED = ("dependencies", "retries", "optional")


def check(workflow: Workflow, check_agent: CheckAgent, inputs: Mapping[str, Any]) -> None:
    """Raises InvalidWorkflowError with the first `MAX_FAULTS` faults; `inputs` are the values of this run."""
    # A workflow of claude.json was checked when it was parsed.
    wrong = [*_input_type_faults(workflow, inputs), *(() if workflow.faults else _type_faults(workflow))]
    if wrong:
        raise InvalidWorkflowError(str(workflow.name), wrong)
    found = (
        *workflow.faults,
        *_first(_graph_faults(workflow)),
        *_first(_input_faults(workflow, inputs)),
        *_first(_faults_of_steps(workflow, check_agent, {**workflow.inputs, **inputs})),
    )
    if found:
        raise InvalidWorkflowError(workflow.name, list(_first(found)))


def faults(name: str, written: Any, check_agent: CheckAgent) -> List[str]:
    """Returns the faults of a workflow of claude.json, supposing that a run has all inputs."""
    try:
        workflow = read_workflow(name, written)
        given: Dict[str, Any] = {one: [] for one, default in workflow.inputs.items() if default is None}
        check(workflow, check_agent, given)
    except InvalidWorkflowError as error:
        return list(error.faults)
    return []


def _first(found: Iterable[str]) -> Iterator[str]:
    # To suggest a name takes time, and a project may have any number of wrong ones.
    rest = iter(found)
    yield from islice(rest, MAX_FAULTS)
    if next(rest, None) is not None:
        yield MORE_FAULTS


def _graph_faults(workflow: Workflow) -> Iterator[str]:
    ids = [step.id for step in workflow.steps]
    if not ids and not workflow.faults:
        yield "it has no steps"
    for identity in dict.fromkeys(one for one in ids if ids.count(one) > 1):
        yield f"{ids.count(identity)} steps have the id '{identity}': give each its own"
    dependencies = workflow.needs
    found = cycles(dependencies)
    for path in found:
        yield f"these steps wait for each other: {' -> '.join(path)}; take one of the dependencies out"
    in_cycles = {identity for path in found for identity in path}
    for identity in sorted(dependents(dependencies, in_cycles) - in_cycles, key=ids.index):
        yield f"step '{identity}' is never reached: it waits for steps that wait for each other"


def _input_faults(workflow: Workflow, inputs: Mapping[str, Any]) -> Iterator[str]:
    for name, default in workflow.inputs.items():
        if inputs.get(name, default) is None:
            is_required = default is None
            reason = (
                "is not given and has no default" if is_required else "is null; leave it out for its default"
            )
            yield f"input '{name}' {reason}"
    for name, value in inputs.items():
        if not _is_json(value):
            yield f"input '{name}' is not a text, number, list or object of JSON: it is {value!r:.60}"
        if name not in workflow.inputs and not _uses(workflow, name):
            yield f"no step uses the input '{name}'{_hint(name, list(workflow.inputs))}"


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _uses(workflow: Workflow, name: str) -> bool:
    return any(
        INPUTS + name in template_names(step.task or "")
        or (step.foreach is not None and (step.foreach.source, step.foreach.value) == (INPUT, name))
        or any(condition.source == INPUTS + name for condition in step.when)
        for step in workflow.steps
    )


def _faults_of_steps(workflow: Workflow, check_agent: CheckAgent, inputs: Mapping[str, Any]) -> Iterator[str]:
    ids = [step.id for step in workflow.steps]
    for step in workflow.steps:
        prefix = f"step '{step.id}': "
        # A field that could not be parsed has a default in its place, which is not checked.
        is_complete = not any(fault.startswith(prefix) for fault in workflow.faults)
        for fault in _faults_of_step(step, ids, check_agent):
            yield prefix + fault
        for fault in _name_faults(step, ids, inputs) if is_complete else ():
            yield prefix + fault


def _faults_of_step(step: Step, ids: Sequence[str], check_agent: CheckAgent) -> Iterator[str]:
    try:
        if step.agent:
            check_agent(step.agent)
    except InputError as error:
        yield str(error)
    for identity in step.dependencies:
        if identity not in ids:
            yield f"there is no step '{identity}' that it could wait for{_hint(identity, ids)}"


def _name_faults(step: Step, ids: Sequence[str], inputs: Mapping[str, Any]) -> Iterator[str]:
    """Yields the faults of the names in conditions, in `foreach` and in the task."""
    for condition in step.when:
        yield from _name_fault(condition.source, step, ids, inputs, '"when"')
    if step.foreach is not None:
        source, value = step.foreach.source, step.foreach.value
        if source == STEP:
            yield from _step_fault(value, step, ids, '"foreach"')
        elif source == INPUT:
            yield from _missing_input(value, inputs, '"foreach"')
            if value in inputs and not isinstance(inputs[value], (list, tuple)):
                yield f"\"foreach\" is over the input '{value}', which is not a list"
    for name in template_names(step.task or ""):
        yield from _name_fault(name, step, ids, inputs, "its task")


def _name_fault(
    name: str, step: Step, ids: Sequence[str], inputs: Mapping[str, Any], where: str
) -> Iterator[str]:
    kind, rest = split_name(name)
    if kind == STEPS:
        yield from _step_fault(rest, step, ids, where)
    elif kind == INPUTS:
        yield from _missing_input(rest, inputs, where)
    elif kind == ITEM:
        if step.foreach is None:
            yield f'{where} names an item, and it has no "foreach"'
    elif name != TASK:
        known = ["task", "item", *(f"steps.{one}" for one in step.dependencies)]
        known += [f"inputs.{one}" for one in inputs]
        yield f"{where} has ${{{name}}}, which is not a known name{_hint(name, known)}; write $${{ for ${{"


def _step_fault(identity: str, step: Step, ids: Sequence[str], where: str) -> Iterator[str]:
    if identity not in ids:
        yield f"{where} names the step '{identity}', which is not there{_hint(identity, ids)}"
    elif identity not in step.dependencies:
        yield f"{where} names the step '{identity}': add it to its dependencies"


def _missing_input(name: str, inputs: Mapping[str, Any], where: str) -> Iterator[str]:
    if name not in inputs:
        yield f"{where} names the input '{name}', which is not given{_hint(name, list(inputs))}"


def _hint(name: str, known: Sequence[str]) -> str:
    close: Optional[List[str]] = suggest(name, known)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _input_type_faults(workflow: Workflow, inputs: Any) -> List[str]:
    return [
        f"{where} are {values!r:.60}; give a dict of names and values"
        for where, values in (("its inputs", workflow.inputs), ("the inputs of this run", inputs))
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values)
    ]


def _type_faults(workflow: Workflow) -> List[str]:
    """Returns which fields of a workflow made in Python have values of the wrong type."""
    found: List[str] = []
    if not isinstance(workflow.name, str) or not workflow.name:
        found.append("its name is not a text")
    if not isinstance(workflow.steps, (tuple, list)):
        return [*found, f"its steps are {workflow.steps!r:.60}; give a tuple of Step"]
    for number, step in enumerate(workflow.steps, start=1):
        if isinstance(step, Step):
            found += [f"step {step.id!r:.60}: {fault}" for fault in _type_faults_of_step(step)]
        else:
            found.append(f"step {number} is {step!r:.60}; give a Step")
    return found


def _type_faults_of_step(step: Step) -> Iterator[str]:
    for name in _PARSED:
        value = getattr(step, name)
        try:
            FIELD_PARSERS[name](value)
        except ValueError as error:
            yield f"{name} is {value!r:.60}; {error}"
        else:
            if value is None and name in _REQUIRED:
                yield f"{name} is None; leave it out for its default"
    if not isinstance(step.when, (tuple, list)) or not all(map(_is_condition, step.when)):
        yield f"when is {step.when!r:.60}; give a tuple of Condition, with tests of {', '.join(TESTS)}"
    if step.foreach is not None and not _is_foreach(step.foreach):
        yield f"foreach is {step.foreach!r:.60}; give a ForEach over {', '.join((*SOURCES, LIST))}"


def _is_condition(value: Any) -> bool:
    if not isinstance(value, Condition) or value.test not in TESTS:
        return False
    is_known = isinstance(value.source, str) and value.source.startswith((STEPS, INPUTS))
    return is_known and isinstance(value.text, str)


def _is_foreach(value: Any) -> bool:
    if not isinstance(value, ForEach):
        return False
    if value.source == LIST:
        return isinstance(value.value, (tuple, list))
    if value.source == "files" and isinstance(value.value, (tuple, list)):
        return bool(value.value) and all(isinstance(one, str) for one in value.value)
    return value.source in SOURCES and isinstance(value.value, str) and bool(value.value)
