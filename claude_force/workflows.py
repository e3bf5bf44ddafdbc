"""Workflows on the engine: each part is a call, kept as it ends so that the run can be resumed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cached_property, partial
from itertools import count
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from anyio import to_thread

from .agents import check_task
from .base_orchestrator import Engine
from .bulk import OnResult, aiter_any, task_limit
from .cache.request_key import USE
from .costs import cost_or_bound
from .engine.estimate import Estimate
from .engine.result_builder import is_unsent
from .errors import InputError
from .limits.call_context import CallContext
from .limits.call_cost import CallCost
from .limits.run_gate import RunGate
from .types import Call
from .workflow import OnStep, Step, Workflow, WorkflowResult, check, read_workflow
from .workflow.checkpointer import Checkpointer, RunCheckpoint
from .workflow.checkpoints import RunRecord
from .workflow.plan import DraftStep, Plan, SizeOf, combine_estimates, plan_steps, with_longest_answers
from .workflow.results import FAILED, SUCCEEDED
from .workflow.runner import OnCall, RunConfig, Runner
from .workflow.step_calls import StepAnswer, StepCall


class Workflows(Engine):
    """Runs graphs of agents."""

    @cached_property
    def _keeper(self) -> Checkpointer:
        return Checkpointer()

    async def execute_workflow(
        self,
        workflow_name: Union[str, Workflow],
        task: Optional[str] = None,
        pass_output_to_next: bool = True,
        on_result: Optional[OnResult] = None,
        *,
        inputs: Optional[Mapping[str, Any]] = None,
        resume: Optional[str] = None,
        fail_fast: Optional[bool] = None,
        on_step: Optional[OnStep] = None,
        **call_options: Any,
    ) -> WorkflowResult:
        """Runs a graph of agents, each step as soon as it can. Those that wait for a failed one are skipped.

        Args:
            workflow_name: that of one in claude.json, or a Workflow made in Python.
            task: what the workflow is about; None for that of the run that is resumed.
            pass_output_to_next: whether steps without a task of their own are told the answers before them.
            inputs: values that tasks name beside that, such as {"language": "French"}.
            resume: the `run_id` of an earlier run, of which only what is missing is run.
            fail_fast: whether no further step begins after a failure; None for what the workflow says.
            on_result: called as `on_result(number, result)` as each call ends, counted from 0; `on_step` with
                a `claude_force.workflow.StepEvent` at each change of a step.
            call_options: as of `execute_agent`, for every step, before what the step says itself.

        Returns a list of the results of all calls, which has what became of each step in `steps`.

        Raises InputError where the workflow, one of its agents or the task can't be run; nothing was sent.
        """
        found, context = self._workflow(workflow_name, pass_output_to_next), self._terms_of_run()
        async with await self._keeper.open_run(found.name, resume) as kept:
            setting = self._setting(found, *kept.or_saved(task, inputs), pass_output_to_next, fail_fast)
            setting = replace(setting, on_step=_signed(on_step, kept), on_call=_numbered(on_result))
            await kept.begin(setting)
            runner = Runner(found, setting, partial(self._run_part, found.name, kept, context, call_options))
            result = WorkflowResult(found, setting.task, await runner.run(), runner.elapsed, kept.run_id)
            result.cost_before = kept.cost_before
            kept.status = SUCCEEDED if result.success else FAILED
            return result

    async def plan(
        self,
        workflow_name: Union[str, Workflow],
        task: str,
        pass_output_to_next: bool = True,
        *,
        inputs: Optional[Mapping[str, Any]] = None,
        cache: str = USE,
        **call_options: Any,
    ) -> Plan:
        """What `execute_workflow` would do with the same arguments, and what it would cost. Sends nothing.

        Raises InputError as that does.
        """
        found = self._workflow(workflow_name, pass_output_to_next)
        setting = self._setting(found, task, inputs or {}, pass_output_to_next)

        def prepare(part: StepCall) -> Call:
            return self._prepare(
                part.step.agent, part.task, is_composed=True, **_options(part.step, call_options)
            )

        async def estimated(size_of: SizeOf) -> Tuple[List[DraftStep], Estimate]:
            steps = await to_thread.run_sync(lambda: list(plan_steps(found, setting, prepare, size_of)))
            calls = aiter_any([call for step in steps for call in step.calls])
            return steps, await self._estimated(calls, _runnable, cache)

        forecast = self._caller.forecast
        sizes = (lambda call: 1.0), forecast.answer_bytes, forecast.most_bytes
        (_, low), (steps, expected), (longest, high) = [await estimated(size_of) for size_of in sizes]
        planned = tuple(map(with_longest_answers, steps, longest))
        return Plan(found, planned, combine_estimates(low, expected, high))

    async def runs(self, most: int = 20) -> List[RunRecord]:
        """The last runs of workflows that can be resumed, the newest first. Raises CacheError."""
        return await self._keeper.recent(most)

    async def close(self) -> None:
        """Ends calls in flight, closes all connections and files; the next call opens new ones."""
        await super().close()
        await self._keeper.close()

    def close_journal(self) -> None:
        """Waits for what is being written of runs, then lets go of the file."""
        self._keeper.stop()

    def _workflow(self, workflow: Union[str, Workflow], pass_output: bool) -> Workflow:
        if isinstance(workflow, Workflow):
            return workflow
        if not isinstance(workflow, str):
            raise InputError(f"A workflow is {workflow!r:.60}; give the name of one, or a Workflow.")
        return read_workflow(workflow, self._registry.workflow(workflow), pass_output)

    def _setting(
        self,
        workflow: Workflow,
        task: Optional[str],
        inputs: Mapping[str, Any],
        pass_output: bool,
        fail_fast: Optional[bool] = None,
    ) -> RunConfig:
        """Raises InputError for what can't be run."""
        check(workflow, self._registry.get, inputs)
        ends_early = workflow.fail_fast if fail_fast is None else fail_fast
        room = self._asking.most or task_limit(self._how().ceiling)
        root, config = self._registry.project, self._registry.named
        return RunConfig(
            check_task(task), inputs, root, room, self._clock.now, pass_output, ends_early, config_path=config
        )

    async def _run_part(
        self,
        workflow: str,
        kept: RunCheckpoint,
        context: CallContext,
        call_options: Mapping[str, Any],
        part: StepCall,
    ) -> StepAnswer:
        step = part.step
        options = _options(step, call_options)
        question = self._question(step.agent, part.task, is_composed=True, **options)
        result = kept.saved_answer(part, question)
        if result is not None:
            return StepAnswer(result, resumed=True)
        call_cost, many = CallCost(), step.foreach is not None
        context = replace(
            context, first_of_many=many, call_id=kept.call_id(part), call_cost=call_cost, is_composed=True
        )
        try:
            result = await self.execute_agent(
                step.agent,
                part.task,
                workflow_name=workflow,
                workflow_position=part.position,
                **{"context": context, **options},
            )
        except asyncio.CancelledError:
            kept.record_cost(cost_or_bound(call_cost.usd, call_cost.at_most))
            raise
        if not is_unsent(result):
            await kept.save(part, question, result)
        return StepAnswer(result)

    def _terms_of_run(self) -> CallContext:
        return CallContext(session=self._session, run_gate=RunGate())


def _options(step: Step, call_options: Mapping[str, Any]) -> Dict[str, Any]:
    own = {"model": step.model, "max_tokens": step.max_tokens}
    return {**{name: value for name, value in own.items() if value is not None}, **call_options}


def _signed(on_step: Optional[OnStep], kept: RunCheckpoint) -> Optional[OnStep]:
    if on_step is None:
        return None
    return lambda event: on_step(replace(event, run_id=kept.run_id))


def _numbered(on_result: Optional[OnResult]) -> Optional[OnCall]:
    if on_result is None:
        return None
    numbers = count()
    return lambda result: on_result(next(numbers), result)


def _runnable(call: Union[Call, InputError]) -> Call:
    if isinstance(call, InputError):
        raise call
    return call
