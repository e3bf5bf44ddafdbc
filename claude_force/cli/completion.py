"""Shell completion: the scripts of `completion`, and the answers of `__complete` that they ask for.

A script runs `claude-force __complete WORDS`; the last word is the one under the cursor. Each line of the
answer is a word, a tab and its description, or `:files` or `:folders`, which the shell completes itself.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

from .. import settings
from ..errors import InputError
from . import streams
from .arguments import Option
from .verbs import ROOT

# A word and its description.
Offer = Tuple[str, str]

_SHELLS = Path(__file__).parent / "shells"
_MAX_DESCRIPTION = 70
_PLAIN = re.compile(r"[\w.@%+:,/][\w.@%+:,/-]*")


def show_script(args: argparse.Namespace) -> int:
    """Prints the completion script of a shell. Returns 0."""
    script = (_SHELLS / args.shell).read_text(encoding="utf-8")
    if args.json:
        streams.write_json({"success": True, "shell": args.shell, "script": script})
    else:
        streams.write_line(script)
    return 0


def complete(words: Sequence[str]) -> int:
    """Prints the completions of the last word. Returns 0, or 1 if the project can't be read."""
    try:
        for word, description in offers(words):
            short = " ".join(description.split())[:_MAX_DESCRIPTION]
            streams.write_line(f"{word}\t{short}" if short else word)
    except InputError:
        # An error message would break the line that is typed.
        return 1
    return 0


def offers(words: Sequence[str]) -> Iterator[Offer]:
    """Yields the completions of the last word. Raises InputError for a project that can't be read."""
    *before, typed = words or ("",)
    position, stem = _Position(), ""
    for word in before:
        position.advance(word)
    if position.option is not None:
        typed = "" if typed == "=" else typed
    elif typed.startswith("--") and "=" in typed:
        name, _, typed = typed.partition("=")
        position.advance(name)
        stem = f"{name}="
    for word, description in position.offers(typed):
        if word.startswith(":"):
            yield word, description
        elif word.startswith(typed):
            yield stem + word, description


class _Position:
    """How far the words of a command line have led."""

    def __init__(self) -> None:
        self._verb = ROOT
        self._config: Optional[str] = None
        self._passed = 0
        # The option whose value comes next.
        self.option: Optional[Option] = None

    def advance(self, word: str) -> None:
        """Advances by one word. For bash, `--option=value` is three words."""
        if self.option is not None:
            if word == "=":
                return
            if not word.startswith("-"):
                self._take(word)
                return
        if word.startswith("-") and word != "-":
            name, equals, value = word.partition("=")
            self.option = next((one for one in self._verb.options if name in one.flags and one.metavar), None)
            if equals:
                self._take(value)
        elif word in self._verb.kinds:
            self._verb, self._passed = self._verb.kinds[word], 0
        else:
            self._passed += 1

    def _take(self, value: str) -> None:
        if self.option is not None and "--config" in self.option.flags:
            self._config = value
        if self.option is not None and self.option.argparse_arguments.get("nargs") != "+":
            self.option = None

    def offers(self, typed: str) -> Iterable[Offer]:
        if self.option is not None:
            return self._values(self.option)
        if typed.startswith("-"):
            return self._options()
        if self._verb.kinds:
            return [(name, kind.summary) for name, kind in self._verb.kinds.items()]
        positional = [one for one in self._verb.options if not one.flags]
        return self._values(positional[self._passed]) if self._passed < len(positional) else self._options()

    def _options(self) -> List[Offer]:
        offers = [(max(one.flags, key=len), one.help) for one in self._verb.options if one.flags]
        version = [("--version", "show program's version number and exit")] if self._verb is ROOT else []
        return [("--help", "show this help message and exit"), *version, *offers]

    def _values(self, option: Option) -> Iterable[Offer]:
        if option.choices:
            return [(choice, "") for choice in option.choices]
        if option.completes in ("files", "folders"):
            return [(f":{option.completes}", "")]
        if option.completes == "models":
            return [(alias, model) for alias, model in settings.NEWEST_MODELS.items()]
        return self._names(option.completes) if option.completes else []

    def _names(self, kind: str) -> Iterator[Offer]:
        from ..agents import Registry

        registry = Registry(self._config)
        if kind in ("agents", "names"):
            for agent in registry.list_agents():
                yield agent["name"], registry.get_agent_info(agent["name"])["description"]
        if kind in ("workflows", "names"):
            for name in registry.list_workflows():
                # A shell puts it on its command line unquoted, and would obey special characters.
                if _PLAIN.fullmatch(name):
                    yield name, "a workflow"
