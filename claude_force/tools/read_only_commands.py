"""Tells which command lines change nothing: those run at the same time, with the project read-only. Pure.

A command is only found here if all programs of its line are known, with the options that make some of them
write. A line that is wrongly found can still change nothing, because it runs with everything read-only; it
would fail.
"""

from __future__ import annotations

from typing import Callable, Dict, FrozenSet, Sequence

from ..lazy_pattern import pattern
from .command_rules import has_unsafe_variables
from .shell_commands import ShellSyntaxError, SimpleCommand, split_commands

# Whatever their arguments are.
_READERS: FrozenSet[str] = frozenset(
    (
        *(
            ":",
            "[",
            "basename",
            "cat",
            "cksum",
            "cmp",
            "column",
            "comm",
            "cut",
            "date",
            "df",
            "diff",
            "dirname",
        ),
        *("du", "echo", "egrep", "expr", "false", "fgrep", "file", "fold", "grep", "head", "hexdump", "id"),
        *(
            "join",
            "jq",
            "ls",
            "md5sum",
            "nl",
            "nproc",
            "od",
            "paste",
            "printenv",
            "pwd",
            "readlink",
            "realpath",
        ),
        *(
            "rev",
            "rg",
            "seq",
            "sha1sum",
            "sha256sum",
            "sleep",
            "stat",
            "strings",
            "tac",
            "tail",
            "test",
            "tr",
        ),
        *("true", "type", "uname", "wc", "which", "whoami"),
    )
)
_GIT_READERS = frozenset(
    (
        *("blame", "cat-file", "describe", "diff", "diff-tree", "grep", "log", "ls-files", "ls-tree"),
        *("merge-base", "name-rev", "rev-list", "rev-parse", "shortlog", "show", "status", "version"),
    )
)
_GIT_BRANCH = frozenset(("-a", "-r", "-v", "-vv", "--all", "--list", "--show-current"))
_FIND_ACTIONS = ("-delete", "-exec", "-execdir", "-fls", "-fprint", "-fprint0", "-fprintf", "-ok", "-okdir")
_SED_PRINTS = pattern(r"(?:\$|[0-9]+)(?:,(?:\$|\+?[0-9]+))?p(?:;(?:\$|[0-9]+)(?:,(?:\$|\+?[0-9]+))?p)*$")
_NOWHERE = frozenset(("/dev/null", "/dev/stdout", "/dev/stderr"))


def changes_nothing(line: str) -> bool:
    """Whether a command line surely changes no file, and nothing that a later command meets.

    >>> changes_nothing("git diff | grep -c TODO"), changes_nothing("git diff --output=x")
    (True, False)
    """
    try:
        commands = split_commands(line)
    except ShellSyntaxError:
        return False
    return bool(commands) and all(map(_reads, commands))


def _reads(command: SimpleCommand) -> bool:
    if not command.words or command.is_background or has_unsafe_variables(command):
        return False
    if not all(word.is_literal and word.value in _NOWHERE for word in command.outputs):
        return False
    name, *arguments = command.words
    if not name.is_literal:
        return False
    values = [word.value for word in arguments]
    return name.value in _READERS or (name.value in _SOME and _SOME[name.value](values))


def _find(values: Sequence[str]) -> bool:
    return not any(value in _FIND_ACTIONS for value in values)


def _git(values: Sequence[str]) -> bool:
    rest = list(values)
    while rest and rest[0] in ("--no-pager", "-P", "--no-optional-locks"):
        del rest[0]
    if not rest:
        return False
    if any(one.startswith(("--output", "--ext-diff", "--open-files-in-pager", "-O")) for one in rest):
        return False
    if rest[0] == "branch":
        return _GIT_BRANCH.issuperset(rest[1:])
    return rest[0] in _GIT_READERS or rest == ["remote", "-v"]


def _printf(values: Sequence[str]) -> bool:
    # `-v` sets a variable.
    return bool(values) and not values[0].startswith("-")


def _sed(values: Sequence[str]) -> bool:
    return len(values) > 1 and values[0] == "-n" and bool(_SED_PRINTS.match(values[1]))


def _sort(values: Sequence[str]) -> bool:
    # Of short options in one word, `-o` may be any.
    return not any(
        value.startswith("--o") or (value[:1] == "-" and value[:2] != "--" and "o" in value)
        for value in values
    )


def _tree(values: Sequence[str]) -> bool:
    return not any(value.startswith(("-o", "--output")) for value in values)


def _uniq(values: Sequence[str]) -> bool:
    # Its second operand is written.
    return sum(not value.startswith("-") for value in values) < 2


_SOME: Dict[str, Callable[[Sequence[str]], bool]] = {
    "find": _find,
    "git": _git,
    "printf": _printf,
    "sed": _sed,
    "sort": _sort,
    "tree": _tree,
    "uniq": _uniq,
}
