"""Runs a graph of steps over any async `run`: what can begin begins, what is needed is waited for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Awaitable, Callable, Collection, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from anyio import to_thread
from graphlib import TopologicalSorter

from ..engine.result_builder import CallLabels, failed
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
from .items import Item, items_of, reads_files
from .models import STEP, ForEach, Step, Workflow
from .prompts import usual_template, values_of
from .results import FAILED, RUNNING, SKIPPED, OnStep, StepEvent, StepResult
from .step_calls import StepAnswer, StepCall, StepCalls

# What a further call may not meet, beside errors that are retried.
_WORTH_ANOTHER = (BadReplyError, DeadlineExceededError)


RunPart = Callable[[StepCall], Awaitable[StepAnswer]]
OnPart = Callable[[AgentResult], None]


@dataclass(frozen=True)
class RunConfig:
    """What one run is given beside its workflow.

    Attributes:
        root: the folder that files are named from.
        config: what names the project, or the configuration that it is run with; None for the root.
        most_parts: calls that may be under way at one time, those that wait for room on the wire among them.
        now: seconds, of any clock.
        on_part, on_step: told of each part that has ended, and of each change of a step.
    """

    task: str
    inputs: Mapping[str, Any]
    root: Path
    most_parts: int
    now: Callable[[], float]
    pass_output: bool = True
    fail_fast: bool = False
    on_part: Optional[OnPart] = None
    on_step: Optional[OnStep] = None
    config: Optional[Path] = None


class Runner:
    """One run of a workflow that has been checked."""

    def __init__(self, workflow: Workflow, setting: RunConfig, run: RunPart) -> None:
        self._workflow, self._setting, self._run = workflow, setting, run
        self._inputs = {**workflow.inputs, **setting.inputs}
        self._order = [one for level in levels(workflow.needs) for one in level]
        self._results: Dict[str, StepResult] = {}
        self._room = asyncio.Semaphore(setting.most_parts)
        self._began = setting.now()
        self._cancelled = False

    async def run(self) -> Tuple[StepResult, ...]:
        """The results of all steps, in a topological order. To cancel it ends what is under way."""
        sorter = TopologicalSorter(self._workflow.needs)
        sorter.prepare()
        under_way: Dict[asyncio.Future[StepResult], str] = {}
        try:
            while sorter.is_active():
                for identity in sorted(sorter.get_ready(), key=self._order.index):
                    under_way[asyncio.ensure_future(self._step(identity))] = identity
                ended, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for one in ended:
                    self._results[under_way.pop(one)] = one.result()
                    sorter.done(one.result().id)
        finally:
            await _end(under_way)
        return tuple(self._results[identity] for identity in self._order)

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._setting.now() - self._began

    async def _step(self, identity: str) -> StepResult:
        step = self._workflow.step(identity)
        reason = self._why_not(step)
        if reason is not None:
            result = StepResult(step.id, step.agent, SKIPPED, reason, optional=step.optional)
        else:
            result = await self._carried_out(step)
        failed = sum(not one.success for one in result.results)
        ended = len(result.results)
        self._tell(StepEvent(step.id, step.agent, result.status, ended, ended, failed, result))
        return result

    def _why_not(self, step: Step) -> Optional[str]:
        needed = [self._results[one] for one in step.dependencies]
        missing = [one for one in needed if not one.success and not one.optional]
        if missing:
            return "; ".join(f"it waits for '{one.id}', which {_became(one)}" for one in missing)
        failures = [one.id for one in self._results.values() if one.status == FAILED and not one.optional]
        if failures and self._setting.fail_fast:
            return f"'{failures[0]}' failed, and this workflow ends at the first failure"
        if self._cancelled:
            return "the run was cancelled where its calls are made"
        values = self._values(step)
        for condition in step.when:
            if not condition.holds(values[condition.source]):
                return f"it runs only when {condition}"
        return None

    def _values(self, step: Step) -> Dict[str, str]:
        return values_of(step, self._setting.task, self._inputs, self._results)

    async def _carried_out(self, step: Step) -> StepResult:
        began = self.elapsed
        text = step.task or usual_template(step, self._workflow, self._setting.pass_output)
        parts = StepCalls(step, self._order.index(step.id) + 1, text, self._values(step))
        fault: Optional[str] = None
        try:
            if step.foreach is not None:
                parts.go_through(await self._items(step.foreach))
            self._tell(parts.event(RUNNING))
            await self._all_of(parts)
        except InputError as error:
            fault = str(error)
        return parts.result(began, self.elapsed, fault)

    async def _items(self, source: ForEach) -> Sequence[Item]:
        answers = self._results[source.value].answers if source.source == STEP else ()
        work = partial(items_of, source, self._setting.root, self._inputs, answers)
        return await to_thread.run_sync(work) if reads_files(source) else work()

    async def _all_of(self, parts: StepCalls) -> None:
        rest = iter(range(parts.count))
        # Not a task for each part: of a long list they would take more memory than its answers.
        crew = [
            asyncio.ensure_future(self._some_of(parts, rest))
            for _ in range(min(parts.count, self._setting.most_parts))
        ]
        try:
            await asyncio.gather(*crew)
        finally:
            await _end(crew)

    async def _some_of(self, parts: StepCalls, rest: Iterator[int]) -> None:
        for index in rest:
            await self._part(parts, index)
            # Before Python 3.11 a semaphore that is asked again at once passes over those who wait for it.
            await asyncio.sleep(0)

    async def _part(self, parts: StepCalls, index: int) -> None:
        async with self._room:
            for attempt in range(parts.step.retries + 1):
                answered = await self._answer(parts, index, attempt)
                parts.take(index, answered)
                if isinstance(answered.result.error, CancelledCallError):
                    self._cancelled = True
                if not _is_worth_another(answered.result.error):
                    break
        parts.done += 1
        if self._setting.on_part is not None:
            self._setting.on_part(answered.result)
        self._tell(parts.event(RUNNING))

    async def _answer(self, parts: StepCalls, index: int, attempt: int) -> StepAnswer:
        if self._cancelled:
            # Whoever cancels a run wants no more of it: what has not begun does not begin.
            return self._failed(parts, CancelledCallError("The run was cancelled"))
        try:
            work = partial(parts.part, index, attempt)
            return await self._run(await to_thread.run_sync(work) if parts.reads_files else work())
        except InputError as error:
            return self._failed(parts, error)

    def _failed(self, parts: StepCalls, error: ClaudeForceError) -> StepAnswer:
        run = CallLabels(parts.step.agent, self._workflow.name, parts.position)
        return StepAnswer(failed(run, error, None, 0.0))

    def _tell(self, event: StepEvent) -> None:
        if self._setting.on_step is not None:
            self._setting.on_step(event)


def _is_worth_another(error: Optional[ClaudeForceError]) -> bool:
    if isinstance(error, CallError) and error.skipped:
        return False
    return isinstance(error, _WORTH_ANOTHER) or (isinstance(error, CallError) and error.retryable)


async def _end(jobs: Collection[asyncio.Future[Any]]) -> None:
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


def _became(result: StepResult) -> str:
    return "failed" if result.status == FAILED else "was skipped"
