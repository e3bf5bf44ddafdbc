"""The parts of one step: one, or one for each thing that it is run over."""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..types import AgentResult
from .items import Item, reads_files
from .models import Step
from .prompts import render
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

    def go_through(self, items: Sequence[Item]) -> None:
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

    def part(self, index: int, attempt: int = 0) -> StepCall:
        """Reads the file that its item is, if its task has the text. Raises InputError."""
        item = None if self._items is None else self._items[index]
        return StepCall(self.step, index, self.position, render(self._text, self._values, item), attempt)

    def take(self, index: int, answered: StepAnswer) -> None:
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
