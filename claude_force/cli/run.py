"""`run agent` and `run workflow`."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Dict, List

from ..async_orchestrator import AsyncAgentOrchestrator
from ..types import AgentResult
from . import render, streams
from .task import read_task

_ENGINE_OPTIONS = {
    "timeout": "timeout_seconds",
    "deadline": "deadline_seconds",
    "max_retries": "max_retries",
    "max_concurrent": "max_concurrent",
}
_CALL_OPTIONS = {"model": "model", "max_tokens": "max_tokens", "temperature": "temperature"}


def run_agent(args: argparse.Namespace) -> int:
    """Returns 0, or 1 when the agent failed. Raises InputError."""
    result = asyncio.run(_agent(args, read_task(args)))
    if args.json:
        streams.as_json(render.result_fields(result))
    else:
        render.answer(result)
    return 0 if result.success else 1


async def _agent(args: argparse.Namespace, task: str) -> AgentResult:
    async with engine(args) as running:
        with render.Spinner(f"{args.name} is working", args.json):
            return await running.execute_agent(args.name, task, cache=args.cache, **call_options(args))


def run_workflow(args: argparse.Namespace) -> int:
    """Returns 0, 1 when a step failed, or 130 with the finished steps. Raises InputError."""
    task = read_task(args)
    done: List[AgentResult] = []
    try:
        asyncio.run(_workflow(args, task, done))
    except KeyboardInterrupt:
        if not args.json:
            raise  # the finished steps have been printed already
        streams.as_json(render.workflow_fields(args.name, task, done, error="interrupted"))
        return 130
    if args.json:
        streams.as_json(render.workflow_fields(args.name, task, done))
    return 0 if all(result.success for result in done) else 1


async def _workflow(args: argparse.Namespace, task: str, done: List[AgentResult]) -> None:
    async with engine(args) as running:
        with render.Spinner(f"{args.name} is working", args.json) as spinner:

            def finished(_: int, result: AgentResult) -> None:
                done.append(result)
                if not args.json:
                    with spinner.paused():
                        render.step(len(done), result)

            await running.execute_workflow(
                args.name,
                task,
                pass_output_to_next=not args.no_pass_output,
                on_result=finished,
                cache=args.cache,
                **call_options(args),
            )


def engine(args: argparse.Namespace, **more: Any) -> AsyncAgentOrchestrator:
    """Raises InputError for a senseless limit."""
    return AsyncAgentOrchestrator(
        args.config, stream=not args.no_stream, **_given(args, _ENGINE_OPTIONS), **more
    )


def call_options(args: argparse.Namespace) -> Dict[str, Any]:
    """Those that change the answer."""
    return _given(args, _CALL_OPTIONS)


def _given(args: argparse.Namespace, names: Dict[str, str]) -> Dict[str, Any]:
    """The options that were set; for the others the engine has its own defaults."""
    values = {name: getattr(args, option) for option, name in names.items()}
    return {name: value for name, value in values.items() if value is not None}
