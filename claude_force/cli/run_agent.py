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
from ..formatting import for_shell
from ..performance_tracker import PerformanceTracker
from ..response_cache import ResponseCache
from ..types import AgentResult, CallCompleted, Reply
from . import render, streams
from .copies import check_copies, finish_agent
from .run_options import AnswerFile, call_options, check_budget, check_limits, read_task
from .tool_grants import tool_options


def run_agent(args: argparse.Namespace) -> int:
    """Runs one agent. Returns 0, or 1 if it failed. Raises InputError."""
    check_budget(args.budget)
    check_limits(args)
    args.of_tools = tool_options(args)
    check_copies(args)
    task = read_task(args)
    if args.estimate or args.dry_run:
        from .orchestration import estimate_agent, show_first_request

        (show_first_request if args.dry_run else estimate_agent)(args, task)
        return 0
    with AnswerFile(args.output) as file, AnswerFile(args.patch) as patch_file:
        result = _run(args, task)
        if args.json:
            streams.write_json(render.result_fields(result))
        if result.success:
            file.write(result.output)
        if result.patch:
            patch_file.write(result.patch)
    return 0 if finish_agent(args, result) and result.success else 1


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
    if args.cache != USE or args.of_tools:
        # Each request of an agent with tools is looked up by itself.
        return None
    began, started = time.time(), time.perf_counter()
    registry = Registry(args.config)
    call = prepare_call(registry, args.name, task, **call_options(args))
    key = request_key(call, service_fields(None, None))
    reply = None if key is None else _look_up(key)
    if reply is None:
        return None
    result = succeeded(CallLabels(args.name), reply, time.perf_counter() - started)
    _note_without_grant(call.agent_name, registry)
    log_result(result)
    # What the orchestrator does at the end of each call.
    notify([PerformanceTracker(registry.ledger_folder).record_now], CallCompleted(call, result, began))
    return result


def _note_without_grant(agent_name: str, registry: Registry) -> None:
    """Says that an agent which declares tools answered without them, as the orchestrator does."""
    declared = registry.get(agent_name).settings.tools
    if declared:
        from ..tools.grant import ungranted_notice

        streams.warn(for_shell(ungranted_notice(agent_name, declared)))


def _look_up(key: RequestKey) -> Optional[Reply]:
    try:
        with ResponseCache() as cache:
            return reply_from_hit(cache.get(*key), key)
    except (CacheError, OSError):
        # The orchestrator meets the same error, and reports it.
        return None
