"""Decides which command lines rules such as `Bash(git diff:*)` allow or deny. Pure.

A rule is a filter for what is run by mistake; the boundary is the sandbox. `git diff` alone can write files
and start programs.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..lazy_pattern import pattern
from .rules import RuleError
from .shell_commands import ShellSyntaxError, SimpleCommand, Word, split_commands

_BLANKS = pattern(r"\s+")
# Wrappers that change nothing but time, priority, signals and buffers, and how many operands each has before
# the command that it runs.
_PLAIN_WRAPPERS = {"timeout": 1, "nice": 0, "nohup": 0, "stdbuf": 0}
_VALUE_OPTIONS = {"timeout": ("-k", "-s"), "nice": ("-n",), "nohup": (), "stdbuf": ("-i", "-o", "-e")}
# Commands that run others, somewhere in their arguments.
_RUNNERS = frozenset(
    (
        *("builtin", "chronic", "chroot", "command", "doas", "entr", "env", "exec", "fakeroot", "find"),
        *("flock", "ionice", "nice", "nohup", "npx", "parallel", "runuser", "script", "setarch", "setsid"),
        *("stdbuf", "strace", "sudo", "taskset", "time", "timeout", "unbuffer", "unshare", "watch", "xargs"),
    )
)
_SHELLS = frozenset(("ash", "bash", "dash", "ksh", "sh", "zsh"))
# Variables that no program takes as an order.
_SAFE_VARIABLES = pattern(
    r"(?:LANG|LANGUAGE|LC_[A-Z]+|TZ|TERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|CI|DEBIAN_FRONTEND|NODE_ENV"
    r"|RAILS_ENV|PYTHONUNBUFFERED|PYTHONDONTWRITEBYTECODE|RUST_BACKTRACE|RUST_LOG|GOOS|GOARCH)="
)
_DEEPEST_SHELL = 5
# What more takes too long to check.
_MOST_COMMANDS, _MOST_ARGUMENTS = 200, 100
# Of texts with patterns, in one line; they take about 20 ms.
_MOST_COMPARISONS = 50_000


class CommandPattern(NamedTuple):
    """The specifier of a rule for Bash.

    `git diff:*` and `git diff *` match the command with any arguments or none; `*` elsewhere matches any
    text; without a `*` only the same text matches.

    Attributes:
        pieces: the texts between wildcards.
        takes_none: also matches the first piece alone, without arguments.
    """

    pieces: Tuple[str, ...]
    takes_none: bool = False

    def matches(self, text: str) -> bool:
        first, *others = self.pieces
        if not others:
            return text == first
        if self.takes_none and len(others) == 1 and text == first.rstrip(" "):
            return True
        if not text.startswith(first):
            return False
        place = len(first)
        for piece in others[:-1]:
            found = text.find(piece, place)
            if found < 0:
                return self._matches_none(text)
            place = found + len(piece)
        if text.endswith(others[-1]) and len(text) - len(others[-1]) >= place:
            return True
        return self._matches_none(text)

    def _matches_none(self, text: str) -> bool:
        """Whether the pattern without its last wildcard matches."""
        if not self.takes_none or len(self.pieces) < 3:
            return False
        return CommandPattern((*self.pieces[:-2], self.pieces[-2].rstrip(" "))).matches(text)


def compile_command(specifier: str) -> CommandPattern:
    """Raises RuleError."""
    text = _BLANKS.sub(" ", specifier).strip()
    if text.endswith(":*"):
        text = f"{text[:-2].rstrip()} *"
    pieces, piece, place = [], "", 0
    while place < len(text):
        letter = text[place]
        if letter == "\\" and text[place + 1 : place + 2] in ("*", "\\"):
            piece += text[place + 1]
            place += 1
        elif letter == "*":
            pieces.append(piece)
            piece = ""
        else:
            piece += letter
        place += 1
    if not text or text == "*":
        raise RuleError("has an empty command; write the tool alone")
    pieces.append(piece)
    takes_none = len(pieces) > 1 and not piece and pieces[-2].endswith(" ")
    return CommandPattern(tuple(pieces), takes_none)


def is_allowed(command: SimpleCommand, patterns: Sequence[CommandPattern]) -> bool:
    """Whether a pattern allows a command, with what it says about variables, but not its redirections."""
    if not command.words:
        return not command.assignments
    words: Optional[Sequence[Word]] = [*_unsafe_variables(command), *command.words]
    while words:
        text = _joined(words)
        if any(one.matches(text) for one in patterns):
            return True
        words = _unwrapped(words)
    return False


def has_unsafe_variables(command: SimpleCommand) -> bool:
    """Whether it sets variables that could change what a command does."""
    return bool(_unsafe_variables(command))


def _unsafe_variables(command: SimpleCommand) -> List[Word]:
    return [one for one in command.assignments if not _SAFE_VARIABLES.match(one.raw)]


def _unwrapped(words: Sequence[Word]) -> Optional[Sequence[Word]]:
    """Returns the command that a wrapper runs; None for any other command."""
    name = words[0].raw
    if name not in _PLAIN_WRAPPERS:
        return None
    place = 1
    while place < len(words) and words[place].raw.startswith("-"):
        place += 2 if words[place].raw in _VALUE_OPTIONS[name] else 1
    place += _PLAIN_WRAPPERS[name]
    # An operand that is only known when it runs may be several words.
    if not all(word.is_literal for word in words[:place]):
        return None
    return words[place:]


def find_denied(line: str, patterns: Sequence[CommandPattern]) -> bool:
    """Whether one of a line's commands matches a pattern, also through wrappers, quotes and shells.

    Raises ShellSyntaxError where that can't be known.
    """
    if not patterns:
        return False
    left = [_MOST_COMPARISONS // len(patterns)]
    return any(_is_denied(command, patterns, 0, left) for command in split_few(line))


def split_few(line: str) -> List[SimpleCommand]:
    """As `split_commands`, for a line whose commands can all be checked. Raises ShellSyntaxError."""
    commands = split_commands(line)
    if len(commands) > _MOST_COMMANDS:
        raise ShellSyntaxError(f"it has more than {_MOST_COMMANDS} commands")
    return commands


def _is_denied(
    command: SimpleCommand, patterns: Sequence[CommandPattern], depth: int, left: List[int]
) -> bool:
    """`left`: how many texts may still be compared with the patterns."""
    words = command.words
    if not words:
        return False
    if len(words) > _MOST_ARGUMENTS and _program(words[0].value) in _RUNNERS:
        raise ShellSyntaxError(f"{words[0].value} has more than {_MOST_ARGUMENTS} arguments")
    if not words[0].is_literal:
        raise ShellSyntaxError("the name of a command is only known when it runs")
    texts = {_joined([*command.assignments, *words]), *_spellings(words)}
    left[0] -= len(texts)
    if left[0] < 0:
        raise ShellSyntaxError("it has too many commands to compare with the rules")
    if any(one.matches(text) for one in patterns for text in texts):
        return True
    return any(_is_denied(one, patterns, depth + 1, left) for one in _started(words, depth))


def _spellings(words: Sequence[Word]) -> Iterator[str]:
    """Yields a command as it is written, without quotes, and without the folder of its program.

    For a command that runs another, also each end of it that could be that one.
    """
    yield _joined(words)
    values = [word.value for word in words]
    begins = range(len(values)) if _program(values[0]) in _RUNNERS else (0,)
    for begin in begins:
        yield " ".join(values[begin:])
        yield " ".join([_program(values[begin]), *values[begin + 1 :]])


def _started(words: Sequence[Word], depth: int) -> Iterator[SimpleCommand]:
    """Yields the commands of a text that a shell, or `eval`, is told to run. Raises ShellSyntaxError."""
    for text in _scripts(words):
        if depth >= _DEEPEST_SHELL:
            raise ShellSyntaxError("its shells are nested too deeply")
        yield from split_few(text)


def _scripts(words: Sequence[Word]) -> Iterator[str]:
    for place, word in enumerate(words):
        name = _program(word.value)
        if place and _program(words[0].value) not in _RUNNERS:
            return
        rest = words[place + 1 :]
        if name == "eval":
            yield _script(rest)
        elif name in _SHELLS:
            for number, option in enumerate(rest):
                if option.value.startswith("-") and not option.value.startswith("--") and "c" in option.value:
                    yield _script(rest[number + 1 : number + 2])


def _script(words: Sequence[Word]) -> str:
    if not all(word.is_literal for word in words):
        raise ShellSyntaxError("a script is only known when it runs")
    return " ".join(word.value for word in words)


def _program(path: str) -> str:
    return path.rpartition("/")[2]


def _joined(words: Sequence[Word]) -> str:
    return " ".join(word.raw for word in words)
