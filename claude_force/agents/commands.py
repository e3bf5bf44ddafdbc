"""Slash commands of Claude Code: a message with places for arguments. Pure.

Nothing within a command's text is executed and no file is read for it: `!` with a command in backquotes and
`@path` are sent as they are written.
"""

from __future__ import annotations

import re
from typing import List, Match

from ..lazy_pattern import pattern

_PLACE = pattern(r"\$ARGUMENTS\[(\d{1,3})\]|\$(ARGUMENTS)\b|\$(\d{1,3})(?![\d.,]\d)\b")
# Since Claude Code counts from $0, a text that has it counts from there; all older ones begin with $1.
_FROM_ZERO = pattern(r"\$0\b")
_COMMAND_LINE = pattern(r"(?:^|(?<=[\s(]))!`[^`\n]+`|^```!", re.M)
_FILE = pattern(r"(?:^|(?<=\s))@(?:[\w.~-]+/)*[\w~-]*[./][\w./~-]+", re.M)


def render(text: str, arguments: str) -> str:
    """The message: `text` with the arguments in their places, or below it where it has no place for them.

    `$ARGUMENTS` is all of them as they were given, `$1` the first one, split as a shell splits words; a place
    for which there is no argument stays as it is written.
    """
    words = _words(arguments)
    first = 0 if _FROM_ZERO.search(text) else 1
    is_used = False

    def filled(place: Match[str]) -> str:
        nonlocal is_used
        index, everything, number = place.groups()
        at = int(index) if index else int(number or 0) - first
        if not everything and not 0 <= at < len(words):
            return place.group()
        is_used = True
        return arguments if everything else words[at]

    message = _PLACE.sub(filled, text)
    return message if is_used else f"{text.rstrip()}\n\nARGUMENTS: {arguments}"


def _words(arguments: str) -> List[str]:
    import shlex

    try:
        return shlex.split(arguments)
    except ValueError:
        # A quote without its end, as in "don't".
        return arguments.split()


def find_injections(text: str) -> List[str]:
    """What Claude Code would execute, or replace by a file's text, before it sends the command."""
    found = [match.group() for match in _COMMAND_LINE.finditer(text)]
    if "@" in text:
        found += [match.group() for match in _FILE.finditer(text)]
    return found
