"""Parses rules of permissions as Claude Code has them: `Read`, `Read(docs/**)`, `Bash(git diff:*)`. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from ..lazy_pattern import pattern
from .tool_names import covers, current_name, is_mcp

MOST_CHARACTERS = 2_000
_RULE = pattern(r"([A-Za-z*][\w*.-]*)(?:\((.*)\))?", re.ASCII | re.DOTALL)


class RuleError(ValueError):
    """A rule can't be understood. The text says why; it follows the rule in a sentence."""


class Rule(NamedTuple):
    """One rule: a tool, or those of its calls that the specifier describes.

    >>> parse_rule("Bash(git diff:*)")
    Rule(tool='Bash', specifier='git diff:*')

    Attributes:
        tool: its name today; `mcp__server`, `mcp__server__*` and `*` mean several.
        specifier: what is in the parentheses; None for the whole tool.
    """

    tool: str
    specifier: Optional[str] = None

    def __str__(self) -> str:
        return self.tool if self.specifier is None else f"{self.tool}({self.specifier})"

    def names(self, tool: str) -> bool:
        """Whether it is about this tool, or about some of its calls."""
        return covers(self.tool, tool)

    def covers_tool(self, tool: str) -> bool:
        """Whether it is about all calls of this tool."""
        return self.specifier is None and self.names(tool)


def parse_rule(text: str) -> Rule:
    """Raises RuleError."""
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        raise RuleError(f"is longer than {MOST_CHARACTERS:,} characters")
    match = _RULE.fullmatch(text)
    if match is None:
        raise RuleError("is not a rule; write a tool, or a tool and what it may do, such as Bash(git diff:*)")
    name, specifier = match.group(1), match.group(2)
    if "*" in name and name != "*" and not (is_mcp(name) and name.endswith("__*") and name.count("*") == 1):
        raise RuleError("has a * in the name of the tool; only mcp__SERVER__* and * alone are understood")
    if specifier is not None:
        specifier = specifier.strip()
        if specifier in ("", "*", ":*"):
            specifier = None
    return Rule(current_name(name), specifier)
