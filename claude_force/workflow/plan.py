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

# Returns the call of a part of a step. Raises InputError.
Prepare = Callable[[StepCall], Call]
# Returns how long the answer to a call is supposed to be, in bytes.
SizeOf = Callable[[Call], float]


class PlannedStep(NamedTuple):
    """A step of a plan.

    Attributes:
        level: the group of steps that it can run in, from 1.
        calls: the number of its calls; None where an answer decides that.
        problem: why it would fail as things are, such as a pattern that no file matches.
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
        estimate: supposes that all conditions hold, and one call for a step whose number of calls is unknown.

    Example:
        plan = orchestrator.plan("release", "Version 2")
        print(plan.levels, plan.estimate.cost)
    """

    workflow: Workflow
    steps: Tuple[PlannedStep, ...]
    estimate: Estimate

    @property
    def levels(self) -> List[List[str]]:
        """The ids in groups; all steps of a group can run at once."""
        groups: List[List[str]] = [[] for _ in range(max(one.level for one in self.steps))]
        for one in self.steps:
            groups[one.level - 1].append(one.step.id)
        return groups


class DraftStep(NamedTuple):
    """A planned step with its calls, or with the error of those that can't be made."""

    planned: PlannedStep
    calls: Sequence[Union[Call, InputError]]


def plan_steps(
    workflow: Workflow, config: RunConfig, prepare: Prepare, size_of: SizeOf
) -> Iterator[DraftStep]:
    """Yields the steps in a topological order, supposing answers of the sizes of `size_of`. Reads files."""
    results: Dict[str, StepResult] = {}
    inputs = {**workflow.inputs, **config.inputs}
    for level, group in enumerate(levels(workflow.needs), start=1):
        for step in map(workflow.step, group):
            is_open = step.foreach is not None and step.foreach.source == STEP
            try:
                step_calls = _step_calls(workflow, step, config, inputs, results)
            except InputError as error:
                results[step.id] = StepResult(step.id, step.agent, FAILED, str(error))
                yield DraftStep(PlannedStep(step, level, 0, str(error)), [error])
                continue
            calls = [_call(step_calls, number, prepare) for number in range(step_calls.count)]
            results[step.id] = _supposed_result(step, step_calls, calls, size_of)
            yield DraftStep(PlannedStep(step, level, None if is_open else step_calls.count), calls)


def _step_calls(
    workflow: Workflow,
    step: Step,
    config: RunConfig,
    inputs: Mapping[str, Any],
    results: Mapping[str, StepResult],
) -> StepCalls:
    template = step.task or default_template(step, workflow, config.pass_output)
    values = template_values(step, config.task, inputs, results)
    calls = StepCalls(step, len(results) + 1, template, values)
    if step.foreach is not None:
        is_open = step.foreach.source == STEP
        calls.set_items([Item("1", "")] if is_open else load_items(step.foreach, config.root, inputs))
    return calls


def first_call(step: Step, workflow: Workflow, config: RunConfig) -> StepCall:
    """Returns the first call of a step that waits for no other; may read a file. Raises InputError."""
    calls = _step_calls(workflow, step, config, {**workflow.inputs, **config.inputs}, {})
    if not calls.count:
        raise InputError(f"Step '{step.id}' has nothing to run for: its list is empty.")
    return calls.call(0)


def _call(calls: StepCalls, number: int, prepare: Prepare) -> Union[Call, InputError]:
    try:
        return prepare(calls.call(number))
    except InputError as error:
        return error


def _supposed_result(
    step: Step, step_calls: StepCalls, calls: Sequence[Union[Call, InputError]], size_of: SizeOf
) -> StepResult:
    sizes = [0 if isinstance(call, InputError) else min(size_of(call), _LONGEST_ANSWER) for call in calls]
    answers = tuple(AgentResult(step.agent, True, "x" * round(size)) for size in sizes)
    return StepResult(step.id, step.agent, SUCCEEDED, results=answers, labels=step_calls.labels)


def with_longest_answers(step: DraftStep, longest: DraftStep) -> PlannedStep:
    """Returns the step with the problem that it would have after answers as long as they can be."""
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
    """Returns the estimate of three, which suppose short, usual and longest answers."""

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
