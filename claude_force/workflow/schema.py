"""The form of a workflow made in Python, by the rules that claude.json is read by. Pure."""

from __future__ import annotations

from typing import Any, Iterator, List, Mapping

from .models import LIST, SOURCES, TESTS, Condition, ForEach, Step, Workflow
from .parser import READERS

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


def form_faults(workflow: Workflow) -> List[str]:
    """All others; with none, every field is of its kind."""
    found: List[str] = []
    if not isinstance(workflow.name, str) or not workflow.name:
        found.append("its name is no text")
    if not isinstance(workflow.steps, (tuple, list)):
        return [*found, f"its steps are {workflow.steps!r:.60}; give a tuple of Step"]
    for number, step in enumerate(workflow.steps, start=1):
        if isinstance(step, Step):
            found += [f"step {step.id!r:.60}: {fault}" for fault in _of_step(step)]
        else:
            found.append(f"step {number} is {step!r:.60}; give a Step")
    return found


def _of_step(step: Step) -> Iterator[str]:
    for name in _READ:
        value = getattr(step, name)
        try:
            READERS[name](value)
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
