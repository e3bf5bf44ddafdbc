"""Runs and plans workflows: a call runner makes the calls, and each answer is saved for a resumption."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, List, Mapping, Optional, Tuple, Union

from anyio import to_thread

from ..agents import check_context, check_task
from ..bulk import OnResult, aiter_any
from ..cache.request_key import USE, check_policy, request_key
from ..call_runner import CallRunner, first_request
from ..costs import cost_or_bound
from ..engine.estimate import Estimate
from ..engine.result_builder import CallLabels, is_unsent
from ..errors import InputError
from ..formatting import Wording
from ..limits.budget import Budget
from ..limits.call_context import NULL_LISTENER, CallContext, CallListener
from ..limits.call_cost import CallCost
from ..limits.run_gate import RunGate
from ..settings import NO_TOOLS
from ..types import Call
from .checkpointer import Checkpointer, RunCheckpoint
from .models import Step, Workflow
from .parser import read_workflow
from .plan import (
    DraftStep,
    Plan,
    SizeOf,
    combine_estimates,
    first_call,
    plan_steps,
    with_longest_answers,
)
from .results import FAILED, SUCCEEDED, OnStep, WorkflowResult
from .runner import OnCall, RunConfig, WorkflowRunner
from .step_calls import StepAnswer, StepCall
from .validation import check

if TYPE_CHECKING:
    from ..engine.tool_loop import Offered
    from ..tool_options import ToolOptions

logger = logging.getLogger(__name__)


# Yields the listener of a call, which ends with the block.
WatchCall = Callable[[StepCall], ContextManager[CallListener]]


def _unwatched(_: StepCall) -> ContextManager[CallListener]:
    return nullcontext(NULL_LISTENER)


class WorkflowExecutor:
    """Runs and plans the workflows of a project, with the calls of one call runner."""

    def __init__(self, calls: CallRunner) -> None:
        self._calls, self.checkpointer = calls, Checkpointer()
        self._is_noted = False

    async def run(
        self,
        named: Union[str, Workflow],
        task: Optional[str],
        pass_output: bool,
        on_result: Optional[OnResult],
        inputs: Optional[Mapping[str, Any]],
        resume: Optional[str],
        fail_fast: Optional[bool],
        on_step: Optional[OnStep],
        options: Mapping[str, Any],
        watch: WatchCall = _unwatched,
    ) -> WorkflowResult:
        """As `AsyncAgentOrchestrator.execute_workflow`; `options` are those of the calls."""
        if "in_place" in options:
            from ..tool_options import refuse_in_place

            refuse_in_place(options)
        workflow = self._workflow(named, pass_output)
        context = CallContext(session=self._calls.session, run_gate=RunGate())
        async with await self.checkpointer.open_run(workflow.name, resume) as checkpoint:
            config = self._config(workflow, *checkpoint.or_saved(task, inputs), pass_output, fail_fast)
            config = replace(config, on_step=_with_run_id(on_step, checkpoint), on_call=_numbered(on_result))
            await checkpoint.begin(config)
            run_step = partial(self._run_step, workflow.name, checkpoint, context, options, watch)
            runner = WorkflowRunner(workflow, config, run_step)
            steps = await runner.run()
            result = WorkflowResult(workflow, config.task, steps, runner.elapsed, checkpoint.run_id)
            result.cost_before = checkpoint.cost_before
            checkpoint.status = SUCCEEDED if result.success else FAILED
            return result

    async def plan(
        self,
        named: Union[str, Workflow],
        task: str,
        pass_output: bool,
        inputs: Mapping[str, Any],
        cache: str,
        options: Mapping[str, Any],
    ) -> Plan:
        """As `AsyncAgentOrchestrator.plan`."""
        workflow = self._workflow(named, pass_output)
        config = self._config(workflow, task, inputs, pass_output)

        offered = await self._offered_tools(workflow, options)

        def prepare(part: StepCall) -> Call:
            call = self._prepare(part, _step_options(part.step, options))
            return first_request(call, offered[part.step.id])

        async def estimate(size_of: SizeOf) -> Tuple[List[DraftStep], Estimate]:
            steps = await to_thread.run_sync(lambda: list(plan_steps(workflow, config, prepare, size_of)))
            calls = aiter_any([call for step in steps for call in step.calls])
            return steps, await self._calls.estimate(calls, _runnable, cache)

        estimator = self._calls.pool.token_estimator
        sizes = (lambda call: 1.0), estimator.answer_bytes, estimator.max_answer_bytes
        (_, low), (steps, expected), (longest, high) = [await estimate(size_of) for size_of in sizes]
        return Plan(
            workflow, tuple(map(with_longest_answers, steps, longest)), combine_estimates(low, expected, high)
        )

    async def first_requests(
        self,
        named: Union[str, Workflow],
        task: str,
        pass_output: bool,
        inputs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> List[Tuple[str, Call]]:
        """Returns the id and the first call of each step that waits for no other. Raises InputError."""
        workflow = self._workflow(named, pass_output)
        config = self._config(workflow, task, inputs, pass_output)
        offered = await self._offered_tools(workflow, options)
        found: List[Tuple[str, Call]] = []
        for step in workflow.steps:
            if not step.dependencies:
                work = partial(first_call, step, workflow, config)
                part = await to_thread.run_sync(work)
                call = self._prepare(part, _step_options(step, options))
                found.append((step.id, first_request(call, offered[step.id])))
        return found

    async def _offered_tools(
        self, workflow: Workflow, options: Mapping[str, Any]
    ) -> Dict[str, Optional[Offered]]:
        """Returns what the agent of each step is offered, by the step's id."""
        known: Dict[Tuple[str, str], Optional[Offered]] = {}
        found: Dict[str, Optional[Offered]] = {}
        for step in workflow.steps:
            tools = self._tools(step, options)
            key = (step.agent, "" if tools is None else str(tools.grant))
            if key not in known:
                known[key] = await self._calls.offered(step.agent, tools)
            found[step.id] = known[key]
        return found

    def _tools(self, step: Step, options: Mapping[str, Any]) -> Optional[ToolOptions]:
        """Returns what a step is granted: of what the run grants, what the step names."""
        granted = self._calls.tool_options(step.agent, options)
        if step.tools is None:
            return granted
        from ..tools.grant import parse_grant

        own = parse_grant(step.tools or NO_TOOLS)
        if granted is None:
            if own:
                self._note_ungranted_step(step)
            return None
        grant = granted.grant.narrowed(own)
        return granted._replace(grant=grant) if grant else None

    def _note_ungranted_step(self, step: Step) -> None:
        """Says once that steps name tools and the run grants none."""
        if not self._is_noted:
            self._is_noted = True
            text = f"step '{step.id}' names tools, and the run grants none; to grant them, "
            logger.warning("%s", Wording(f'{text}pass tools="read"', f"{text}add --tools read, edit or bash"))

    def _workflow(self, named: Union[str, Workflow], pass_output: bool) -> Workflow:
        if isinstance(named, Workflow):
            return named
        if not isinstance(named, str):
            raise InputError(f"A workflow is {named!r:.60}; give the name of one, or a Workflow.")
        return read_workflow(named, self._calls.registry.workflow(named), pass_output)

    def _config(
        self,
        workflow: Workflow,
        task: Optional[str],
        inputs: Mapping[str, Any],
        pass_output: bool,
        fail_fast: Optional[bool] = None,
    ) -> RunConfig:
        """Raises InputError for what can't be run."""
        registry = self._calls.registry
        check(workflow, registry.get, inputs)
        return RunConfig(
            check_task(task),
            inputs,
            registry.project,
            self._calls.room,
            self._calls.clock.now,
            pass_output,
            workflow.fail_fast if fail_fast is None else fail_fast,
            config_path=registry.sources_path,
        )

    def _prepare(self, part: StepCall, options: Mapping[str, Any]) -> Call:
        return self._calls.prepare(part.step.agent, part.task, is_composed=True, **options)

    async def _run_step(
        self,
        workflow: str,
        checkpoint: RunCheckpoint,
        context: CallContext,
        call_options: Mapping[str, Any],
        watch: WatchCall,
        part: StepCall,
    ) -> StepAnswer:
        options = _step_options(part.step, call_options)
        policy = options.pop("cache", USE)
        check_policy(policy)
        call = self._prepare(part, options)
        tools = self._tools(part.step, options)
        question = _question(call, tools)
        before = checkpoint.saved_answer(part, question)
        if before is not None:
            return StepAnswer(before, resumed=True)
        check_context(call)
        cost = CallCost()
        most = options.get("call_budget_usd")
        context = replace(
            context,
            budgets=context.budgets if most is None else (*context.budgets, Budget(most, True)),
            first_of_many=part.step.foreach is not None,
            call_id=checkpoint.call_id(part),
            call_cost=cost,
            journal=None if tools is None else checkpoint.turns(part),
        )
        labels = CallLabels(part.step.agent, workflow, part.position)
        try:
            with watch(part) as listener:
                context = replace(context, listener=listener)
                result = await self._calls.run(call, labels, policy, context, tools)
        except asyncio.CancelledError:
            checkpoint.record_cost(part, cost_or_bound(cost.usd, cost.at_most))
            raise
        if not is_unsent(result):
            await checkpoint.save(part, question, result)
        return StepAnswer(result)


def _step_options(step: Step, call_options: Mapping[str, Any]) -> Dict[str, Any]:
    own = {"model": step.model, "max_tokens": step.max_tokens}
    return {**{name: value for name, value in own.items() if value is not None}, **call_options}


def _question(call: Call, tools: Optional[ToolOptions]) -> Optional[bytes]:
    """Equal for calls that ask the same, whatever service answers; None where that can't be compared.

    With another grant, an agent may answer otherwise. Bounds don't count: a run is resumed with higher ones.
    """
    found = request_key(call, ())
    if found is None or tools is None:
        return None if found is None else found.digest()
    unbounded = tools._replace(max_turns=None, most_turns=None, max_tool_calls=None)
    return found.digest() + sha256(repr(unbounded).encode()).digest()


def _with_run_id(on_step: Optional[OnStep], checkpoint: RunCheckpoint) -> Optional[OnStep]:
    if on_step is None:
        return None
    return lambda event: on_step(replace(event, run_id=checkpoint.run_id))


def _numbered(on_result: Optional[OnResult]) -> Optional[OnCall]:
    if on_result is None:
        return None
    numbers = count()
    return lambda result: on_result(next(numbers), result)


def _runnable(call: Union[Call, InputError]) -> Call:
    if isinstance(call, InputError):
        raise call
    return call
