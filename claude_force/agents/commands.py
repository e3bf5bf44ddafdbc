"""Renders Claude Code slash commands: a message with placeholders for arguments. Pure.

Nothing in a command's text is executed and no file is read: !`command` and `@path` are sent as written.
"""

from __future__ import annotations

import re
from typing import List, Match

from ..lazy_pattern import pattern

_PLACE = pattern(r"\$ARGUMENTS\[(\d{1,3})\]|\$(ARGUMENTS)\b|\$(\d{1,3})(?![\d.,]\d)\b")
# Claude Code now counts from $0; a text without $0 counts from $1, as older ones do.
_FROM_ZERO = pattern(r"\$0\b")
_COMMAND_LINE = pattern(r"(?:^|(?<=[\s(]))!`[^`\n]+`|^```!", re.M)
_FILE = pattern(r"(?:^|(?<=\s))@(?:[\w.~-]+/)*[\w~-]*[./][\w./~-]+", re.M)


def render(text: str, arguments: str) -> str:
    """Returns `text` with its placeholders filled; without placeholders, the arguments are appended.

    `$ARGUMENTS` is the whole text of the arguments, `$1` the first word as a shell splits it. A placeholder
    without an argument stays as written.
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
        # An unclosed quote, as in "don't".
        return arguments.split()


def find_injections(text: str) -> List[str]:
    """Returns what Claude Code would execute or replace by a file's text."""
    found = [match.group() for match in _COMMAND_LINE.finditer(text)]
    if "@" in text:
        found += [match.group() for match in _FILE.finditer(text)]
    return found
