"""Bounds what a command in the sandbox takes of the machine: sets limits, and looks at what it uses."""

from __future__ import annotations

import os
import re
import resource
from contextlib import suppress
from typing import Sequence, Tuple

# Of one command with all that it starts.
MOST_PROCESSES = 2048
MOST_FILE_BYTES = 4 * 1024**3
MOST_OUTPUT_BYTES = 10**9
# A command is stopped that leaves less room on the project's disk, once it has taken as much.
LEAST_FREE_BYTES = 1024**3
# Resident memory, as a share of the machine's.
MOST_MEMORY_SHARE = 0.5
_NICENESS = 10
# The most that the kernel takes: when memory is short, commands are killed before anything else.
_KILLED_FIRST = "1000"
# From Linux 5.14 on, the processes of a user are counted for each namespace of users.
_COUNTED_APART = (5, 14)


def limit(process: int) -> None:
    """Sets the limits of a process that is about to start a command; all that it starts inherits them.

    Raises OSError, such as ProcessLookupError.
    """
    limits = [
        (resource.RLIMIT_FSIZE, MOST_FILE_BYTES),
        # At 1 the kernel neither writes a core nor pipes one to a program outside, as it would at 0.
        (resource.RLIMIT_CORE, 1),
        *([(resource.RLIMIT_NPROC, MOST_PROCESSES)] if are_processes_counted() else []),
    ]
    for kind, most in limits:
        _, hard = resource.prlimit(process, kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(process, kind, (value, value))
    os.setpriority(os.PRIO_PROCESS, process, _NICENESS)
    descriptor = os.open(f"/proc/{process}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, _KILLED_FIRST.encode())
    finally:
        os.close(descriptor)


def usage(process: int) -> Tuple[int, int]:
    """Returns how many processes are in the namespace of `process`, and bytes of their own resident memory.

    `process`: the first one of a sandbox, whose `/proc` shows the others. (0, 0) if it has ended.
    """
    processes = memory = 0
    folder = f"/proc/{process}/root/proc"
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.isdecimal():
                processes += 1
                memory += _memory(f"{folder}/{name}/statm") if processes <= MOST_PROCESSES else 0
    return processes, memory


def _memory(statm: str) -> int:
    """Bytes of resident memory that the process shares with no file."""
    try:
        with open(statm, "rb") as file:
            fields = file.read().split()
    except OSError:
        return 0
    return max(0, int(fields[1]) - int(fields[2])) * _PAGE if len(fields) > 2 else 0


def free_bytes(folder: str) -> int:
    """The room on the disk of a folder. Raises OSError."""
    info = os.statvfs(folder)
    return info.f_bavail * info.f_frsize


def is_disk_full(before: int, now: int) -> bool:
    """Whether too little room is left, and not because of others: `before` the command there was more."""
    return now < LEAST_FREE_BYTES and before - now >= LEAST_FREE_BYTES


def most_memory() -> int:
    """Bytes that the processes of one command may use."""
    return int(os.sysconf("SC_PHYS_PAGES") * _PAGE * MOST_MEMORY_SHARE)


_PAGE: int = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def are_processes_counted() -> bool:
    """Whether RLIMIT_NPROC bounds the processes of a command. It does not for root: see control_groups.py."""
    numbers: Sequence[str] = re.findall(r"\d+", os.uname().release)[:2]
    return os.geteuid() != 0 and tuple(map(int, numbers)) >= _COUNTED_APART
