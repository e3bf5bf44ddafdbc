"""The parts of one step: one, or one for each thing that it is run over."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple
from xml.sax.saxutils import quoteattr

from ..errors import InputError
from ..types import AgentResult
from .items import Item, reads_files
from .models import FILES, INPUTS, STEP, STEPS, TASK, Step, Workflow, fill_template, template_names
from .results import FAILED, SUCCEEDED, StepEvent, StepResult


class StepCall(NamedTuple):
    """One call of a workflow: part `number`, from 0, of the step at `position`, from 1; `attempt`, from 0,
    counts the calls of a part whose step has `retries`."""

    step: Step
    number: int
    position: int
    task: str
    attempt: int = 0


class StepAnswer(NamedTuple):
    """A part's result, and whether it is from an earlier process of the run."""

    result: AgentResult
    resumed: bool = False


class StepCalls:
    """`text` is the step's template and `values` what its names stand for, beside those of an item."""

    def __init__(self, step: Step, position: int, text: str, values: Mapping[str, str]) -> None:
        self.step, self.position = step, position
        self._text, self._values = text, values
        self._items: Optional[Sequence[Item]] = None
        self._last: Dict[int, AgentResult] = {}
        self._tries: List[AgentResult] = []
        self._resumed = self._failed = self.done = 0

    def set_items(self, items: Sequence[Item]) -> None:
        """There is a part for each of them."""
        self._items = items

    @property
    def count(self) -> int:
        return 1 if self._items is None else len(self._items)

    @property
    def labels(self) -> Optional[Tuple[str, ...]]:
        """Of the things that it is run over; None where it is not run over any."""
        return None if self.step.foreach is None else tuple(item.label for item in self._items or ())

    @property
    def reads_files(self) -> bool:
        """Whether `part` may read one."""
        return self.step.foreach is not None and reads_files(self.step.foreach)

    def call(self, index: int, attempt: int = 0) -> StepCall:
        """Reads the file that its item is, if its task has the text. Raises InputError."""
        item = None if self._items is None else self._items[index]
        return StepCall(self.step, index, self.position, render(self._text, self._values, item), attempt)

    def add_answer(self, index: int, answered: StepAnswer) -> None:
        """A call of this part has ended."""
        before = self._last.get(index)
        self._failed += (not answered.result.success) - (before is not None and not before.success)
        self._last[index] = answered.result
        self._tries.append(answered.result)
        self._resumed += answered.resumed

    def event(self, status: str) -> StepEvent:
        """How far they are."""
        return StepEvent(self.step.id, self.step.agent, status, self.done, self.count, self._failed)

    def result(self, began: float, ended: float, fault: Optional[str]) -> StepResult:
        """Of the step; `fault` is why it has no parts."""
        reason = fault or self._failure()
        return StepResult(
            self.step.id,
            self.step.agent,
            SUCCEEDED if reason is None else FAILED,
            reason,
            tuple(self._last[index] for index in sorted(self._last)),
            self.labels,
            tuple(self._tries),
            began,
            ended,
            self._resumed,
            self.step.optional,
        )

    def _failure(self) -> Optional[str]:
        failures = [(index, one) for index, one in sorted(self._last.items()) if not one.success]
        if not failures:
            return None
        index, first = failures[0]
        text = "; ".join(first.errors or ["no reason was given"])
        if self.labels is None:
            return text
        return f"{len(failures)} of {self.count} parts failed, the first of them {self.labels[index]}: {text}"


def default_template(step: Step, workflow: Workflow, pass_output: bool) -> str:
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
    own = {} if item is None else item.values(template_names(text))
    try:
        return fill_template(text, {**values, **own})
    except KeyError as error:
        known = ", ".join(sorted(own)) or "none"
        raise InputError(f"The task has ${{{error.args[0]}}}, and its item has {known} only.") from None


def template_values(
    step: Step, task: str, inputs: Mapping[str, Any], results: Mapping[str, StepResult]
) -> Dict[str, str]:
    """What the names of the task, of inputs and of dependencies stand for."""
    values = {INPUTS + name: value_text(value) for name, value in inputs.items()}
    values[TASK] = task
    for identity in step.dependencies:
        values[STEPS + identity] = results[identity].output
    return values


def value_text(value: Any) -> str:
    """An input as templates and conditions see it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
