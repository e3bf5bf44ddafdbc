"""Runs the graph of a workflow: each step begins as soon as the steps it depends on have ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from anyio import to_thread
from graphlib import TopologicalSorter

from ..engine.result_builder import CallLabels, failed
from ..engine.task_group import TaskGroup
from ..errors import (
    BadReplyError,
    CallError,
    CancelledCallError,
    ClaudeForceError,
    DeadlineExceededError,
    InputError,
)
from ..types import AgentResult
from .graph import levels
from .items import Item, load_items, reads_files
from .models import STEP, ForEach, Step, Workflow
from .results import FAILED, RUNNING, SKIPPED, OnStep, StepEvent, StepResult
from .step_calls import StepAnswer, StepCall, StepCalls, default_template, template_values

# Errors that another call may not meet, besides those that a call retries itself.
_WORTH_A_RETRY = (BadReplyError, DeadlineExceededError)

RunStepCall = Callable[[StepCall], Awaitable[StepAnswer]]
OnCall = Callable[[AgentResult], None]


@dataclass(frozen=True)
class RunConfig:
    """What one run is given besides its workflow.

    Attributes:
        root: the folder that file names are relative to.
        max_calls: calls that may be unfinished at one time, those that wait for a slot included.
        now: a clock, in seconds.
        on_call, on_step: called as each call ends, and as a step changes.
        config_path: the configuration given in place of the project's own; None for the project's.
    """

    task: str
    inputs: Mapping[str, Any]
    root: Path
    max_calls: int
    now: Callable[[], float]
    pass_output: bool = True
    fail_fast: bool = False
    on_call: Optional[OnCall] = None
    on_step: Optional[OnStep] = None
    config_path: Optional[Path] = None


class WorkflowRunner:
    """Runs a workflow once. The workflow has passed `check`."""

    def __init__(self, workflow: Workflow, config: RunConfig, run: RunStepCall) -> None:
        self._workflow, self._config, self._run = workflow, config, run
        self._inputs = {**workflow.inputs, **config.inputs}
        order = [identity for level in levels(workflow.needs) for identity in level]
        self._steps = {step.id: step for step in workflow.steps}
        self._positions = {identity: number for number, identity in enumerate(order, start=1)}
        self._sorter = TopologicalSorter(workflow.needs)
        self._results: Dict[str, StepResult] = {}
        self._unfinished = asyncio.Semaphore(config.max_calls)
        self._began = config.now()
        self._is_cancelled = False

    async def run(self) -> Tuple[StepResult, ...]:
        """Returns the results of all steps in a topological order. Cancelling this cancels the calls."""
        self._sorter.prepare()
        async with TaskGroup() as group:
            self._start_ready(group)
        return tuple(self._results[identity] for identity in self._positions)

    @property
    def elapsed(self) -> float:
        """Seconds since the runner was made."""
        return self._config.now() - self._began

    def _start_ready(self, group: TaskGroup) -> None:
        for identity in sorted(self._sorter.get_ready(), key=self._positions.__getitem__):
            group.start_soon(self._run_step, identity, group)

    async def _run_step(self, identity: str, group: TaskGroup) -> None:
        step = self._steps[identity]
        reason = self._reason_to_skip(step)
        if reason is not None:
            result = StepResult(step.id, step.agent, SKIPPED, reason, optional=step.optional)
        else:
            result = await self._execute(step)
        if self._config.on_step is not None:
            failures, parts = sum(not one.success for one in result.results), len(result.results)
            event = StepEvent(step.id, step.agent, result.status, parts, parts, failures, result)
            self._config.on_step(event)
        self._results[identity] = result
        self._sorter.done(identity)
        self._start_ready(group)

    def _reason_to_skip(self, step: Step) -> Optional[str]:
        awaited = [self._results[identity] for identity in step.dependencies]
        missing = [one for one in awaited if not one.success and not one.optional]
        if missing:
            became = {FAILED: "failed", SKIPPED: "was skipped"}
            return "; ".join(f"it waits for '{one.id}', which {became[one.status]}" for one in missing)
        for one in self._results.values() if self._config.fail_fast else ():
            if one.status == FAILED and not one.optional:
                return f"'{one.id}' failed, and this workflow ends at the first failure"
        if self._is_cancelled:
            return "the run was cancelled where its calls are made"
        values = self._values(step)
        for condition in step.when:
            if not condition.holds(values[condition.source]):
                return f"it runs only when {condition}"
        return None

    def _values(self, step: Step) -> Dict[str, str]:
        return template_values(step, self._config.task, self._inputs, self._results)

    async def _execute(self, step: Step) -> StepResult:
        began = self.elapsed
        text = step.task or default_template(step, self._workflow, self._config.pass_output)
        calls = StepCalls(step, self._positions[step.id], text, self._values(step))
        fault: Optional[str] = None
        try:
            if step.foreach is not None:
                calls.set_items(await self._items(step.foreach))
            self._emit(calls)
            await self._run_parts(calls)
        except InputError as error:
            fault = str(error)
        return calls.result(began, self.elapsed, fault)

    async def _items(self, foreach: ForEach) -> Sequence[Item]:
        answers = self._results[foreach.value].answers if foreach.source == STEP else ()
        work = partial(load_items, foreach, self._config.root, self._inputs, answers)
        return await to_thread.run_sync(work) if reads_files(foreach) else work()

    async def _run_parts(self, calls: StepCalls) -> None:
        rest = iter(range(calls.count))
        async with TaskGroup() as group:
            # Not a task for each part: of a long list, tasks would take more memory than answers.
            for _ in range(min(calls.count, self._config.max_calls)):
                group.start_soon(self._run_some, calls, rest)

    async def _run_some(self, calls: StepCalls, rest: Iterator[int]) -> None:
        for index in rest:
            await self._run_part(calls, index)
            # Before Python 3.11, a semaphore that is acquired again at once overtakes those who wait for it.
            await asyncio.sleep(0)

    async def _run_part(self, calls: StepCalls, index: int) -> None:
        async with self._unfinished:
            for attempt in range(calls.step.retries + 1):
                answer = await self._call(calls, index, attempt)
                calls.add_answer(index, answer)
                self._is_cancelled |= isinstance(answer.result.error, CancelledCallError)
                if not _is_worth_a_retry(answer.result.error):
                    break
        calls.done += 1
        if self._config.on_call is not None:
            self._config.on_call(answer.result)
        self._emit(calls)

    async def _call(self, calls: StepCalls, index: int, attempt: int) -> StepAnswer:
        if self._is_cancelled:
            # After one call was cancelled where calls are made, no further one begins.
            return self._failed(calls, CancelledCallError("The run was cancelled"))
        try:
            work = partial(calls.call, index, attempt)
            return await self._run(await to_thread.run_sync(work) if calls.reads_files else work())
        except InputError as error:
            return self._failed(calls, error)

    def _failed(self, calls: StepCalls, error: ClaudeForceError) -> StepAnswer:
        labels = CallLabels(calls.step.agent, self._workflow.name, calls.position)
        return StepAnswer(failed(labels, error, None, 0.0))

    def _emit(self, calls: StepCalls) -> None:
        if self._config.on_step is not None:
            self._config.on_step(calls.event(RUNNING))


def _is_worth_a_retry(error: Optional[ClaudeForceError]) -> bool:
    if isinstance(error, CallError) and error.skipped:
        return False
    return isinstance(error, _WORTH_A_RETRY) or (isinstance(error, CallError) and error.retryable)
