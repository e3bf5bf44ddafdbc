"""A server that has imported the package, and forks a new process for each program.

    python tests/forge.py serve SOCKET
    python tests/forge.py command SOCKET WORD ...      runs `claude-force WORD ...` in one of them

A short example spends most of its time importing the package. A program runs in its own process, with the
folder, the environment and the standard streams of its client. The client sends one line of JSON, and gets
the process id, then the exit status.
"""

import array
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import types
from pathlib import Path

PRELOADED = ("aiohttp", "genai_prices", "claude_force.async_orchestrator", "claude_force.orchestrator")


def ask(path, program, streams, began):
    """The exit status of a program: `code` under a `name`, or the `words` of a command, and for either a
    `folder` and an `environment`.

    `streams` are the descriptors of its stdin, stdout and stderr. `began` is told its process id. Where the
    caller goes away, it is killed.
    """
    with socket.socket(socket.AF_UNIX) as server, server.makefile("r") as lines:
        server.connect(path)
        server.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))])
        server.sendall(json.dumps(program).encode() + b"\n")
        began(int(lines.readline()))
        return int(lines.readline())


def command(path, words):
    """Stands for a command in the shell that runs it."""

    def pass_on(child):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(child, number))

    program = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    code = ask(path, program, (0, 1, 2), pass_on)
    # As a shell reports a process that a signal ended.
    return 128 - code if code < 0 else code


def serve(path):
    """Until it is killed. Returns in a child only, with the program that the child is to be."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    # Nothing waits for the processes that wait for the programs.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path + ".new")
        door.listen(16)
        # Who finds the name finds an open door.
        Path(path + ".new").rename(path)
        while True:
            caller, _ = door.accept()
            with caller:
                if os.fork() == 0:
                    door.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return attend(caller)


def attend(caller):
    """Waits for the program and tells how it ended; returns only in the program itself."""
    _, ancillary, _, _ = caller.recvmsg(1, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i", ancillary[0][2])
    with caller.makefile("r", encoding="utf-8") as lines:
        program = json.loads(lines.readline())
    ended, alive = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ended)
        caller.close()
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return program
    os.close(alive)
    for stream in streams:
        os.close(stream)
    caller.sendall(b"%d\n" % child)
    gone, _, _ = select.select([ended, caller], [], [])
    if ended not in gone:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    with contextlib.suppress(OSError):
        caller.sendall(b"%d\n" % code)
    os._exit(0)


def become(program):
    """Runs the program in this process."""
    os.environ.clear()
    os.environ.update(program["environment"])
    os.chdir(program["folder"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(one, "w", encoding="utf-8", closefd=False) for one in (1, 2))  # noqa: SIM115
    sys.path[0] = ""
    if "words" in program:
        sys.argv = ["claude-force", *program["words"]]
        runpy.run_module("claude_force", run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c"]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program["code"], program["name"], "exec"), main.__dict__)


if __name__ == "__main__":
    kind, door_path, *rest = sys.argv[1:]
    if kind == "command":
        sys.exit(command(door_path, rest))
    become(serve(door_path))
