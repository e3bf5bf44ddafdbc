"""Compiles the specifiers of rules: patterns of paths and of commands. Pure."""

from __future__ import annotations

from typing import Optional, Union

from .command_rules import CommandPattern, compile_command
from .path_patterns import PathPattern, compile_pattern
from .rules import Rule
from .tool_names import BASH, READING, WRITING

Matcher = Union[CommandPattern, PathPattern]


def compile_matcher(
    rule: Rule, root: str, home: str, base: Optional[str] = None, strict: bool = False
) -> Optional[Matcher]:
    """Returns what the specifier of a rule matches; None for a rule without one, or for other tools.

    The arguments are those of `compile_pattern`. Raises RuleError.
    """
    if rule.specifier is None:
        return None
    if rule.tool == BASH:
        return compile_command(rule.specifier)
    if rule.tool in READING or rule.tool in WRITING:
        return compile_pattern(rule.specifier, root, home, base, strict)
    return None
