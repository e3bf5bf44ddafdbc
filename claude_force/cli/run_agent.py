"""`run agent`: a kept answer at once, or a fresh one, which a terminal shows as it is written."""

from __future__ import annotations

import argparse
import time
from typing import Optional

from ..agents import Registry, prepare_call
from ..cache.request_key import USE, RequestKey, reply_from_hit, request_key, service
from ..engine.result_builder import CallLabels, log_result, notify, succeeded
from ..errors import CacheError
from ..performance_tracker import PerformanceTracker
from ..response_cache import ResponseCache
from ..types import AgentResult, CallCompleted, Reply
from . import render, streams
from .run_options import AnswerFile, call_options, check_budget, read_task


def run_agent(args: argparse.Namespace) -> int:
    """Returns 0, or 1 when the agent failed. Raises InputError."""
    check_budget(args.budget)
    task = read_task(args)
    if args.estimate:
        from .orchestration import estimate

        estimate(args, task)
        return 0
    with AnswerFile(args.output) as file:
        result = _answered(args, task)
        if args.json:
            streams.as_json(render.result_fields(result))
        if result.success:
            file.write(result.output)
    return _exit_code(result)


def _answered(args: argparse.Namespace, task: str) -> AgentResult:
    result = kept_answer(args, task)
    if result is None:
        from .orchestration import fresh_answer

        return fresh_answer(args, task)
    if not args.json:
        render.answer(result)
    return result


def _exit_code(result: AgentResult) -> int:
    return 0 if result.success else 1


def kept_answer(args: argparse.Namespace, task: str) -> Optional[AgentResult]:
    """The result where the answer is kept; None where it has to be asked for. Raises InputError."""
    if args.cache != USE:
        return None
    began, started = time.time(), time.perf_counter()
    registry = Registry(args.config)
    call = prepare_call(registry, args.name, task, **call_options(args))
    question = request_key(call, service(None, None))
    reply = _found(question) if question is not None else None
    if reply is None:
        return None
    result = succeeded(CallLabels(args.name), reply, time.perf_counter() - started)
    log_result(result)
    # All that has to happen at the end of a call, as the engine does it for a call of its own.
    notify([PerformanceTracker(registry.ledger).record_now], CallCompleted(call, result, began))
    return result


def _found(question: RequestKey) -> Optional[Reply]:
    try:
        with ResponseCache() as cache:
            return reply_from_hit(cache.get(*question), question.model)
    except (CacheError, OSError):
        # The engine meets the same, and says it.
        return None
