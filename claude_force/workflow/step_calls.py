"""The calls of one step: one, or one for each item of its `foreach`, and the text that each asks. Pure
except for reading the files of items."""

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
    """One call of a workflow.

    `number` counts the parts of the step from 0, `position` the steps in their order from 1, and `attempt`
    the calls of one part from 0, of which a step with `retries` may make several.
    """

    step: Step
    number: int
    position: int
    task: str
    attempt: int = 0


class StepAnswer(NamedTuple):
    """The result of a call, and whether it is from an earlier process of the run."""

    result: AgentResult
    resumed: bool = False


class StepCalls:
    """The calls of a step as they are made; `template` is its task, and `values` are those of its names."""

    def __init__(self, step: Step, position: int, template: str, values: Mapping[str, str]) -> None:
        self.step, self.position = step, position
        self._template, self._values = template, values
        self._items: Optional[Sequence[Item]] = None
        self._last: Dict[int, AgentResult] = {}
        self._tries: List[AgentResult] = []
        self._resumed = self._failed = self.done = 0

    def set_items(self, items: Sequence[Item]) -> None:
        """Sets the items of the step's `foreach`, each of which is a part."""
        self._items = items

    @property
    def count(self) -> int:
        """The number of parts."""
        return 1 if self._items is None else len(self._items)

    @property
    def labels(self) -> Optional[Tuple[str, ...]]:
        """The labels of the items; None for a step without `foreach`."""
        return None if self.step.foreach is None else tuple(item.label for item in self._items or ())

    @property
    def reads_files(self) -> bool:
        """Whether `call` may read a file."""
        return self.step.foreach is not None and reads_files(self.step.foreach)

    def call(self, index: int, attempt: int = 0) -> StepCall:
        """Returns the call of a part; may read the file of its item. Raises InputError."""
        item = None if self._items is None else self._items[index]
        task = render(self._template, self._values, item)
        return StepCall(self.step, index, self.position, task, attempt)

    def add_answer(self, index: int, answer: StepAnswer) -> None:
        """Records the result of a call of this part."""
        before = self._last.get(index)
        self._failed += (not answer.result.success) - (before is not None and not before.success)
        self._last[index] = answer.result
        self._tries.append(answer.result)
        self._resumed += answer.resumed

    def event(self, status: str) -> StepEvent:
        """Returns an event with the state of the step."""
        return StepEvent(self.step.id, self.step.agent, status, self.done, self.count, self._failed)

    def result(self, began: float, ended: float, fault: Optional[str]) -> StepResult:
        """Returns the result of the step; `fault` is why its items can't be had."""
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
    """Returns the template of a step without a task: the workflow's task, the answers before it, its item."""
    parts = ["${task}"]
    source = step.foreach.value if step.foreach is not None and step.foreach.source == STEP else None
    for identity in step.dependencies if pass_output else ():
        # Of the step whose list it goes through, each part gets its own item only.
        if identity != source:
            agent = workflow.step(identity).agent
            head = f"<previous_answer step={quoteattr(identity)} agent={quoteattr(agent)}>"
            parts.append(f"{head}\n${{steps.{identity}}}\n</previous_answer>")
    if step.foreach is not None:
        is_file = step.foreach.source == FILES
        parts.append(
            '<file path="${item}">\n${item.text}\n</file>' if is_file else "<item>\n${item}\n</item>"
        )
    return "\n\n".join(parts)


def render(template: str, values: Mapping[str, str], item: Optional[Item] = None) -> str:
    """Returns the text of a template for an item. Raises InputError where the item lacks a field."""
    own = {} if item is None else item.values(template_names(template))
    try:
        return fill_template(template, {**values, **own})
    except KeyError as error:
        known = ", ".join(sorted(own)) or "none"
        raise InputError(f"The task has ${{{error.args[0]}}}, and its item has {known} only.") from None


def template_values(
    step: Step, task: str, inputs: Mapping[str, Any], results: Mapping[str, StepResult]
) -> Dict[str, str]:
    """Returns the values of the names of the task, of inputs and of dependencies."""
    values = {TASK: task}
    for name, value in inputs.items():
        values[INPUTS + name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    for identity in step.dependencies:
        values[STEPS + identity] = results[identity].output
    return values
