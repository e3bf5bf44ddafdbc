"""Sentences for two kinds of users: who writes Python is told of arguments, who types commands of options."""

from __future__ import annotations

from typing import Any, Optional, Tuple

# Arguments whose option has another name than theirs.
_OPTIONS = {"timeout_seconds": "--timeout", "deadline_seconds": "--deadline", "budget_usd": "--budget"}


class Wording(str):
    """A text that names Python's arguments; `shell` says the same with the options of the command."""

    shell: str

    def __new__(cls, python: str, shell: Optional[str] = None) -> Wording:
        made = super().__new__(cls, python)
        made.shell = python if shell is None else shell
        return made

    def __getnewargs__(self) -> Tuple[Any, ...]:
        return str(self), self.shell


def naming(text: str, *arguments: str) -> Wording:
    """`text` with each "{}" filled by the next of the arguments, or by its option."""
    return Wording(text.format(*arguments), text.format(*map(option, arguments)))


def option(argument: str) -> str:
    """The option of the command that sets an argument: "--max-retries" for "max_retries"."""
    return _OPTIONS.get(argument) or "--" + argument.replace("_", "-")


def for_shell(text: str) -> str:
    """`text` in the words of the command."""
    return getattr(text, "shell", text)
