"""Ctrl-C, and SIGTERM and SIGHUP, which end a command as that does.

asyncio is imported where a loop runs: `--help` must not wait for it.
"""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Callable, Iterator, Optional

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# SIGHUP, where the system has it: the terminal was closed.
_ENDS = (signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)]))
_HANGUP = _ENDS[1:]
_ALL = (signal.SIGINT, *_ENDS)
# `timeout` of GNU sends SIGTERM to its command, and at once again to its group, in which the command is. A
# terminal that is closed and the shell in it both send SIGHUP.
_ECHO_SECONDS = 1.0
_last = float("-inf")


def end_by_sigterm() -> None:
    """From here on SIGTERM and SIGHUP end the command, unless they are taken care of or ignored (`nohup`)."""
    for number in _ENDS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def leave_to_the_system() -> None:
    """From here on each of the signals ends the process at once: all is said, and Python would show where its
    own end was interrupted."""
    for number, ours in ((signal.SIGINT, signal.default_int_handler), *((one, _interrupt) for one in _ENDS)):
        if signal.getsignal(number) is ours:
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


@contextmanager
def caught(interrupt: Callable[[], None]) -> Iterator[None]:
    """Calls `interrupt` in the running event loop for each of the signals, and leaves them as they were.

    Where a loop takes none (Windows, another thread), they end what runs there at once.
    """
    from asyncio import get_running_loop

    loop, before = get_running_loop(), {number: signal.getsignal(number) for number in _ALL}
    # `nohup` has a command ignore SIGHUP.
    wanted = [number for number in _ALL if number not in _HANGUP or before[number] is not signal.SIG_IGN]
    taken = [number for number in wanted if _is_taken(loop, number, partial(_tell, interrupt, number))]
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


def _is_taken(loop: AbstractEventLoop, number: int, handler: Callable[[], None]) -> bool:
    try:
        loop.add_signal_handler(number, handler)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True


def _tell(interrupt: Callable[[], None], number: int) -> None:
    if not _is_echo(number):
        interrupt()
