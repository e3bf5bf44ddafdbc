"""Finds bubblewrap, which confines commands, and makes sure that it works on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Collection, Dict, Union

from .. import settings
from ..errors import ToolSandboxError
from .sandbox import SHELL, Sandbox
from .toolchains import is_within

_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin", "/run/current-system/sw/bin")
_INSTALL = (
    "Install it (`apt-get install bubblewrap` on Debian and Ubuntu, `dnf install bubblewrap` on Fedora), or "
    "grant no Bash."
)
_ALLOW = (
    "That takes a bubblewrap with --bind-fd (0.10, or Debian 12's) and a system that lets users make "
    "namespaces: in Docker --security-opt seccomp=unconfined --security-opt systempaths=unconfined, on "
    "Ubuntu an AppArmor profile for bwrap, or kernel.apparmor_restrict_unprivileged_userns=0. Or grant no "
    "Bash."
)
_TIMEOUT_SECONDS = 20
_MOST_CHARACTERS = 300

_lock = threading.Lock()
_checked: Dict[str, Union[bool, ToolSandboxError]] = {}


def bubblewrap(outside: Collection[Path] = ()) -> str:
    """Returns the path of a `bwrap` that works. Raises ToolSandboxError.

    `outside`: folders whose programs are not started, such as the project. Each `bwrap` is tried once per
    process, which takes about 30 ms.
    """
    if not sys.platform.startswith("linux"):
        raise ToolSandboxError(
            "Commands of agents are confined by bubblewrap, which is for Linux: on this system Bash is not "
            "supported yet. Grant no Bash."
        )
    program = _find(outside)
    with _lock:
        if program not in _checked:
            _checked[program] = _check(program)
        outcome = _checked[program]
    if isinstance(outcome, ToolSandboxError):
        raise ToolSandboxError(*outcome.args)
    return program


def _find(outside: Collection[Path]) -> str:
    refused = [os.path.realpath(folder) for folder in outside]
    for folder in (*_FOLDERS, *settings.search_path()):
        program = os.path.realpath(os.path.join(folder, "bwrap"))
        is_program = os.path.isabs(folder) and os.path.isfile(program) and os.access(program, os.X_OK)
        if (
            is_program
            and not is_within(program, refused)
            and not is_within(os.path.normpath(folder), refused)
        ):
            return program
    raise ToolSandboxError(f"Commands of agents run in a sandbox, which needs bubblewrap (bwrap). {_INSTALL}")


def _check(program: str) -> Union[bool, ToolSandboxError]:
    """Makes the same sandbox as for commands, around an empty one."""
    try:
        # Any folder will do, and this one has nothing of the user's.
        with Sandbox(Path(__file__).parent).command() as command:
            done = subprocess.run(
                [program, *command.arguments, "--", SHELL, "-c", "exit 0"],
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=command.descriptors,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
    except (OSError, subprocess.SubprocessError) as error:
        return ToolSandboxError(f"{program} can't be started: {error}. {_ALLOW}")
    if done.returncode == 0:
        return True
    said = " ".join(done.stderr.decode("utf-8", "replace").split())[:_MOST_CHARACTERS]
    return ToolSandboxError(
        f"{program} can't make a sandbox here: {said or f'code {done.returncode}'}. {_ALLOW}"
    )
