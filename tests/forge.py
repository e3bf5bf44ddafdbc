"""A process that has imported what every program of ours needs, and forks a new one for each program.

    python tests/forge.py SOCKET

Most of the time that a short example takes is the import of the SDK. A program is sent as one line of JSON:
`code`, `name`, `folder`, `environment`, and `out` and `error`, the files for its output. It runs as
`python -c` would run it: as `__main__`, with an exit of its own. The reply is its process id, then its exit
status.
"""

import json
import os
import signal
import socket
import sys
import types
from pathlib import Path

PRELOADED = ("anthropic", "genai_prices", "claude_force.async_orchestrator", "claude_force.orchestrator")


def serve(path):
    """Until it is killed. Returns in a child only, with the program that the child is to be."""
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError:
            continue
    # Nobody waits for the ones that wait for the programs.
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
    with caller.makefile("r", encoding="utf-8") as lines:
        program = json.loads(lines.readline())
    child = os.fork()
    if child == 0:
        caller.close()
        os.setsid()
        return program
    caller.sendall(b"%d\n" % child)
    _, status = os.waitpid(child, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    caller.sendall(b"%d\n" % code)
    os._exit(0)


def become(program):
    """Runs the program in this process."""
    os.environ.clear()
    os.environ.update(program["environment"])
    os.chdir(program["folder"])
    for number, name in ((1, "out"), (2, "error")):
        file = os.open(program[name], os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (open(one, "w", encoding="utf-8", closefd=False) for one in (1, 2))  # noqa: SIM115
    sys.argv, sys.path[0] = ["-c"], ""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(program["code"], program["name"], "exec"), main.__dict__)


become(serve(sys.argv[1]))
