"""`run workflow` and `workflow show`."""

from __future__ import annotations

import argparse
import json
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ..agents import Registry
from ..async_orchestrator import AsyncAgentOrchestrator
from ..engine.result_builder import is_unsent
from ..errors import FileAccessError, InputError
from ..formatting import format_duration, pluralize
from ..storage.input_paths import read_input
from ..storage.project_files import printable
from ..types import AgentResult
from ..workflow import StepEvent, StepResult, Workflow, WorkflowResult, faults, read_workflow
from ..workflow import graph as drawing
from ..workflow.graph import cycles
from ..workflow.plan import Plan
from ..workflow.results import SKIPPED
from . import render, signals, streams
from .displays import WorkflowDisplay
from .durable_runs import database_url, driver_database_url, monitor_workers
from .logs import few_warnings
from .orchestration import estimate_fields, make_orchestrator, show_estimate
from .run_options import AnswerFile, call_options, check_budget, read_task

# In bytes, of the file that `--inputs` names.
_LARGEST_INPUTS = 64 * 1024 * 1024


def run_workflow(args: argparse.Namespace) -> int:
    """Returns 0, 1 when a step failed, or 130 with the finished steps. Raises InputError."""
    check_budget(args.budget)
    options = _Options(args)
    if args.plan or args.estimate:
        return signals.run(_plan(args, options))
    with AnswerFile(args.output) as file:
        return _carry_out(args, options, file)


def _carry_out(args: argparse.Namespace, options: _Options, file: AnswerFile) -> int:
    run = _Run(args, options)
    try:
        result = signals.run(run.carry_out(), may_exit=lambda: not run.done)
    except KeyboardInterrupt:
        run.hint("goes on where this one was interrupted")
        if not args.json:
            raise  # the finished steps have been printed already
        fields = _fields(args.name, run.task, run.done, error="interrupted")
        streams.write_json({**fields, "run_id": run.run_id})
        return 130
    run.report(result)
    file.write(streams.json_text(run.fields(result)) + "\n")
    return 0 if result.success else 1


class _Options:
    """What the command line says of the run, read and checked."""

    def __init__(self, args: argparse.Namespace) -> None:
        named = args.task is not None or args.task_file is not None or args.stdin
        self.task = read_task(args) if named or args.resume is None else None
        self.inputs = _inputs(args)
        self.pass_output = not args.no_pass_output


def _inputs(args: argparse.Namespace) -> Optional[Dict[str, Any]]:
    found: Dict[str, Any] = {}
    if args.inputs is not None:
        found.update(_object(Path(args.inputs)))
    for text in args.input or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--input is {text!r}; write NAME=TEXT.")
        found[name] = value
    # A run that is resumed has its own.
    return found if found or args.resume is None else None


def _object(path: Path) -> Dict[str, Any]:
    try:
        found = json.loads(read_input(path, _LARGEST_INPUTS, takes_streams=True))
    except FileAccessError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{printable(path)} is not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f'{path} holds no JSON object; write {{"NAME": "its value", ...}}.')
    return found


async def _plan(args: argparse.Namespace, options: _Options) -> int:
    if options.task is None or args.resume is not None:
        which = "--plan" if args.plan else "--estimate"
        raise InputError(f"{which} is for a run that has not begun: give its task instead of --resume.")
    async with make_orchestrator(args, durable=database_url(args)) as running:
        plan = await running.plan(
            args.name,
            options.task,
            options.pass_output,
            inputs=options.inputs,
            cache=args.cache,
            **call_options(args),
        )
    if args.json and args.plan:
        streams.write_json(_plan_fields(plan))
        return 0
    if args.plan:
        streams.write_line(drawing.to_text(plan.workflow))
    show_estimate(plan.estimate, "call", args.json)
    if args.json:
        return 0
    for one in plan.steps:
        if one.problem is not None:
            streams.warn(f"step '{one.step.id}' would fail: {one.problem}")
    if any(one.calls is None for one in plan.steps):
        streams.write_line("A step whose number of calls an answer decides is counted with one call.")
    return 0


def _plan_fields(plan: Plan) -> Dict[str, Any]:
    return {
        "success": True,
        "workflow": plan.workflow.name,
        "levels": plan.levels,
        "steps": [
            {
                "id": one.step.id,
                "agent": one.step.agent,
                "level": one.level,
                "calls": one.calls,
                "problem": one.problem,
            }
            for one in plan.steps
        ],
        "estimate": estimate_fields(plan.estimate),
    }


class _Run:
    """One run, and what is shown of it. `done` has the results so far."""

    def __init__(self, args: argparse.Namespace, options: _Options) -> None:
        self._args, self._options = args, options
        self.task = options.task
        self.done: List[AgentResult] = []
        self.run_id: Optional[str] = args.resume

    async def carry_out(self) -> WorkflowResult:
        args = self._args
        url = driver_database_url(args)
        more = {"budget_usd": args.budget, "durable": url}
        with nullcontext() if url is None else monitor_workers(url) as crew:
            async with make_orchestrator(args, **more) as running:
                with few_warnings(attempts=True), WorkflowDisplay(args.name, args.json) as self._tree:
                    work = self._executed(running)
                    return await (work if crew is None else crew.watched(work))

    async def _executed(self, running: AsyncAgentOrchestrator) -> WorkflowResult:
        args, options = self._args, self._options
        return await running.execute_workflow(
            args.name,
            options.task,
            options.pass_output,
            on_result=lambda _, result: self.done.append(result),
            on_step=self._on_step,
            inputs=options.inputs,
            resume=args.resume,
            fail_fast=args.fail_fast,
            cache=args.cache,
            **call_options(args),
        )

    def _on_step(self, event: StepEvent) -> None:
        self.run_id = event.run_id or self.run_id
        self._tree.on_step(event)
        if event.result is not None and not self._args.json:
            with self._tree.paused():
                _print_step(event.result)

    def report(self, result: WorkflowResult) -> None:
        """Of a run that has come to its end."""
        if self._args.json:
            streams.write_json(self.fields(result))
            return
        streams.status(_summary(result))
        if not result.success:
            self.hint("asks again for what is missing, and for nothing else")

    def fields(self, result: WorkflowResult) -> Dict[str, Any]:
        """A run that has come to its end, as `--json` and `-o` show it."""
        fields = _fields(self._args.name, result.task, result)
        more = {name: value for name, value in result.to_dict().items() if name not in fields}
        more["steps"] = [_with_common_names(step) for step in more["steps"]]
        common = {**_with_common_names(more), "duration_seconds": result.duration}
        return {**fields, "success": result.success, **common}

    def hint(self, what: str) -> None:
        """How the run goes on, where it can."""
        if self.run_id is not None:
            config = [] if self._args.config is None else ["--config", self._args.config]
            words = ["claude-force", *config, "run", "workflow", self._args.name, "--resume", self.run_id]
            streams.status(f"{' '.join(map(shlex.quote, words))} {what}")


def _with_common_names(fields: Dict[str, Any]) -> Dict[str, Any]:
    """`fields` with the names that money has in the JSON of every command."""
    return {**fields, "cost_usd": fields["cost"], "saved_usd": fields["saved_cost"]}


def _fields(
    name: str, task: Optional[str], results: Sequence[AgentResult], error: Optional[str] = None
) -> Dict[str, Any]:
    """A workflow's results as `--json` shows them."""
    fields: Dict[str, Any] = {
        "success": error is None and all(result.success for result in results),
        "workflow": name,
        "task": task,
        "total_tokens": sum(result.usage.total_tokens for result in results),
        # 1.x wrote the name of the agent as `agent_name` into files.
        "results": [{**render.result_fields(one), "agent_name": one.agent_name} for one in results],
    }
    return fields if error is None else {**fields, "error": error}


def _print_step(result: StepResult) -> None:
    """One step of a workflow that has ended: each of its answers, or why there is none."""
    if result.status == SKIPPED:
        streams.status(f"{result.id} is skipped: {result.reason}")
        return
    streams.write_line(f"== {streams.one_line(result.id)}. {result.agent}")
    if not result.results:
        streams.error(result.reason or "no reason was given", json=False)
    shown, alike = None, []
    for label, one in zip(result.labels or ("",), result.results):
        if one.error is not None and one.error.fatal_for is not None:
            if shown is not None:
                # What ended the run is told once.
                alike.append(one)
                continue
            shown = one
        if label:
            streams.write_line(f"-- {streams.one_line(label)}")
        render.show_result(one)
    if alike:
        unsent = sum(is_unsent(one) for one in alike)
        streams.status(
            f"{pluralize(len(alike), 'more call')} failed by the same, {unsent:,} without a request"
        )
    streams.write_line()


def _summary(result: WorkflowResult) -> str:
    parts = [
        f"{pluralize(sum(step.status == status for step in result.steps), 'step')} {status}"
        for status in ("succeeded", "failed", "skipped")
        if any(step.status == status for step in result.steps)
    ]
    resumed = sum(step.resumed for step in result.steps)
    if resumed:
        parts.append(f"{pluralize(resumed, 'answer')} from before")
    money = render.format_cost(result.cost)
    before = "" if result.cost_before == 0 else f" ({render.format_cost(result.cost_before)} before)"
    return f"{', '.join(parts)}; {money}{before}, {format_duration(result.duration)}"


def show_workflow(args: argparse.Namespace) -> int:
    """Draws a workflow; its faults are told on stderr, with exit code 1. Raises InputError."""
    registry = Registry(args.config)
    written = registry.workflow(args.name)
    workflow = read_workflow(args.name, written)
    found = faults(args.name, written, registry.get)
    if args.json:
        streams.write_json({**_shown(workflow), "faults": found})
    elif _is_drawable(workflow):
        pictures = {"text": drawing.to_text, "mermaid": drawing.to_mermaid, "dot": drawing.to_dot}
        streams.write_line(pictures[args.format](workflow))
    for fault in found:
        streams.warn(fault)
    return 1 if found else 0


def _is_drawable(workflow: Workflow) -> bool:
    needs = workflow.needs
    are_known = all(one in needs for its in needs.values() for one in its)
    return bool(needs) and len(needs) == len(workflow.steps) and are_known and not cycles(needs)


def _shown(workflow: Workflow) -> Dict[str, Any]:
    return {
        "name": workflow.name,
        "description": workflow.description,
        "inputs": dict(workflow.inputs),
        "steps": [
            {
                "id": step.id,
                "agent": step.agent,
                "dependencies": list(step.dependencies),
                "details": drawing.details(step),
            }
            for step in workflow.steps
        ],
    }
