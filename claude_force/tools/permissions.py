"""Decides whether a tool call may run: deny rules, then ask rules, then the run's grant. Pure.

What can't be decided is not allowed. The texts are those of Claude Code, for which agents are written. Links
are not followed here: the workspace asks again about the path that it really opens.
"""

from __future__ import annotations

import os
from typing import Any, Iterable, List, Mapping, Sequence, Set, Tuple

from .command_rules import CommandPattern, find_denied
from .grant import Grant
from .line_permissions import CommandGrant
from .matchers import compile_matcher
from .path_patterns import PathPattern
from .permission_rules import ASK, DENY, PermissionRules
from .shell_commands import ShellSyntaxError
from .tool_names import ALSO_OF, BASH, EDIT, READ, READING, WRITE, WRITING

# Longer and deeper than any path that tools can open.
_LONGEST_PATH, _DEEPEST_PATH = 4_096, 100
_MOST_SHOWN = 300
_DENIED_PATH = (
    "<tool_use_error>File is in a directory that is denied by your permission settings.</tool_use_error>"
)


class Permissions:
    """What one agent may do with the tools that it is offered.

    >>> grant = parse_grant("Read,Bash(git diff:*)")
    >>> permissions = Permissions(grant, NO_RULES, "/project", "/home/me", ("Read", "Bash"))
    >>> permissions.denial("Bash", {"command": "git diff; rm -r src"}, "/project")
    "rm in '/project/src' needs approval. This run does not grant it."
    """

    def __init__(
        self, grant: Grant, rules: PermissionRules, root: str, home: str, offered: Sequence[str]
    ) -> None:
        """`root` and `home`: absolute paths without links. `offered`: the names of the tools."""
        self._grant, self._rules = grant, rules
        self._granted = {tool: _granted_paths(grant, tool, root, home) for tool in (*READING, *WRITING)}
        # A rule of one tool that reads holds for all of them: what Read must not show, Grep must not either.
        self._unreadable, self._asked_to_read = (tuple(rules.paths(kind, READING)) for kind in (DENY, ASK))
        self._unwritable, self._asked_to_write = (tuple(rules.paths(kind, WRITING)) for kind in (DENY, ASK))
        self._denied_commands, self._asked_commands = rules.commands(DENY), rules.commands(ASK)
        has_limits = bool(self._unreadable or self._asked_to_read or rules.asks_for(READ))
        may_read = READ in offered and grant.grants_all(READ) and not has_limits
        self._commands = CommandGrant(grant, may_read, self._write_denial)
        self._offered = offered

    def denial(self, tool: str, arguments: Mapping[str, Any], cwd: str) -> str:
        """Returns what the model is told about a call that may not run; "" for one that may.

        `tool`: an offered one. `cwd`: an absolute path.
        """
        if tool == BASH:
            return self._command_denial(str(arguments.get("command", "")), cwd)
        return self._path_denial(tool, path_of(arguments, cwd))

    def refusal(self, tool: str, arguments: Mapping[str, Any], cwd: str) -> str:
        """Returns what the model is told about a tool that its file names and the run does not grant."""
        if tool == BASH:
            return self._commands.refusal(str(arguments.get("command", "")), cwd)
        return _ungranted(tool, path_of(arguments, cwd))

    def denies_read(self, path: str) -> bool:
        """Whether a file or folder must not be read. `path`: absolute, without links."""
        if _is_too_long(path) or _matches((*self._unreadable, *self._asked_to_read), path):
            return True
        return not self._reaches((*READING, *WRITING), path)

    def denies_write(self, path: str) -> bool:
        """Whether a file must not be written. `path`: absolute, without links."""
        if _is_too_long(path) or _matches((*self._unwritable, *self._asked_to_write), path):
            return True
        return not self._reaches(WRITING, path)

    def allows_sensitive(self, path: str) -> bool:
        """Whether the grant has a rule for the file that names the hidden parts of its path: `.git`."""
        return any(
            pattern.matches(path) and _hidden_parts(path[len(pattern.base) :]) <= set(pattern.literals)
            for tool in WRITING
            for pattern in self._granted[tool]
        )

    def _reaches(self, tools: Iterable[str], path: str) -> bool:
        """Whether one of the tools is granted for a path, or for all in it."""
        return any(
            self._grant.grants_all(tool)
            or any(one.matches(path) or one.holds_all_in(path) for one in self._granted[tool])
            for tool in tools
        )

    def _path_denial(self, tool: str, path: str) -> str:
        denied = self._unwritable if tool in WRITING else self._unreadable
        if tool == EDIT:
            # Its answer tells whether a text is in the file.
            denied = (*denied, *self._unreadable)
        if _is_too_long(path) or _matches(denied, path):
            return _DENIED_PATH
        asked = self._asked_to_write if tool in WRITING else self._asked_to_read
        if self._rules.asks_for(tool) or _matches(asked, path):
            return _ungranted(tool, path)
        if self._grant.grants_all(tool):
            return ""
        for pattern in self._granted[tool]:
            if pattern.matches(path) or (tool not in (READ, *WRITING) and pattern.holds_all_in(path)):
                return ""
        return _ungranted(tool, path)

    def _write_denial(self, path: str) -> str:
        """Decides about a file that a command would write, as if Write did."""
        return self._path_denial(WRITE, path) if WRITE in self._offered else _ungranted(WRITE, path)

    def _command_denial(self, command: str, cwd: str) -> str:
        denial = _refusal(command, self._denied_commands, "has been denied")
        if not denial:
            asked = "needs approval, which nobody can give in this run"
            denial = _refusal(command, self._asked_commands, asked)
        if denial:
            return denial
        if self._rules.asks_for(BASH):
            return _ungranted_use(BASH)
        return self._commands.denial(command, cwd)


def path_of(arguments: Mapping[str, Any], cwd: str) -> str:
    """Returns the normal absolute path that a call names; the working folder where it names none."""
    path = arguments.get("file_path", arguments.get("path"))
    return os.path.normpath(os.path.join(cwd, path if isinstance(path, str) else ""))


def _granted_paths(grant: Grant, tool: str, root: str, home: str) -> Tuple[PathPattern, ...]:
    found: List[PathPattern] = []
    for rule in grant.rules:
        if rule.tool in ALSO_OF.get(tool, (tool,)):
            matcher = compile_matcher(rule, root, home, strict=True)
            if isinstance(matcher, PathPattern):
                found.append(matcher)
    return tuple(found)


def _hidden_parts(path: str) -> Set[str]:
    return {name for name in path.split("/") if name.startswith(".")}


def _matches(patterns: Iterable[PathPattern], path: str) -> bool:
    return any(one.matches(path) for one in patterns)


def _is_too_long(path: str) -> bool:
    return len(path) > _LONGEST_PATH or path.count("/") > _DEEPEST_PATH


def _refusal(command: str, patterns: List[CommandPattern], why: str) -> str:
    """Returns the text for a command that a pattern takes away, or that can't be checked; else ""."""
    if not patterns:
        return ""
    try:
        if not find_denied(command, patterns):
            return ""
    except ShellSyntaxError as error:
        return (
            f"This command can't be checked against the rules of the settings before it runs: {error}. "
            "Write it more simply, one command at a time."
        )
    shown = command if len(command) <= _MOST_SHOWN else f"{command[:_MOST_SHOWN]}..."
    return f"Permission to use Bash with command {shown} {why}."


def _ungranted(tool: str, path: str) -> str:
    if tool in READING or tool in WRITING:
        doing = "write to" if tool in WRITING else "read from"
        shown = path if len(path) <= _MOST_SHOWN else f"{path[:_MOST_SHOWN]}..."
        return f"Claude requested permissions to {doing} {shown}, but you haven't granted it yet."
    return _ungranted_use(tool)


def _ungranted_use(tool: str) -> str:
    return f"Claude requested permissions to use {tool}, but you haven't granted it yet."
