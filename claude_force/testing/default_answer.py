"""The default answer: a short report on the request's text that is true of it. Pure."""

from __future__ import annotations

import re
from typing import Any, List, Mapping

from .tokens import texts

_FUNCTION = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)")
_LONGEST_NAME = 60


def describe(body: Mapping[str, Any]) -> str:
    """Returns a report with the agent's name from the system prompt and counts of the last user message."""
    text = "\n".join(texts(body["messages"][-1].get("content")))
    lines = text.splitlines() or [""]
    size = f"{_count(len(lines), 'line')}, {_count(len(text.split()), 'word')}"
    return (
        f"This is the report of {_name(body)} on the text that was handed in.\n\n"
        f"- Size: the text has {size} and {_count(len(text), 'character')}.\n"
        f"- Functions: {_functions(lines)}\n"
        f"- Longest line: {_longest(lines)}\n"
        f"- Blank lines: {_count(sum(not line.strip() for line in lines), 'line')} of {len(lines)}.\n\n"
        "These figures were counted by a stand-in on this machine; no model has read the text."
    )


def _name(body: Mapping[str, Any]) -> str:
    """The first heading of the system prompt, else its first line."""
    lines = [line.strip() for text in texts(body.get("system")) for line in text.splitlines() if line.strip()]
    headings = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    for name in headings + lines:
        if name:
            return f'"{name[:_LONGEST_NAME]}"'
    return "an agent without instructions"


def _functions(lines: List[str]) -> str:
    found = [(number, match[1]) for number, match in enumerate(map(_FUNCTION.match, lines), 1) if match]
    if not found:
        return "no line defines one with `def`."
    number, name = found[0]
    return f"{_count(len(found), 'line')} with `def`; the first is `{name[:_LONGEST_NAME]}` on line {number}."


def _longest(lines: List[str]) -> str:
    number, line = max(enumerate(lines, 1), key=lambda pair: len(pair[1]))
    return f"number {number}, with {_count(len(line), 'character')}."


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
