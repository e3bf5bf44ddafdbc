"""Ends what bubblewrap leaves behind when this process is killed while a sandbox is being made.

bubblewrap's child asks the system to be killed together with it only when its namespaces are set up. If this
process is killed before, the system kills bubblewrap, and the child waits for it for ever. So the first
command of a process starts a guard, a shell that does nothing until the process ends in whatever way, then
kills such children, and ends a second later. They are known by their name, which no other process has.
"""

from __future__ import annotations

import os
import secrets
from typing import List, NamedTuple

from .sandbox import SHELL

# $0 is the name. Process 1 of a sandbox that is complete has another name, and is killed by the system.
# It looks until it has found none three times: what it kills may just have started another.
_SCRIPT = (
    'cd /; read -r; quiet=0; while [ "$quiet" -lt 3 ]; do quiet=$((quiet + 1)); '
    'for process in /proc/[0-9]*; do IFS= read -r -d "" name <"$process/cmdline" && [ "$name" = "$0" ] && '
    'kill -9 "${process#/proc/}" && quiet=0; done; sleep 0.3; done'
)


class _Guard(NamedTuple):
    """`lifeline`: the end of a pipe that the system closes when this process ends."""

    name: str
    lifeline: int


_guards: List[_Guard] = []


def guarded_name() -> str:
    """Returns the name, `argv[0]`, under which bubblewrap is to be started. Raises OSError."""
    if not _guards:
        _guards.append(_start())
    return _guards[0].name


def _start() -> _Guard:
    name = f"bwrap-{os.getpid()}-{secrets.token_hex(4)}"
    reader, lifeline = os.pipe()
    try:
        os.posix_spawn(
            SHELL,
            [SHELL, "-c", _SCRIPT, name],
            {"PATH": "/usr/bin:/bin"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reader, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            # Ctrl-C on the terminal is not for it.
            setsid=True,
        )
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(reader)
    return _Guard(name, lifeline)


def _forget() -> None:
    """In a forked process: it gets a guard of its own, and does not hold the lifeline of its parent."""
    while _guards:
        os.close(_guards.pop().lifeline)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
