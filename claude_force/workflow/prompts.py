"""What each step's agent is told: its template, or the usual one, with its values. Pure."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional
from xml.sax.saxutils import quoteattr

from ..errors import InputError
from .items import Item
from .models import FILES, STEP, Step, Workflow
from .results import StepResult
from .template import INPUTS, STEPS, TASK, fill, names_in


def usual_template(step: Step, workflow: Workflow, pass_output: bool) -> str:
    """For a step that has none: the workflow's task, what its dependencies answered, and its item."""
    parts = ["${task}"]
    source = step.foreach.value if step.foreach is not None and step.foreach.source == STEP else None
    for identity in step.dependencies if pass_output else ():
        # Of the step whose list it goes through, each part gets its own item only.
        if identity != source:
            agent = workflow.step(identity).agent
            head = f"<previous_answer step={quoteattr(identity)} agent={quoteattr(agent)}>"
            parts.append(f"{head}\n${{steps.{identity}}}\n</previous_answer>")
    if step.foreach is not None and step.foreach.source == FILES:
        parts.append('<file path="${item}">\n${item.text}\n</file>')
    elif step.foreach is not None:
        parts.append("<item>\n${item}\n</item>")
    return "\n\n".join(parts)


def render(text: str, values: Mapping[str, str], item: Optional[Item] = None) -> str:
    """A template's text for one part. Raises InputError where its item has no such field."""
    own = {} if item is None else item.values(names_in(text))
    try:
        return fill(text, {**values, **own})
    except KeyError as error:
        known = ", ".join(sorted(own)) or "none"
        raise InputError(f"The task has ${{{error.args[0]}}}, and its item has {known} only.") from None


def values_of(
    step: Step, task: str, inputs: Mapping[str, Any], results: Mapping[str, StepResult]
) -> Dict[str, str]:
    """What the names of the task, of inputs and of dependencies stand for."""
    values = {INPUTS + name: as_text(value) for name, value in inputs.items()}
    values[TASK] = task
    for identity in step.dependencies:
        values[STEPS + identity] = results[identity].output
    return values


def as_text(value: Any) -> str:
    """An input as templates and conditions see it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
