"""Runs coroutines in an event loop of another thread, for callers that block."""

from __future__ import annotations

import asyncio
import threading
import weakref
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import suppress
from typing import (
    Any,
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    List,
    Optional,
    TypeVar,
)

from .errors import ClosedError
from .storage.locks import register_after_fork

T = TypeVar("T")


class LoopThread:
    """An event loop in a daemon thread: starts at first use, stops with its owner. Any thread may use it.

    thread = LoopThread()
    result = thread.run(orchestrator.execute_agent("python-expert", "Explain decorators"))
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._finalizer: Optional[weakref.finalize[Any, Any]] = None
        self._last: List[Callable[[], Awaitable[None]]] = []
        register_after_fork(self)

    def run(self, work: Coroutine[Any, Any, T], began_in: Optional[asyncio.AbstractEventLoop] = None) -> T:
        """Returns the coroutine's result. An interrupt (Ctrl-C) cancels the coroutine.

        Raises ClosedError where `stop` ended it, or had ended the loop that it `began_in`.
        """
        try:
            # Under the lock: what is submitted before the loop ends is then cancelled by its end.
            with self._lock:
                loop = self._started() if began_in is None else began_in
                self._expect_usable(loop)
                future = asyncio.run_coroutine_threadsafe(work, loop)
        except Exception:
            work.close()
            raise
        try:
            return future.result()
        except FutureCancelled:
            raise ClosedError("The orchestrator was closed during the call") from None
        except BaseException:
            future.cancel()
            raise

    def _expect_usable(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            raise ClosedError("The orchestrator was closed during the run")
        if _running_loop() is loop:
            raise RuntimeError("A callback of the engine can't wait for the engine; hand the work elsewhere.")

    def iterate(self, results: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yields what the generator yields in the loop, and closes it in the end."""
        with self._lock:
            loop = self._started()
        try:
            while True:
                try:
                    yield self.run(_next(results), loop)
                except StopAsyncIteration:
                    return
        finally:
            # A loop that has ended has closed it.
            with suppress(ClosedError):
                self.run(_close(results), loop)

    def stop(self, last: Callable[[], Awaitable[None]]) -> None:
        """Cancels all that runs in the loop, awaits `last`, then ends the thread."""
        with self._lock:
            finalizer, self._finalizer, self._loop = self._finalizer, None, None
            before, self._last = self._last, []
        if finalizer is not None:
            before.append(last)
            finalizer()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            ready: Future[Any] = Future()
            thread = threading.Thread(
                target=_run_loop, args=(ready, self._last), name="claude-force", daemon=True
            )
            thread.start()
            self._loop, end = ready.result()
            self._finalizer = weakref.finalize(self, _end, self._loop, end, thread)
        return self._loop

    def after_fork(self) -> None:
        """Called in a forked child, which has this object but not its thread."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._lock, self._finalizer, self._loop, self._last = threading.Lock(), None, None, []


def _run_loop(ready: Future[Any], last: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """In the thread. `ready` receives the loop, and the event that ends it."""
    # Not asyncio.run: it may start a thread at its end, which Python 3.12 forbids while a program exits.
    try:
        loop = asyncio.new_event_loop()
    except Exception as error:
        # Such as too many open files.
        ready.set_exception(error)
        return
    asyncio.set_event_loop(loop)
    try:
        serving = loop.create_task(_serve(ready, last))
        while not serving.done():
            # A callback that raises one of these ends its own task, whose caller gets it; the loop goes on.
            with suppress(SystemExit, KeyboardInterrupt):
                loop.run_until_complete(serving)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _serve(ready: Future[Any], last: Iterable[Callable[[], Awaitable[None]]]) -> None:
    end = asyncio.Event()
    ready.set_result((asyncio.get_running_loop(), end))
    await end.wait()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    # Empty at the exit of the program, when no thread can be started any more.
    for work in last:
        await work()


def _end(loop: asyncio.AbstractEventLoop, end: asyncio.Event, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(end.set)
    if thread is not threading.current_thread():
        thread.join(timeout=5)


async def _next(results: AsyncGenerator[T, None]) -> T:
    return await results.__anext__()


async def _close(results: AsyncGenerator[Any, None]) -> None:
    await results.aclose()


def _running_loop() -> Optional[asyncio.AbstractEventLoop]:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
