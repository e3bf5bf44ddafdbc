"""Runs the blocking work of tools in threads, a few at a time."""

from __future__ import annotations

import os
import threading
from typing import Callable, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

T = TypeVar("T")
# Files are read faster by a few threads than by many, and all of them share one interpreter.
_MOST_THREADS = max(4, min(16, 2 * (os.cpu_count() or 1)))
# Of their own, so that a long search does not hold up the cache and others who use the default threads.
_limiter: RunVar[CapacityLimiter] = RunVar("claude_force_tool_threads")


class Stop(threading.Event):
    """Set when the caller was cancelled: long work looks at it often."""


async def run_in_thread(work: Callable[[], T]) -> T:
    """Runs short work to its end, even where the caller is cancelled meanwhile."""
    return await to_thread.run_sync(work, limiter=_shared_limiter())


async def run_stoppable(work: Callable[[Stop], T]) -> T:
    """Runs long work that ends soon after its `Stop` is set, which a cancelled caller does not wait for."""
    stop = Stop()
    try:
        return await to_thread.run_sync(work, stop, abandon_on_cancel=True, limiter=_shared_limiter())
    finally:
        stop.set()


def _shared_limiter() -> CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(_MOST_THREADS)
        _limiter.set(limiter)
        return limiter
