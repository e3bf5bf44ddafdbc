"""`run workflow`, and the engine that all kinds of `run` share."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, List

from ..async_orchestrator import AsyncAgentOrchestrator
from ..types import AgentResult
from . import render, streams
from .options import call_options, given
from .task import read_task

_ENGINE_OPTIONS = {
    "timeout": "timeout_seconds",
    "deadline": "deadline_seconds",
    "max_retries": "max_retries",
    "max_concurrent": "max_concurrent",
}


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
        args.config, stream=not args.no_stream, **given(args, _ENGINE_OPTIONS), **more
    )
