"""A kept answer at once: without the event loop, the SDK, or anything else that only a fresh answer needs."""

from __future__ import annotations

import argparse
import time
from typing import Optional

from ..agents import Registry, prepare_call
from ..cache.asked import USE, Asked, asked, kept_reply
from ..cache.service import service
from ..errors import CacheError
from ..performance_tracker import PerformanceTracker
from ..response_cache import ResponseCache
from ..results import Run, log_result, succeeded, tell
from ..types import AgentResult, Executed, Reply
from .options import call_options


def kept_answer(args: argparse.Namespace, task: str) -> Optional[AgentResult]:
    """The result where the answer is kept; None where it has to be asked for. Raises InputError."""
    if args.cache != USE:
        return None
    began, started = time.time(), time.perf_counter()
    registry = Registry(args.config)
    call = prepare_call(registry, args.name, task, **call_options(args))
    question = asked(call, service(None, None))
    reply = _found(question) if question is not None else None
    if reply is None:
        return None
    result = succeeded(Run(args.name), reply, time.perf_counter() - started)
    log_result(result)
    # All that has to happen at the end of a call, as the engine does it for a call of its own.
    tell([PerformanceTracker(registry.ledger).record_now], Executed(call, result, began))
    return result


def _found(question: Asked) -> Optional[Reply]:
    try:
        with ResponseCache() as cache:
            return kept_reply(cache.get(*question), question.model)
    except (CacheError, OSError):
        # The engine meets the same, and says it.
        return None
