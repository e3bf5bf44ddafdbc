"""Sentences for two kinds of users: who writes Python is told of arguments, who types commands of options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List, Optional, Tuple

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


_DISTRIBUTION = "claude-force"
_ROOT = Path(__file__).resolve().parent.parent


def install_command(extra: str) -> str:
    """A shell command after which this code finds the packages of `extra`, such as "durable".

    In a checkout it installs the checkout with the extra; elsewhere the packages themselves.
    """
    import shlex

    if (_ROOT / "pyproject.toml").is_file():
        return f"python -m pip install {shlex.quote(f'{_ROOT}[{extra}]')}"
    packages = _packages_of(extra)
    if not packages:
        return f"python -m pip install '.[{extra}]' in a checkout of this version"
    return f"python -m pip install {' '.join(map(shlex.quote, packages))}"


def _packages_of(extra: str) -> List[str]:
    """The requirements of the extra, with the markers that are not about it."""
    # Not above: it is the larger part of the start of `--help`.
    from importlib import metadata

    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    is_of_extra = re.compile(rf"""(?:\s+and\s+)?extra\s*==\s*["']{re.escape(extra)}["']""")
    return [is_of_extra.sub("", one).rstrip("; ") for one in requirements if is_of_extra.search(one)]
