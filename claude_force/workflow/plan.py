"""What a run of a workflow would do and cost, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ..agents import check_context
from ..engine.estimate import Estimate, Range
from ..errors import InputError
from ..types import AgentResult, Call
from .graph import levels
from .items import Item, load_items
from .models import STEP, Step, Workflow
from .results import FAILED, SUCCEEDED, StepResult
from .runner import RunConfig
from .step_calls import StepCall, StepCalls, default_template, template_values

# In characters: more than any model has written in one answer.
_LONGEST_ANSWER = 1_000_000

# A call for a part; raises InputError.
Prepare = Callable[[StepCall], Call]
# Bytes of the answer to a call.
SizeOf = Callable[[Call], float]


class PlannedStep(NamedTuple):
    """A step, the group that it can run in, from 1, and its number of calls; None where an answer decides.

    `problem` is why it would fail as things are, such as a pattern that no file matches.
    """

    step: Step
    level: int
    calls: Optional[int]
    problem: Optional[str] = None


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        steps: in a topological order.
        estimate: as if all conditions hold, and a step whose number of calls is not known makes one.
    """

    workflow: Workflow
    steps: Tuple[PlannedStep, ...]
    estimate: Estimate

    @property
    def levels(self) -> List[List[str]]:
        """The ids in groups; all of a group can run at once."""
        groups: List[List[str]] = [[] for _ in range(max(one.level for one in self.steps))]
        for one in self.steps:
            groups[one.level - 1].append(one.step.id)
        return groups


class DraftStep(NamedTuple):
    """A step as it is planned, with its calls, or why there can be none."""

    planned: PlannedStep
    calls: Sequence[Union[Call, InputError]]


def plan_steps(
    workflow: Workflow, setting: RunConfig, prepare: Prepare, size_of: SizeOf
) -> Iterator[DraftStep]:
    """The steps in a topological order, each told answers of a size that `size_of` gives. Reads files."""
    results: Dict[str, StepResult] = {}
    inputs = {**workflow.inputs, **setting.inputs}
    for level, group in enumerate(levels(workflow.needs), start=1):
        for identity in group:
            step = workflow.step(identity)
            try:
                parts = _parts(workflow, step, setting, inputs, results)
            except InputError as error:
                results[identity] = StepResult(step.id, step.agent, FAILED, str(error))
                yield DraftStep(PlannedStep(step, level, 0, str(error)), [error])
                continue
            calls = [_call(parts, number, prepare) for number in range(parts.count)]
            results[identity] = _answered(step, parts, calls, size_of)
            is_open = step.foreach is not None and step.foreach.source == STEP
            yield DraftStep(PlannedStep(step, level, None if is_open else parts.count), calls)


def _parts(
    workflow: Workflow,
    step: Step,
    setting: RunConfig,
    inputs: Mapping[str, Any],
    results: Mapping[str, StepResult],
) -> StepCalls:
    text = step.task or default_template(step, workflow, setting.pass_output)
    parts = StepCalls(step, len(results) + 1, text, template_values(step, setting.task, inputs, results))
    if step.foreach is not None:
        is_open = step.foreach.source == STEP
        parts.set_items([Item("1", "")] if is_open else load_items(step.foreach, setting.root, inputs))
    return parts


def _call(parts: StepCalls, number: int, prepare: Prepare) -> Union[Call, InputError]:
    try:
        return prepare(parts.call(number))
    except InputError as error:
        return error


def _answered(
    step: Step, parts: StepCalls, calls: Sequence[Union[Call, InputError]], size_of: SizeOf
) -> StepResult:
    answers = [
        AgentResult(step.agent, True, "" if isinstance(call, InputError) else _supposed(size_of(call)))
        for call in calls
    ]
    return StepResult(step.id, step.agent, SUCCEEDED, results=tuple(answers), labels=parts.labels)


def _supposed(size: float) -> str:
    return "x" * round(min(size, _LONGEST_ANSWER))


def with_longest_answers(step: DraftStep, longest: DraftStep) -> PlannedStep:
    """The step, with what would be its problem if all answers before it were as long as they can be."""
    planned = step.planned
    problem = next(filter(None, map(_too_long, longest.calls)), None)
    if planned.problem is not None or problem is None:
        return planned
    return planned._replace(problem=f"with the longest answers before it: {problem}")


def _too_long(call: Union[Call, InputError]) -> Optional[str]:
    try:
        if not isinstance(call, InputError):
            check_context(call)
    except InputError as error:
        return str(error)
    return None


def combine_estimates(low: Estimate, expected: Estimate, high: Estimate) -> Estimate:
    """One estimate of three, which suppose short, usual and longest answers."""

    def spread(name: str) -> Range:
        return Range(getattr(low, name)[0], getattr(expected, name)[1], getattr(high, name)[2])

    return Estimate(
        expected.rows,
        expected.cached,
        expected.unrunnable,
        spread("input_tokens"),
        spread("output_tokens"),
        None if expected.cost is None else spread("cost"),
        expected.unpriced,
    )
