"""The faults of a workflow as a graph, told together before anything is sent. Pure."""

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


def check(workflow: Workflow, check_agent: CheckAgent, inputs: Mapping[str, Any]) -> None:
    """Raises InvalidWorkflowError with the faults, at most `MOST_FAULTS` and a word that there are more.

    `inputs` are the values of this run.
    """
    # What was read has been looked at as it was.
    wrong = [*input_faults(workflow, inputs), *(() if workflow.faults else schema_faults(workflow))]
    if wrong:
        raise InvalidWorkflowError(str(workflow.name), wrong)
    told = (
        *workflow.faults,
        *_first(_of_graph(workflow)),
        *_first(_of_inputs(workflow, inputs)),
        *_first(_of_steps(workflow, check_agent, {**workflow.inputs, **inputs})),
    )
    found = list(_first(told))
    if found:
        raise InvalidWorkflowError(workflow.name, found)


def _first(told: Iterable[str]) -> Iterator[str]:
    """To look for what a name may mean takes time, and a project may have any number of wrong ones."""
    rest = iter(told)
    yield from islice(rest, MAX_FAULTS)
    if next(rest, None) is not None:
        yield MORE_FAULTS


def _of_steps(workflow: Workflow, check_agent: CheckAgent, known: Mapping[str, Any]) -> Iterator[str]:
    for step in workflow.steps:
        place = f"step '{step.id}': "
        # What a step says that could not be read is not known to be missing.
        is_whole = not any(fault.startswith(place) for fault in workflow.faults)
        for fault in _of_step(step, workflow, check_agent, known if is_whole else None):
            yield place + fault


def faults(name: str, written: Any, check_agent: CheckAgent) -> List[str]:
    """Of a workflow as claude.json has it; none where it can be run once it is given its inputs."""
    try:
        workflow = read_workflow(name, written)
        given: Dict[str, Any] = {one: [] for one, default in workflow.inputs.items() if default is None}
        check(workflow, check_agent, given)
    except InvalidWorkflowError as error:
        return list(error.faults)
    return []


def _of_graph(workflow: Workflow) -> Iterator[str]:
    ids = [step.id for step in workflow.steps]
    if not ids and not workflow.faults:
        yield "it has no steps"
    for identity in dict.fromkeys(one for one in ids if ids.count(one) > 1):
        yield f"{ids.count(identity)} steps have the id '{identity}': give each its own"
    needs = workflow.needs
    found = cycles(needs)
    for path in found:
        yield f"these steps wait for each other: {' -> '.join(path)}; take one of the dependencies out"
    round_about = {identity for path in found for identity in path}
    for identity in sorted(dependents(needs, round_about) - round_about, key=ids.index):
        yield f"step '{identity}' is never reached: it waits for steps that wait for each other"


def _of_inputs(workflow: Workflow, inputs: Mapping[str, Any]) -> Iterator[str]:
    for name, default in workflow.inputs.items():
        if inputs.get(name, default) is None:
            mend = (
                "is not given and has no default" if default is None else "is null; its default needs no word"
            )
            yield f"input '{name}' {mend}"
    for name, value in inputs.items():
        if not _is_json(value):
            yield f"input '{name}' is no text, number, list or object of JSON: it is {value!r:.60}"
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
        or any(one.source == INPUTS + name for one in step.when)
        for step in workflow.steps
    )


def _of_step(
    step: Step, workflow: Workflow, check_agent: CheckAgent, inputs: Optional[Mapping[str, Any]]
) -> Iterator[str]:
    """`inputs` are None for a step of which not all could be read."""
    try:
        if step.agent:
            check_agent(step.agent)
    except InputError as error:
        yield str(error)
    ids = [one.id for one in workflow.steps]
    for identity in step.dependencies:
        if identity not in ids:
            yield f"there is no step '{identity}' that it could wait for{_hint(identity, ids)}"
    if inputs is None:
        return
    for condition in step.when:
        yield from _of_name(condition.source, step, ids, inputs, '"when"')
    yield from _of_foreach(step, ids, inputs)
    for name in template_names(step.task or ""):
        yield from _of_name(name, step, ids, inputs, "its task")


def _of_foreach(step: Step, ids: Sequence[str], inputs: Mapping[str, Any]) -> Iterator[str]:
    if step.foreach is None:
        return
    source, value = step.foreach.source, step.foreach.value
    if source == STEP:
        yield from _not_awaited(value, step, ids, '"foreach"')
    elif source == INPUT:
        yield from _not_given(value, inputs, '"foreach"')
        if value in inputs and not isinstance(inputs[value], (list, tuple)):
            yield f"\"foreach\" is over the input '{value}', which is no list"


def _of_name(
    name: str, step: Step, ids: Sequence[str], inputs: Mapping[str, Any], where: str
) -> Iterator[str]:
    kind, rest = split_name(name)
    if kind == STEPS:
        yield from _not_awaited(rest, step, ids, where)
    elif kind == INPUTS:
        yield from _not_given(rest, inputs, where)
    elif kind == ITEM:
        if step.foreach is None:
            yield f'{where} names an item, and it has no "foreach"'
    elif name != TASK:
        known = ["task", "item", *(f"steps.{one}" for one in step.dependencies)]
        known += [f"inputs.{one}" for one in inputs]
        yield f"{where} has ${{{name}}}, which stands for nothing{_hint(name, known)}; $${{ is a plain ${{"


def _not_awaited(identity: str, step: Step, ids: Sequence[str], where: str) -> Iterator[str]:
    if identity not in ids:
        yield f"{where} names the step '{identity}', which is not there{_hint(identity, ids)}"
    elif identity not in step.dependencies:
        yield f"{where} names the step '{identity}': add it to its dependencies"


def _not_given(name: str, inputs: Mapping[str, Any], where: str) -> Iterator[str]:
    if name not in inputs:
        yield f"{where} names the input '{name}', which is not given{_hint(name, list(inputs))}"


def _hint(name: str, known: Sequence[str]) -> str:
    close: Optional[List[str]] = suggest(name, known)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


_READ = ("id", "agent", "task", "dependencies", "model", "max_tokens", "retries", "optional")
# None stands for a default in claude.json; here it would be a value.
_NEEDED = ("dependencies", "retries", "optional")


def input_faults(workflow: Workflow, inputs: Any) -> List[str]:
    """Of its defaults, and of the values of this run."""
    return [
        f"{where} are {values!r:.60}; give a dict of names and values"
        for where, values in (("its inputs", workflow.inputs), ("the inputs of this run", inputs))
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values)
    ]


def schema_faults(workflow: Workflow) -> List[str]:
    """All others; with none, every field is of its kind."""
    found: List[str] = []
    if not isinstance(workflow.name, str) or not workflow.name:
        found.append("its name is no text")
    if not isinstance(workflow.steps, (tuple, list)):
        return [*found, f"its steps are {workflow.steps!r:.60}; give a tuple of Step"]
    for number, step in enumerate(workflow.steps, start=1):
        if isinstance(step, Step):
            found += [f"step {step.id!r:.60}: {fault}" for fault in _fields_of_step(step)]
        else:
            found.append(f"step {number} is {step!r:.60}; give a Step")
    return found


def _fields_of_step(step: Step) -> Iterator[str]:
    for name in _READ:
        value = getattr(step, name)
        try:
            FIELD_PARSERS[name](value)
        except ValueError as error:
            yield f"{name} is {value!r:.60}; {error}"
        else:
            if value is None and name in _NEEDED:
                yield f"{name} is None; leave it out for its default"
    if not isinstance(step.when, (tuple, list)) or not all(map(_is_condition, step.when)):
        yield f"when is {step.when!r:.60}; give a tuple of Condition, with tests of {', '.join(TESTS)}"
    if step.foreach is not None and not _is_foreach(step.foreach):
        yield f"foreach is {step.foreach!r:.60}; give a ForEach over {', '.join((*SOURCES, LIST))}"


def _is_condition(value: Any) -> bool:
    if not isinstance(value, Condition) or value.test not in TESTS:
        return False
    known = isinstance(value.source, str) and value.source.startswith(("steps.", "inputs."))
    return known and isinstance(value.text, str)


def _is_foreach(value: Any) -> bool:
    if not isinstance(value, ForEach):
        return False
    if value.source == LIST:
        return isinstance(value.value, (tuple, list))
    if value.source == "files" and isinstance(value.value, (tuple, list)):
        return bool(value.value) and all(isinstance(one, str) for one in value.value)
    return value.source in SOURCES and isinstance(value.value, str) and bool(value.value)
