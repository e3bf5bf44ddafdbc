"""`run agent`: a cached answer at once, or a new one, which a terminal shows while it is written.

A cached answer needs neither the event loop nor the SDK; `orchestration` is imported for new ones only.
"""

from __future__ import annotations

import argparse
import time
from typing import Optional

from ..agents import Registry, prepare_call
from ..cache.request_key import USE, RequestKey, reply_from_hit, request_key, service_fields
from ..engine.result_builder import CallLabels, log_result, notify, succeeded
from ..errors import CacheError
from ..performance_tracker import PerformanceTracker
from ..response_cache import ResponseCache
from ..types import AgentResult, CallCompleted, Reply
from . import render, streams
from .run_options import AnswerFile, call_options, check_budget, check_limits, read_task


def run_agent(args: argparse.Namespace) -> int:
    """Runs one agent. Returns 0, or 1 if it failed. Raises InputError."""
    check_budget(args.budget)
    check_limits(args)
    task = read_task(args)
    if args.estimate:
        from .orchestration import estimate_agent

        estimate_agent(args, task)
        return 0
    with AnswerFile(args.output) as file:
        result = _run(args, task)
        if args.json:
            streams.write_json(render.result_fields(result))
        if result.success:
            file.write(result.output)
    return 0 if result.success else 1


def _run(args: argparse.Namespace, task: str) -> AgentResult:
    result = _cached_result(args, task)
    if result is None:
        from .orchestration import request_answer

        return request_answer(args, task)
    if not args.json:
        render.show_result(result)
    return result


def _cached_result(args: argparse.Namespace, task: str) -> Optional[AgentResult]:
    """Returns the result if its answer is in the cache. Raises InputError."""
    if args.cache != USE:
        return None
    began, started = time.time(), time.perf_counter()
    registry = Registry(args.config)
    call = prepare_call(registry, args.name, task, **call_options(args))
    key = request_key(call, service_fields(None, None))
    reply = None if key is None else _look_up(key)
    if reply is None:
        return None
    result = succeeded(CallLabels(args.name), reply, time.perf_counter() - started)
    log_result(result)
    # What the orchestrator does at the end of each call.
    notify([PerformanceTracker(registry.ledger_folder).record_now], CallCompleted(call, result, began))
    return result


def _look_up(key: RequestKey) -> Optional[Reply]:
    try:
        with ResponseCache() as cache:
            return reply_from_hit(cache.get(*key), key)
    except (CacheError, OSError):
        # The orchestrator meets the same error, and reports it.
        return None
