"""Work off the event loop, in batches: what is handed in while a batch is worked off makes up the next one.

Under load, waking a thread and waking the loop again cost more than what the thread is asked to do. asyncio
and the thread are imported when they are needed: a command that has no loop must not wait for either.
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

# Bounds how long the first of a batch waits for the last.
_LARGEST_BATCH = 64

logger = logging.getLogger(__name__)

Job = Any
_Waiting = Tuple[Job, "Optional[asyncio.Future[Any]]"]


class _Failure(NamedTuple):
    error: Exception


class BatchWorker:
    """One thread. `work` takes a batch of jobs and returns as many results.

    It should raise nothing; if it does, that is logged, and raised to each who waits for one of the batch.
    """

    def __init__(self, work: Callable[[List[Job]], List[Any]], name: str) -> None:
        self._work, self._name = work, name
        self._lock = threading.Lock()
        self._inbox: Deque[_Waiting] = deque()
        self._busy = False
        self._thread: Optional[ThreadPoolExecutor] = None
        register_after_fork(self)

    def after_fork(self) -> None:
        """Called in a forked child: it has not the thread, and nobody waits there."""
        self._lock, self._inbox, self._busy, self._thread = threading.Lock(), deque(), False, None

    async def submit(self, job: Job) -> Any:
        """The job's result. A job whose caller is cancelled is done all the same."""
        from asyncio import get_running_loop

        future = get_running_loop().create_future()
        self._put((job, future))
        return await future

    def submit_nowait(self, job: Job) -> None:
        """Nobody waits for it."""
        self._put((job, None))

    def close(self) -> None:
        """Returns when all that was handed in is done; a later job starts the thread again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _put(self, waiting: _Waiting) -> None:
        with self._lock:
            self._inbox.append(waiting)
            if self._busy:
                return
            self._busy = True
            if self._thread is None:
                from concurrent.futures import ThreadPoolExecutor

                self._thread = ThreadPoolExecutor(1, self._name)
            self._thread.submit(self._work_off)

    def _work_off(self) -> None:
        while True:
            with self._lock:
                batch = [self._inbox.popleft() for _ in range(min(len(self._inbox), _LARGEST_BATCH))]
                if not batch:
                    self._busy = False
                    return
            try:
                results = self._work([job for job, _ in batch])
            except Exception as error:
                # It should not be; but those who wait must not wait for ever.
                logger.exception("work that was handed to a thread failed")
                results = [_Failure(error)] * len(batch)
            _deliver(batch, results)


def _deliver(batch: List[_Waiting], results: List[Any]) -> None:
    by_loop: Dict[asyncio.AbstractEventLoop, List[Tuple[asyncio.Future[Any], Any]]] = {}
    for (_, future), result in zip(batch, results):
        if future is not None:
            by_loop.setdefault(future.get_loop(), []).append((future, result))
    for loop, done in by_loop.items():
        # A loop that is closed, maybe in this moment, has nobody left who waits.
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
