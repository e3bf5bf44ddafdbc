"""The Bash tool: runs commands in a sandbox. Inputs and results are those of Claude Code's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple

from ..conversation import ToolResult
from ..errors import ToolSandboxError
from .command_lines import is_answer, runs_in_background
from .command_output import HEAD_CHARACTERS, MOST_CHARACTERS, TAIL_CHARACTERS
from .protocol import ToolError
from .read_only_commands import changes_nothing
from .resource_limits import MOST_OUTPUT_BYTES, MOST_PROCESSES
from .sandbox import Sandbox
from .sandbox_process import (
    DISK,
    MEMORY,
    MOST_COMMAND_BYTES,
    OUTPUT,
    PROCESSES,
    TIME,
    CommandResult,
    run_in_sandbox,
)
from .workspace import Workspace

# In milliseconds, as the model gives it.
TIMEOUT = 120_000
MOST_TIMEOUT = 600_000
_NO_OUTPUT = "(Bash completed with no output)"
# That of a command that is ended by SIGTERM, and by SIGKILL.
_TIMED_OUT, _KILLED = 143, 137
_WHY = {
    OUTPUT: f"it wrote more than {MOST_OUTPUT_BYTES:,} bytes",
    PROCESSES: f"it had more than {MOST_PROCESSES:,} processes",
    MEMORY: "it used more than half of the machine's memory",
    DISK: "it left too little room on the disk",
}
_BACKGROUND = (
    "Commands can't run in the background here: no process outlives the call that started it. Run it without "
    "run_in_background, and with a timeout of up to 600000 ms."
)

_AMPERSAND = (
    "This command uses the `&` background operator, and no process outlives the call that started it. End "
    "the line with `wait`, or put what runs at the same time into parentheses: `(server & sleep 1; client)`."
)

_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "command": {"type": "string", "description": "The command to run, for bash"},
        "timeout": {
            "type": "number",
            "description": f"Milliseconds until it is killed (default {TIMEOUT}, at most {MOST_TIMEOUT})",
        },
        "description": {"type": "string", "description": "What the command does, in a few words"},
        "run_in_background": {"type": "boolean", "description": "Not supported: true is refused"},
    },
    "required": ["command"],
    "additionalProperties": False,
}


class BashTool:
    """Runs commands of one agent. The working directory is carried over, variables are not.

    tool = BashTool(workspace, Sandbox(workspace.root), bubblewrap())
    result = await tool.run({"command": "git status"})
    """

    name = "Bash"

    def __init__(self, workspace: Workspace, sandbox: Sandbox, program: str) -> None:
        """`program`: the path of bubblewrap (`bubblewrap.bubblewrap`)."""
        self._workspace, self._sandbox, self._program = workspace, sandbox, program
        self.description = _describe(sandbox)
        self.input_schema: Mapping[str, Any] = _SCHEMA

    def is_read_only(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the command surely changes nothing. It then runs with the project read-only."""
        return changes_nothing(arguments["command"])

    async def run(self, arguments: Mapping[str, Any]) -> ToolResult:
        """Runs a command. Raises ToolError, also where the sandbox does not start."""
        if arguments.get("run_in_background"):
            raise ToolError(_BACKGROUND)
        command = _encoded(arguments["command"])
        if runs_in_background(arguments["command"]):
            raise ToolError(_AMPERSAND)
        milliseconds = max(0, min(MOST_TIMEOUT, arguments.get("timeout") or TIMEOUT))
        try:
            result = await run_in_sandbox(
                self._program,
                self._sandbox,
                command,
                Path(self._workspace.cwd),
                milliseconds / 1000,
                is_writable=not self.is_read_only(arguments),
            )
        except ToolSandboxError as error:
            raise ToolError(str(error)) from error
        return self._result(arguments["command"], milliseconds, result)

    async def close(self) -> None:
        """Does nothing: a command has ended when its call has."""

    def _result(self, command: str, milliseconds: float, result: CommandResult) -> ToolResult:
        is_error = bool(result.stopped_by) or (
            result.exit_code != 0 and not is_answer(command, result.exit_code)
        )
        lines: List[str] = []
        if is_error:
            lines.append(f"Exit code {_exit_code(result)}")
        if result.stopped_by == TIME:
            lines.append(f"Command timed out after {_duration(milliseconds)}")
        elif result.stopped_by:
            lines.append(f"Command was stopped: {_WHY[result.stopped_by]}")
        lines += [result.output.text(), *map(_set_aside, result.set_aside)]
        reset = self._follow(result.folder)
        text = "\n".join(filter(None, (*lines, reset)))
        return ToolResult(text or _NO_OUTPUT, is_error)

    def _follow(self, folder: Optional[Path]) -> str:
        """Carries the working directory over; returns a note where the command has left the folders."""
        workspace = self._workspace
        if folder is None or str(folder) == workspace.cwd:
            return ""
        try:
            workspace.change_folder(str(folder))
        except ToolError:
            workspace.cwd = str(workspace.root)
            return f"Shell cwd was reset to {workspace.root}"
        return ""


def _describe(sandbox: Sandbox) -> str:
    """What the model is told: the same text for the same sandbox, as the prompt cache reads it too."""
    changes = "may change files in it" if sandbox.is_writable else "can't change files in it"
    network = "There is network." if sandbox.has_network else "There is no network."
    return (
        "Runs a bash command and returns its output, standard output and standard error merged. The working "
        "directory persists between commands inside the project; variables, functions and aliases don't. "
        f"The command runs in a sandbox: it sees the project and {changes}, it sees the system's programs, "
        f"but no other files of the user. {network} The home folder and /tmp are empty at the start of each "
        "command. Standard input is /dev/null. When the command ends, all processes that it started are "
        f"killed. It is killed after {TIMEOUT // 1000} s unless `timeout` says otherwise. Of an output over "
        f"{MOST_CHARACTERS:,} characters, the first {HEAD_CHARACTERS:,} and the last {TAIL_CHARACTERS:,} are "
        "returned."
    )


def _encoded(command: str) -> bytes:
    if "\0" in command:
        raise ToolError("The command has a NUL character, which a shell can't take.")
    try:
        data = command.encode()
    except UnicodeEncodeError as error:
        raise ToolError("The command has half a surrogate pair, which is no character.") from error
    if len(data) >= MOST_COMMAND_BYTES:
        raise ToolError(
            f"The command has over {MOST_COMMAND_BYTES:,} bytes. Write long texts to a file, and use that."
        )
    return data


def _exit_code(result: CommandResult) -> int:
    if result.stopped_by:
        return _TIMED_OUT if result.stopped_by == TIME else _KILLED
    return result.exit_code


def _set_aside(names: Tuple[str, str]) -> str:
    old, new = names
    return f"{old} was renamed to {new}: {old} may not be made without a grant of its own."


def _duration(milliseconds: float) -> str:
    """As Claude Code spells it: cut to a second, from a minute on rounded."""
    if milliseconds < 60_000:
        return f"{int(milliseconds / 1000)}s"
    minutes, seconds = divmod(int(milliseconds / 1000 + 0.5), 60)
    return f"{minutes}m {seconds}s"
