"""Decides whether a grant such as `Bash(git diff:*)` allows a command line, all commands of it. Pure."""

from __future__ import annotations

import os
from typing import Callable, Optional, Sequence

from .command_rules import CommandPattern, compile_command, has_unsafe_variables, is_allowed, split_few
from .grant import Grant
from .shell_commands import ShellSyntaxError, SimpleCommand, Word
from .tool_names import BASH

# Commands that neither read nor write files, nor change what later ones do.
_HARMLESS = frozenset((":", "cd", "echo", "exit", "false", "printf", "pwd", "true"))
# Commands that only read, whatever their arguments are. In `[[`, a text can be run as arithmetic.
_READING = frozenset(
    (
        *("basename", "cat", "cmp", "cut", "diff", "dirname", "egrep", "fgrep", "grep", "head", "ls", "nl"),
        *("readlink", "realpath", "stat", "tail", "tr", "wc"),
    )
)
# Commands whose first operand says what they would change.
_CHANGING = frozenset(
    ("chmod", "chown", "cp", "ln", "mkdir", "mv", "rm", "rmdir", "sed", "touch", "truncate")
)
_NESTED = "A nested command in this command can't be checked before it runs"
_UNGRANTED = "This run does not grant it."
_NO_FILES = frozenset(("/dev/null", "/dev/stdout", "/dev/stderr"))


class CommandGrant:
    """What a grant allows of Bash."""

    def __init__(self, grant: Grant, may_read: bool, write_denial: Callable[[str], str]) -> None:
        """`may_read`: all files may be read. `write_denial`: why a path may not be written, or ""."""
        self._grants_all = grant.grants_all(BASH)
        self._patterns = [
            compile_command(rule.specifier)
            for rule in grant.rules
            if rule.tool == BASH and rule.specifier is not None
        ]
        self._free = _HARMLESS | _READING if may_read else _HARMLESS
        self._write_denial = write_denial

    def denial(self, line: str, cwd: str) -> str:
        """Returns what the model is told about a line that may not run; "" for one that may."""
        return "" if self._grants_all else self._denial(line, cwd, self._patterns)

    def refusal(self, line: str, cwd: str) -> str:
        """Returns what the model is told about a line where no command is granted."""
        return self._denial(line, cwd, ()) or "This command requires approval"

    def _denial(self, line: str, cwd: str, patterns: Sequence[CommandPattern]) -> str:
        try:
            commands = split_few(line)
        except ShellSyntaxError as error:
            return f"This command requires approval: {error}"
        if any(one.is_nested for one in commands):
            return _NESTED
        moves = any(one.words and one.words[0].value in ("cd", "pushd", "popd") for one in commands)
        for command in commands:
            denial = self._command_denial(command, cwd, patterns) or self._output_denial(command, cwd, moves)
            if denial:
                return denial
        return ""

    def _command_denial(self, command: SimpleCommand, cwd: str, patterns: Sequence[CommandPattern]) -> str:
        if is_allowed(command, patterns) or self._is_free(command):
            return ""
        changed = _changed(command, cwd)
        if changed is None:
            return "This command requires approval"
        return f"{command.words[0].value} in '{changed}' needs approval. {_UNGRANTED}"

    def _is_free(self, command: SimpleCommand) -> bool:
        """Whether a command needs no rule."""
        if not command.words or has_unsafe_variables(command):
            return False
        name = command.words[0]
        if name.raw not in self._free:
            return False
        # `printf -v NAME` sets a variable.
        first = command.words[1] if len(command.words) > 1 else None
        return name.raw != "printf" or first is None or (first.is_literal and first.value[:1] != "-")

    def _output_denial(self, command: SimpleCommand, cwd: str, moves: bool) -> str:
        for word in command.outputs:
            if word.is_literal and word.value in _NO_FILES:
                continue
            path = _absolute(word, cwd)
            # Behind a `cd` it is not known which file a relative path means.
            if not word.is_literal or moves or self._write_denial(path):
                return f"Output redirection to '{path}' needs approval. {_UNGRANTED}"
        return ""


def _changed(command: SimpleCommand, cwd: str) -> Optional[str]:
    """Returns the path that a command such as `rm` would change; None for another command."""
    words = command.words
    if not words or words[0].value not in _CHANGING:
        return None
    operand = next((word for word in words[1:] if not word.value.startswith("-")), None)
    return None if operand is None else _absolute(operand, cwd)


def _absolute(word: Word, cwd: str) -> str:
    return os.path.normpath(os.path.join(cwd, word.value))
