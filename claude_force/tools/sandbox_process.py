"""Runs one command in a sandbox: starts bubblewrap, sets bounds, and leaves no process behind.

bubblewrap starts a shell as process 1 of a new namespace of processes (`_SUPERVISOR`), and that one starts
the shell of the command. When process 1 ends, the system kills whatever else is in the namespace, and only
after that does bubblewrap end. So its end means that nothing is left, whether the command ended by itself or
process 1 was killed. If this process dies, the system kills bubblewrap, and with it process 1; orphans.py is
for the moment in which it doesn't.

The command is sent through a pipe when its limits are set. Should this process die before, the shell reads an
end and runs nothing. The standard error of bubblewrap is a pipe of its own, the report. On it come `started`,
and the working directory that a successful command leaves, which is as trustworthy as the command.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Callable, NamedTuple, Optional, Sequence, Tuple
from weakref import WeakKeyDictionary

import anyio

from ..errors import ToolSandboxError
from .command_output import CommandOutput
from .control_groups import ProcessGroup
from .orphans import guarded_name
from .resource_limits import (
    MOST_OUTPUT_BYTES,
    MOST_PROCESSES,
    are_processes_counted,
    free_bytes,
    is_disk_full,
    limit,
    most_memory,
    usage,
)
from .sandbox import SHELL, Sandbox, SandboxCommand

# Why a command was killed.
TIME, OUTPUT, PROCESSES, MEMORY, DISK = "time", "output", "processes", "memory", "disk"
_CANCELLED = "cancelled"
# In one event loop; others wait for their turn. Each may keep all processors busy.
MOST_AT_ONCE = max(32, 4 * (os.cpu_count() or 1))
# A pipe may hold as much without a privilege.
MOST_COMMAND_BYTES = 512 * 1024
# How often a running command is looked at.
WATCH_SECONDS = 0.25
# How long the end of killed processes is waited for, before and after bubblewrap itself is killed.
KILL_SECONDS = 20.0
_PIPE_BYTES = 64 * 1024
# Of <linux/fcntl.h>; `fcntl` has it from Python 3.10 on.
_SET_PIPE_SIZE = 1031

# $0 is the shell, $1 the working directory, $2 the project, $3 _SHELL_SCRIPT.
_SUPERVISOR = (
    "echo started >&2; read -r || exit; "
    'cd -P -- "$1" 2>/dev/null || cd -P -- "$2"; "$0" -c "$3" 3>&2 2>&1; exit'
)
# One line, so that the first line of the command is line 1 in messages.
_SHELL_SCRIPT = (
    'IFS= read -r -d "" || exit; eval "$REPLY" 3>&- </dev/null; '
    'set -- $?; [ "$1" = 0 ] && pwd -P >&3; exit "$1"'
)
# What process 1 reads before it starts the shell of the command.
_GO = b"\n"
_CHILD = re.compile(rb'"child-pid":\s*(\d+)')
_STARTED = b"started\n"
_MOST_REPORT_BYTES = 64 * 1024
_MOST_CHARACTERS = 300


class _Turns:
    """The turns of the commands of one event loop."""

    def __init__(self) -> None:
        self.running = asyncio.Semaphore(MOST_AT_ONCE)
        # Starts come one after the other, so that the loop has its turn between any two.
        self.starting = asyncio.Lock()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


class CommandResult(NamedTuple):
    """How a command ended.

    Attributes:
        exit_code: that of its shell; 1 if the shell was killed by a signal.
        output: standard output and error, as they came.
        folder: the working directory that it left, as it says; None unless it succeeded.
        stopped_by: TIME, OUTPUT, PROCESSES, MEMORY or DISK if it was killed here, else "".
        set_aside: what it made in protected places: name, new name.
    """

    exit_code: int
    output: CommandOutput
    folder: Optional[Path]
    stopped_by: str
    set_aside: Sequence[Tuple[str, str]]


async def run_in_sandbox(
    program: str, sandbox: Sandbox, command: bytes, folder: Path, seconds: float, is_writable: bool = True
) -> CommandResult:
    """Runs a command until it has ended, with all processes that it started.

    `program`: bubblewrap. `folder`: the working directory; the project if it is not there any more.
    `seconds`: after them the command is killed; the time that it waits for its turn does not count. If the
    caller is cancelled, everything is killed before this returns. Raises ToolSandboxError where the sandbox
    does not start.
    """
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop) or _turns.setdefault(loop, _Turns())
    async with turns.running:
        process = _Process(program, sandbox, command, folder)
        task = asyncio.ensure_future(process.run(seconds, is_writable, turns))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            process.stop(_CANCELLED)
            await _ended(task)
            raise


async def _ended(task: asyncio.Future[CommandResult]) -> None:
    """Waits for a task, however often the caller is cancelled meanwhile."""
    # A scope of anyio's cancels what is within it again and again.
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
    if not task.cancelled():
        # It is of no interest any more, and would be logged.
        task.exception()


class _Process(asyncio.SubprocessProtocol):
    """One command, from its start to its end."""

    def __init__(self, program: str, sandbox: Sandbox, command: bytes, folder: Path) -> None:
        self._program, self._sandbox, self._folder = program, sandbox, folder
        self._command = command
        self._output = CommandOutput()
        self._report = _Report(self._on_report)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: Optional[asyncio.SubprocessTransport] = None
        # The id of process 1, as this process sees it; 0 before it has started.
        self._child = 0
        # The end of the pipe that the command is sent through, and the file that bubblewrap writes the id to.
        self._writer = self._info = -1
        self._group: Optional[ProcessGroup] = None
        self._stopped_by = ""
        self._is_killed = False

    async def run(self, seconds: float, is_writable: bool, turns: _Turns) -> CommandResult:
        try:
            with self._sandbox.command(is_writable) as command, ExitStack() as opened:
                try:
                    async with turns.starting:
                        if not self._stopped_by:
                            await self._start(command, opened)
                    if self._transport is not None:
                        await self._wait(seconds)
                finally:
                    self._close()
                return self._result([pair for one in command.protected for pair in one.set_aside()])
        except OSError as error:
            raise ToolSandboxError(f"A sandbox can't be started: {error}") from error

    def _close(self) -> None:
        for transport in (self._transport, self._report.transport):
            if transport is not None:
                transport.close()
        if self._group is not None:
            self._group.remove()

    def stop(self, why: str) -> None:
        """Kills the command, now or as soon as it has a process."""
        self._stopped_by = self._stopped_by or why
        if self._child and not self._ended.done() and not self._is_killed:
            self._is_killed = True
            # It is the child of bubblewrap, which has not ended, so no other process has its id.
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._output.add(data)
        if self._output.size > MOST_OUTPUT_BYTES:
            self.stop(OUTPUT)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Called when bubblewrap has ended and its output is read."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def _start(self, command: SandboxCommand, opened: ExitStack) -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as inherited:
            reader, self._writer = _pipe(inherited, opened)
            report_reader, report = _pipe(opened, inherited)
            # Not a pipe: bubblewrap would be killed by writing to one that this process left open to nobody.
            self._info = opened.enter_context(TemporaryFile()).fileno()
            _make_room(self._writer, len(_GO) + len(self._command) + 1)
            # In this thread, although it waits for the new process: to --die-with-parent, the thread that
            # started it is the parent.
            self._transport, _ = await loop.subprocess_exec(
                lambda: self,
                *(guarded_name(), *command.arguments, "--info-fd", str(self._info), "--"),
                *(
                    SHELL,
                    "-c",
                    _SUPERVISOR,
                    SHELL,
                    str(self._folder),
                    str(self._sandbox.project.target),
                    _SHELL_SCRIPT,
                ),
                executable=self._program,
                stdin=reader,
                stdout=asyncio.subprocess.PIPE,
                stderr=report,
                pass_fds=(*command.descriptors, self._info),
                env={},
                cwd="/",
                # Ctrl-C is for this process, which decides what becomes of its commands.
                start_new_session=True,
            )
        pipe = os.fdopen(os.dup(report_reader), "rb", 0)
        await loop.connect_read_pipe(lambda: self._report, pipe)

    def _on_report(self) -> None:
        """Sends the command when the sandbox is there, and kills what was to be stopped before it was."""
        if not self._report.has_started or self._child:
            return
        found = _CHILD.search(os.pread(self._info, _MOST_REPORT_BYTES, 0))
        self._child = int(found[1]) if found else 0
        if self._stopped_by:
            self.stop(self._stopped_by)
        elif self._child:
            # It may have been killed meanwhile.
            with suppress(ProcessLookupError, BrokenPipeError):
                limit(self._child)
                if not are_processes_counted():
                    self._group = ProcessGroup.around(self._child, MOST_PROCESSES)
                os.write(self._writer, _GO + self._command + b"\0")

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline, most = loop.time() + seconds, most_memory()
        free = free_bytes(str(self._sandbox.project.source))
        while not self._has_ended():
            left = KILL_SECONDS if self._stopped_by else min(WATCH_SECONDS, max(0.0, deadline - loop.time()))
            waiting = [one for one in (self._ended, self._report.closed) if not one.done()]
            done, _ = await asyncio.wait(waiting, timeout=left)
            if not done and self._stopped_by:
                self._kill_bubblewrap()
            elif loop.time() >= deadline:
                self.stop(TIME)
            elif not done:
                self._look(most, free)

    def _has_ended(self) -> bool:
        return self._ended.done() and self._report.closed.done()

    def _look(self, most_bytes: int, free_before: int) -> None:
        processes, memory = usage(self._child) if self._child else (0, 0)
        if processes > MOST_PROCESSES:
            self.stop(PROCESSES)
        elif memory > most_bytes:
            self.stop(MEMORY)
        elif is_disk_full(free_before, free_bytes(str(self._sandbox.project.source))):
            self.stop(DISK)

    def _kill_bubblewrap(self) -> None:
        """The second attempt to end it. Raises ToolSandboxError where there was one before."""
        if self._transport is None or self._transport.get_returncode() is not None or self._stopped_by == "":
            raise ToolSandboxError("A command could not be ended: the system does not kill its processes.")
        self._transport.kill()

    def _result(self, set_aside: Sequence[Tuple[str, str]]) -> CommandResult:
        code = self._transport.get_returncode() if self._transport is not None else None
        text = self._report.text()
        if not self._report.has_started and not self._stopped_by:
            said = " ".join(text.split())[:_MOST_CHARACTERS] or f"it ended with code {code}"
            raise ToolSandboxError(f"{self._program} did not start a sandbox: {said}")
        is_success = code == 0 and not self._stopped_by
        # Of a shell that was killed, process 1 says so.
        exit_code = 1 if code is None or (code > 128 and text) else code
        folder = Path(text.rstrip("\n")) if is_success and text.startswith("/") else None
        return CommandResult(exit_code, self._output, folder, self._stopped_by, set_aside)


class _Report(asyncio.Protocol):
    """Reads what bubblewrap and process 1 say.

    Attributes:
        has_started: whether process 1 runs.
        closed: done when nothing comes any more.
        transport: reads the pipe.
    """

    def __init__(self, on_data: Callable[[], None]) -> None:
        self.has_started = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Optional[asyncio.BaseTransport] = None
        self._on_data = on_data
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data[: max(0, _MOST_REPORT_BYTES - len(self._data))]
        self.has_started = self.has_started or _STARTED in self._data
        self._on_data()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def text(self) -> str:
        """What came after `started`; all of it where that did not come."""
        _, started, after = self._data.partition(_STARTED)
        return (after if started else self._data).decode("utf-8", "replace")


def _pipe(reader_in: ExitStack, writer_in: ExitStack) -> Tuple[int, int]:
    reader, writer = os.pipe()
    reader_in.callback(os.close, reader)
    writer_in.callback(os.close, writer)
    return reader, writer


def _make_room(pipe: int, size: int) -> None:
    """Raises OSError where the pipe can't hold `size` bytes."""
    if size > _PIPE_BYTES:
        fcntl.fcntl(pipe, _SET_PIPE_SIZE, size)
