"""Handles Ctrl-C, and SIGTERM and SIGHUP, which end a command the same way.

asyncio is imported only where a loop runs: `--help` must not wait for it.
"""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import (
    TYPE_CHECKING,
    Any,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    List,
    Optional,
    Tuple,
    TypeVar,
    cast,
)

from .interrupts import exit_now, handle_ctrl_c

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")

# SIGHUP, where the system has it: the terminal was closed.
_TERMINATIONS = (signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)]))
_HANDLED = (signal.SIGINT, *_TERMINATIONS)
# One termination may send two signals: GNU `timeout` signals the command and then its process group, and a
# closed terminal sends SIGHUP as its shell does.
_DUPLICATE_SECONDS = 1.0
_last_termination = float("-inf")


def handle_termination() -> None:
    """Makes SIGTERM and SIGHUP end the command, unless they have a handler or are ignored (`nohup`)."""
    for number in _TERMINATIONS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def restore_defaults() -> None:
    """Makes each signal end the process at once, without the traceback of Python's shutdown."""
    ours = (signal.default_int_handler, handle_ctrl_c, _terminate)
    for number in _HANDLED:
        if signal.getsignal(number) in ours:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, frame: Optional[FrameType]) -> None:
    if _is_duplicate(number):
        return
    ctrl_c = signal.getsignal(signal.SIGINT)
    # A shell makes background commands ignore Ctrl-C.
    if not callable(ctrl_c):
        raise KeyboardInterrupt
    ctrl_c(signal.SIGINT, frame)


def _is_duplicate(number: int) -> bool:
    global _last_termination
    if number not in _TERMINATIONS:
        return False
    now = time.monotonic()
    if now - _last_termination < _DUPLICATE_SECONDS:
        return True
    _last_termination = now
    return False


# What an interrupt calls, and whether the process may exit without it; the innermost is last.
_handlers: List[Tuple[Callable[[], None], Callable[[], bool]]] = []


def _always() -> bool:
    return True


def never() -> bool:
    """For work that always has something to finish, such as to unregister a worker."""
    return False


def run(work: Coroutine[Any, Any, T], may_exit: Callable[[], bool] = _always) -> T:
    """Runs `work` in a new event loop. The first Ctrl-C cancels it, the second raises where it is.

    Raises:
        KeyboardInterrupt: after the first Ctrl-C, when `work` has ended; during an import the process may end
            at once instead, as `handle_interrupts` says.
    """
    import asyncio

    is_interrupted = False

    async def guarded() -> Optional[T]:
        task = asyncio.current_task()

        def interrupt() -> None:
            nonlocal is_interrupted
            if is_interrupted or task is None:
                raise KeyboardInterrupt
            is_interrupted = True
            task.cancel()

        with handle_interrupts(interrupt, lambda: is_interrupted or may_exit()):
            try:
                return await work
            except asyncio.CancelledError:
                if not is_interrupted:
                    raise
                return None

    result = asyncio.run(guarded())
    if is_interrupted:
        raise KeyboardInterrupt
    return cast("T", result)


async def run_beside(work: Coroutine[Any, Any, T], *others: Callable[[], Awaitable[None]]) -> T:
    """Awaits `work` while the others run, and cancels those when it ends.

    An error of the others, such as a display's, is logged: it ends no work that is paid for.
    """
    import logging

    from anyio import CancelScope

    from ..engine.task_group import TaskGroup

    scopes = [CancelScope() for _ in others]

    async def run_in(scope: CancelScope, other: Callable[[], Awaitable[None]]) -> None:
        with scope:
            try:
                await other()
            except Exception as error:
                logging.getLogger(__name__).warning("%s: %s", type(error).__name__, error)

    async with TaskGroup() as group:
        for scope, other in zip(scopes, others):
            group.start_soon(run_in, scope, other)
        try:
            return await work
        finally:
            for scope in scopes:
                scope.cancel()


@contextmanager
def handle_interrupts(
    interrupt: Callable[[], None], may_exit: Callable[[], bool] = _always
) -> Iterator[None]:
    """Calls `interrupt` in the running event loop for each signal; restores the old handlers at the end.

    An import of the SDK can't be cancelled. A signal during it ends the process at once if `may_exit()`:
    nothing was sent, and nothing is lost. Where a loop takes no signals (on Windows, in another thread), they
    act as before.
    """
    entry = (interrupt, may_exit)
    _handlers.append(entry)
    try:
        with nullcontext() if len(_handlers) > 1 else _installed():
            yield
    finally:
        _handlers.remove(entry)


@contextmanager
def _installed() -> Iterator[None]:
    from asyncio import get_running_loop

    loop, before = get_running_loop(), {number: signal.getsignal(number) for number in _HANDLED}
    added = [number for number in _HANDLED if _add(loop, number)]
    try:
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


def _add(loop: AbstractEventLoop, number: int) -> bool:
    # A shell makes background commands ignore Ctrl-C, and `nohup` SIGHUP.
    if signal.getsignal(number) is signal.SIG_IGN:
        return False
    try:
        loop.add_signal_handler(number, partial(_dispatch, number))
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True


def _dispatch(number: int) -> None:
    from ..engine.sender_pool import is_starting

    if _is_duplicate(number):
        return
    interrupt, may_exit = _handlers[-1]
    if is_starting() and may_exit():
        exit_now()
    interrupt()
