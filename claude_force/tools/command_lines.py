"""What the text of a command tells before and after it is run. Pure.

Of a command that can't be parsed nothing is known: it is run as it is, and its exit code is what it says.
"""

from __future__ import annotations

from typing import FrozenSet, Sequence

from .shell_commands import ShellSyntaxError, SimpleCommand, split_commands

# Their exit code 1 is an answer: nothing found, files differ, the condition is false. As in Claude Code.
_ANSWER_WITH_ONE: FrozenSet[str] = frozenset({"[", "diff", "find", "grep", "rg", "test"})


def is_answer(command: str, exit_code: int) -> bool:
    """Whether an exit code other than 0 is an answer, and no error, of the command that ends the line.

    >>> is_answer("cat a.txt | grep word", 1)
    True
    """
    if exit_code != 1:
        return False
    outer = [one for one in _split(command) if not one.is_nested and one.words]
    return bool(outer) and not outer[-1].is_negated and outer[-1].words[0].value in _ANSWER_WITH_ONE


def runs_in_background(command: str) -> bool:
    """Whether the line leaves a command in the background: by `&` outside of parentheses, with no `wait`."""
    commands = _split(command)
    waits = commands and [word.value for word in commands[-1].words] == ["wait"]
    return not waits and any(one.is_background for one in commands)


def _split(command: str) -> Sequence[SimpleCommand]:
    try:
        return split_commands(command)
    except ShellSyntaxError:
        return ()
