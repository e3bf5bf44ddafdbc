"""Runs jobs in a thread in batches: the jobs that arrive during one batch make up the next.

Under load, waking a thread and the event loop again costs more than the jobs themselves. asyncio and the
thread pool are imported at the first use, because a command without a loop must not wait for them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple

from .locks import register_after_fork

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

# Bounds how long the first job of a batch waits for the last.
_LARGEST_BATCH = 64

logger = logging.getLogger(__name__)

Job = Any
_Waiting = Tuple[Job, "Optional[asyncio.Future[Any]]"]


class _Failure(NamedTuple):
    error: Exception


class BatchWorker:
    """One thread that drains a queue of jobs. `work` takes a batch of jobs and returns as many results.

    What `work` raises is logged, and raised to each caller that waits for a job of the batch.

    >>> worker = BatchWorker(lambda jobs: [job * 2 for job in jobs], "doubler")
    >>> await worker.submit(21)
    42
    """

    def __init__(self, work: Callable[[List[Job]], List[Any]], name: str) -> None:
        self._work, self._name = work, name
        self._lock = threading.Lock()
        self._queue: Deque[_Waiting] = deque()
        self._draining = False
        self._thread: Optional[ThreadPoolExecutor] = None
        register_after_fork(self)

    def after_fork(self) -> None:
        """Called in a forked child, which has neither the thread nor callers that wait."""
        self._lock, self._queue, self._draining, self._thread = threading.Lock(), deque(), False, None

    async def submit(self, job: Job) -> Any:
        """Returns the job's result. A job runs even if its caller is cancelled."""
        from asyncio import get_running_loop

        future = get_running_loop().create_future()
        self._enqueue((job, future))
        return await future

    def submit_nowait(self, job: Job) -> None:
        """Hands in a job without waiting for its result."""
        self._enqueue((job, None))

    def close(self) -> None:
        """Waits until all jobs are done and ends the thread; a later job starts it again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _enqueue(self, waiting: _Waiting) -> None:
        with self._lock:
            self._queue.append(waiting)
            if self._draining:
                return
            self._draining = True
            if self._thread is None:
                from concurrent.futures import ThreadPoolExecutor

                self._thread = ThreadPoolExecutor(1, self._name)
            self._thread.submit(self._drain)

    def _drain(self) -> None:
        while True:
            with self._lock:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _LARGEST_BATCH))]
                if not batch:
                    self._draining = False
                    return
            try:
                results = self._work([job for job, _ in batch])
            except Exception as error:
                # Callers must not wait for ever.
                logger.exception("work that was handed to a thread failed")
                results = [_Failure(error)] * len(batch)
            _deliver(batch, results)


def _deliver(batch: List[_Waiting], results: List[Any]) -> None:
    by_loop: Dict[asyncio.AbstractEventLoop, List[Tuple[asyncio.Future[Any], Any]]] = {}
    for (_, future), result in zip(batch, results):
        if future is not None:
            by_loop.setdefault(future.get_loop(), []).append((future, result))
    for loop, done in by_loop.items():
        # A loop that is closed, perhaps in this moment, has no callers left.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, done)


def _settle(done: List[Tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in done:
        if future.done():
            continue
        if isinstance(result, _Failure):
            future.set_exception(result.error)
        else:
            future.set_result(result)
