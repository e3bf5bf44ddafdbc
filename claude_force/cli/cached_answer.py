"""A kept answer at once: without the event loop, the SDK, or anything else that only a fresh answer needs."""

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
from .options import call_options


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
