"""Ctrl-C, and SIGTERM and SIGHUP, which end a command as that does.

asyncio is imported where a loop runs: `--help` must not wait for it.
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
    Callable,
    Coroutine,
    Iterator,
    List,
    NamedTuple,
    Optional,
    TypeVar,
    cast,
)

from .interrupts import leave, on_ctrl_c

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")

# SIGHUP, where the system has it: the terminal was closed.
_ENDS = (signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)]))
_ALL = (signal.SIGINT, *_ENDS)
# `timeout` of GNU sends SIGTERM to its command, and at once again to its group, in which the command is. A
# terminal that is closed and the shell in it both send SIGHUP.
_ECHO_SECONDS = 1.0
_last = float("-inf")


def handle_termination() -> None:
    """From here on SIGTERM and SIGHUP end the command, unless they are taken care of or ignored (`nohup`)."""
    for number in _ENDS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def restore_defaults() -> None:
    """From here on each of the signals ends the process at once: all is said, and Python would show where its
    own end was interrupted."""
    ours = (signal.default_int_handler, on_ctrl_c, _interrupt)
    for number in _ALL:
        if signal.getsignal(number) in ours:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: Optional[FrameType]) -> None:
    if _is_echo(number):
        return
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    # A shell has those that it starts in the background ignore Ctrl-C.
    if not callable(on_ctrl_c):
        raise KeyboardInterrupt
    on_ctrl_c(signal.SIGINT, frame)


def _is_echo(number: int) -> bool:
    global _last
    if number not in _ENDS:
        return False
    moment = time.monotonic()
    if moment - _last < _ECHO_SECONDS:
        return True
    _last = moment
    return False


class _Interrupt(NamedTuple):
    """What a signal does in the running loop, and whether the process may be ended without that."""

    interrupt: Callable[[], None]
    may_leave: Callable[[], bool]


# Innermost last.
_interrupts: List[_Interrupt] = []


def _always() -> bool:
    return True


def never() -> bool:
    """For what has something to finish from its begin on, such as to sign off."""
    return False


def run(work: Coroutine[Any, Any, T], may_leave: Callable[[], bool] = _always) -> T:
    """As `asyncio.run`, the same on every Python: Ctrl-C cancels `work`, a second one ends it where it is.
    `may_leave` as of `caught`, for the first.

    Raises KeyboardInterrupt.
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

        with caught(interrupt, lambda: is_interrupted or may_leave()):
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


@contextmanager
def caught(interrupt: Callable[[], None], may_leave: Callable[[], bool] = _always) -> Iterator[None]:
    """Calls `interrupt` in the running event loop for each of the signals, and leaves them as they were.

    While the SDK is imported, which can't be cancelled, a signal ends the process at once where
    `may_leave()`: nothing was sent, and nothing is lost. Where a loop takes no signals (Windows, another
    thread), they end what runs there at once.
    """
    entry = _Interrupt(interrupt, may_leave)
    _interrupts.append(entry)
    try:
        with nullcontext() if len(_interrupts) > 1 else _taken():
            yield
    finally:
        _interrupts.remove(entry)


@contextmanager
def _taken() -> Iterator[None]:
    from asyncio import get_running_loop

    loop, before = get_running_loop(), {number: signal.getsignal(number) for number in _ALL}
    taken = [number for number in _ALL if _is_taken(loop, number, partial(_tell, number))]
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


def _is_taken(loop: AbstractEventLoop, number: int, handler: Callable[[], None]) -> bool:
    # A shell has those that it starts in the background ignore Ctrl-C, and `nohup` SIGHUP.
    if signal.getsignal(number) is signal.SIG_IGN:
        return False
    try:
        loop.add_signal_handler(number, handler)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True


def _tell(number: int) -> None:
    from ..engine.connection_pool import is_starting

    if _is_echo(number):
        return
    interrupt, may_leave = _interrupts[-1]
    if is_starting() and may_leave():
        leave()
    interrupt()
