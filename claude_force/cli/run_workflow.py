"""`run workflow` and `workflow show`: runs, plans and draws workflows."""

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
from ..storage.path_text import printable
from ..types import AgentResult
from ..workflow import StepEvent, StepResult, Workflow, WorkflowResult, faults, graph, read_workflow
from ..workflow.plan import Plan
from ..workflow.results import SKIPPED
from . import render, signals, streams
from .copies import check_copies, finish_workflow
from .displays import WorkflowDisplay
from .durable_runs import database_url, driver_database_url, monitor_workers
from .logs import few_warnings
from .orchestration import (
    estimate_fields,
    make_orchestrator,
    request_fields_of,
    show_estimate,
    write_request,
)
from .run_options import AnswerFile, check_budget, read_task, request_options
from .tool_grants import given_words, tool_options

_SENDS_NOTHING = ("plan", "estimate", "dry_run")
_MAX_INPUTS_BYTES = 64 * 1024 * 1024


def run_workflow(args: argparse.Namespace) -> int:
    """Runs a workflow. Returns 0, 1 if a step failed, 130 after Ctrl-C. Raises InputError."""
    check_budget(args.budget)
    args.of_tools = tool_options(args, is_durable=database_url(args) is not None)
    check_copies(args)
    has_task = args.task is not None or args.task_file is not None or args.stdin
    task = read_task(args) if has_task or args.resume is None else None
    inputs = _inputs(args)
    if args.plan or args.estimate or args.dry_run:
        signals.run(_plan(args, task, inputs))
        return 0
    with AnswerFile(args.output) as file:
        return _WorkflowRun(args, task, inputs).execute(file)


def _inputs(args: argparse.Namespace) -> Optional[Dict[str, Any]]:
    inputs: Dict[str, Any] = {}
    if args.inputs is not None:
        inputs.update(_read_object(Path(args.inputs)))
    for text in args.input or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--input is {text!r}; write NAME=TEXT.")
        inputs[name] = value
    # A resumed run has its own inputs.
    return inputs if inputs or args.resume is None else None


def _read_object(path: Path) -> Dict[str, Any]:
    try:
        value = json.loads(read_input(path, _MAX_INPUTS_BYTES, takes_streams=True))
    except FileAccessError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{printable(path)} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f'{path} is not a JSON object; write {{"NAME": "its value", ...}}.')
    return value


async def _plan(args: argparse.Namespace, task: Optional[str], inputs: Optional[Dict[str, Any]]) -> None:
    if task is None or args.resume is not None:
        option = next(f"--{name.replace('_', '-')}" for name in _SENDS_NOTHING if getattr(args, name))
        raise InputError(f"{option} is for a run that has not begun: give its task instead of --resume.")
    async with make_orchestrator(args, durable=database_url(args)) as orchestrator:
        if args.dry_run:
            await _show_first_requests(args, orchestrator, task, inputs or {})
            return
        plan = await orchestrator.plan(
            args.name, task, not args.no_pass_output, inputs=inputs, cache=args.cache, **request_options(args)
        )
    if args.json and args.plan:
        streams.write_json(_plan_fields(plan))
        return
    if args.plan:
        streams.write_line(graph.to_text(plan.workflow))
    show_estimate(plan.estimate, "call", args.json, has_tools=bool(args.of_tools))
    if args.json:
        return
    for one in plan.steps:
        if one.problem is not None:
            streams.warn(f"step '{one.step.id}' would fail: {one.problem}")
    if any(one.calls is None for one in plan.steps):
        streams.write_line("A step whose number of calls an answer decides is counted with one call.")


async def _show_first_requests(
    args: argparse.Namespace, orchestrator: AsyncAgentOrchestrator, task: str, inputs: Dict[str, Any]
) -> None:
    found = await orchestrator._workflows.first_requests(
        args.name, task, not args.no_pass_output, inputs, request_options(args)
    )
    requests: List[Dict[str, Any]] = [
        {"step": step, "agent": call.agent_name, "request": request_fields_of(args, call)}
        for step, call in found
    ]
    if args.json:
        write_request({"success": True, "requests": requests})
        return
    for one in requests:
        streams.status(f"the first request of step {one['step']}:")
        write_request(one["request"])


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


class _WorkflowRun:
    """One run of a workflow, with its display and its report."""

    def __init__(
        self, args: argparse.Namespace, task: Optional[str], inputs: Optional[Dict[str, Any]]
    ) -> None:
        self._args, self._task, self._inputs = args, task, inputs
        self._display = WorkflowDisplay(args.name, args.json)
        self._results: List[AgentResult] = []
        self._run_id: Optional[str] = args.resume

    def execute(self, file: AnswerFile) -> int:
        """Returns the exit code. Raises InputError; KeyboardInterrupt, but with --json."""
        args = self._args
        try:
            result = signals.run(self._run(), may_exit=lambda: not self._results)
        except KeyboardInterrupt:
            self._show_command("continues this run")
            if not args.json:
                raise  # the finished steps have been printed already
            fields = _fields(args.name, self._task, self._results, error="interrupted")
            streams.write_json({**fields, "run_id": self._run_id})
            return 130
        outcome = finish_workflow(args, result)
        more = {} if outcome is None else outcome.fields()
        if args.json:
            streams.write_json({**_result_fields(args.name, result), **more})
        else:
            streams.status(_summary(result))
            if not result.success:
                self._show_command("requests only what is missing")
        file.write(streams.json_text({**_result_fields(args.name, result), **more}) + "\n")
        return 0 if result.success and not more.get("conflicts") else 1

    async def _run(self) -> WorkflowResult:
        url = driver_database_url(self._args)
        with nullcontext() if url is None else monitor_workers(url) as monitor:
            async with make_orchestrator(
                self._args, budget_usd=self._args.budget, durable=url
            ) as orchestrator:
                with few_warnings(attempts=True), self._display:
                    beside = [] if monitor is None else [monitor.watch]
                    return await signals.run_beside(self._execute(orchestrator), *beside)

    async def _execute(self, orchestrator: AsyncAgentOrchestrator) -> WorkflowResult:
        args = self._args
        options = {"cache": args.cache, **request_options(args)}
        return await orchestrator._workflows.run(
            args.name,
            self._task,
            not args.no_pass_output,
            lambda _, result: self._results.append(result),
            self._inputs,
            args.resume,
            args.fail_fast,
            self._on_step,
            options,
            self._display.watch,
        )

    def _on_step(self, event: StepEvent) -> None:
        self._run_id = event.run_id or self._run_id
        self._display.on_step(event)
        if event.result is not None and not self._args.json:
            with self._display.paused():
                _print_step(event.result)

    def _show_command(self, effect: str) -> None:
        """Shows the command that resumes the run, if the run is saved, and what the command does."""
        if self._run_id is not None:
            config = [] if self._args.config is None else ["--config", self._args.config]
            words = ["claude-force", *config, "run", "workflow", self._args.name, "--resume", self._run_id]
            words += given_words(self._args)
            streams.status(f"{' '.join(map(shlex.quote, words))} {effect}")


def _result_fields(name: str, result: WorkflowResult) -> Dict[str, Any]:
    """Returns a finished run as `--json` and `-o` show it."""
    fields = _fields(name, result.task, result)
    more = {key: value for key, value in result.to_dict().items() if key not in fields}
    more["steps"] = [_with_cost_names(step) for step in more["steps"]]
    cost_fields = {**_with_cost_names(more), "duration_seconds": result.duration}
    return {**fields, "success": result.success, **cost_fields}


def _with_cost_names(fields: Dict[str, Any]) -> Dict[str, Any]:
    """Returns `fields` with the names that costs have in the JSON of every command."""
    return {**fields, "cost_usd": fields["cost"], "saved_usd": fields["saved_cost"]}


def _fields(
    name: str, task: Optional[str], results: Sequence[AgentResult], error: Optional[str] = None
) -> Dict[str, Any]:
    """Returns the results of a workflow as `--json` shows them."""
    fields: Dict[str, Any] = {
        "success": error is None and all(result.success for result in results),
        "workflow": name,
        "task": task,
        "total_tokens": sum(result.usage.total_tokens for result in results),
        # 1.x wrote the agent's name as `agent_name` into files.
        "results": [{**render.result_fields(one), "agent_name": one.agent_name} for one in results],
    }
    return fields if error is None else {**fields, "error": error}


def _print_step(result: StepResult) -> None:
    """Prints a step that has ended: each of its answers, or why it has none."""
    if result.status == SKIPPED:
        streams.status(f"{result.id} is skipped: {result.reason}")
        return
    streams.write_line(f"== {streams.one_line(result.id)}. {result.agent}")
    if not result.results:
        streams.error(result.reason or "no reason was given", json=False)
    fatal, repeated = None, []
    for label, one in zip(result.labels or ("",), result.results):
        if one.error is not None and one.error.fatal_for is not None:
            if fatal is not None:
                # The error that ended the run is shown once.
                repeated.append(one)
                continue
            fatal = one
        if label:
            streams.write_line(f"-- {streams.one_line(label)}")
        render.show_result(one)
    if repeated:
        unsent = sum(is_unsent(one) for one in repeated)
        calls = pluralize(len(repeated), "more call")
        streams.status(f"{calls} failed for the same reason, {unsent:,} without a request")
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
    """Draws a workflow, and names its faults on stderr. Returns 0, or 1 if it has any. Raises InputError."""
    registry = Registry(args.config)
    written = registry.workflow(args.name)
    workflow = read_workflow(args.name, written)
    found = faults(args.name, written, registry.get)
    if args.json:
        streams.write_json({**_workflow_fields(workflow), "faults": found})
    elif _is_drawable(workflow):
        formats = {"text": graph.to_text, "mermaid": graph.to_mermaid, "dot": graph.to_dot}
        streams.write_line(formats[args.format](workflow))
    for fault in found:
        streams.warn(fault)
    return 1 if found else 0


def _is_drawable(workflow: Workflow) -> bool:
    needs = workflow.needs
    are_known = all(one in needs for its in needs.values() for one in its)
    return bool(needs) and len(needs) == len(workflow.steps) and are_known and not graph.cycles(needs)


def _workflow_fields(workflow: Workflow) -> Dict[str, Any]:
    return {
        "name": workflow.name,
        "description": workflow.description,
        "inputs": dict(workflow.inputs),
        "steps": [
            {
                "id": step.id,
                "agent": step.agent,
                "dependencies": list(step.dependencies),
                "details": graph.details(step),
            }
            for step in workflow.steps
        ],
    }
