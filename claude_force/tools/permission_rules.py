"""The deny and ask rules that hold for a project, compiled. Pure."""

from __future__ import annotations

from typing import Collection, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from .command_rules import CommandPattern
from .matchers import Matcher, compile_matcher
from .path_patterns import PathPattern
from .rules import Rule, parse_rule

DENY, ASK = "deny", "ask"


class SourcedRule(NamedTuple):
    """A rule of a settings file.

    Attributes:
        source: the file, as messages name it.
        matcher: what its specifier matches; None for a whole tool.
    """

    rule: Rule
    source: str
    matcher: Optional[Matcher] = None


class PermissionRules(NamedTuple):
    """What settings files take away. Nothing in them grants anything."""

    deny: Tuple[SourcedRule, ...] = ()
    ask: Tuple[SourcedRule, ...] = ()

    def denied_tool(self, tool: str) -> Optional[SourcedRule]:
        """Returns the rule that takes the whole tool away."""
        return next((one for one in self.deny if one.rule.covers_tool(tool)), None)

    def asks_for(self, tool: str) -> bool:
        """Whether every call of the tool is to be asked for."""
        return any(one.rule.covers_tool(tool) for one in self.ask)

    def paths(self, kind: str, tools: Collection[str]) -> Iterator[PathPattern]:
        """Yields the patterns of paths that rules of any of these tools deny (DENY) or ask for (ASK)."""
        for one in self.deny if kind == DENY else self.ask:
            if one.rule.tool in tools and isinstance(one.matcher, PathPattern):
                yield one.matcher

    def commands(self, kind: str) -> List[CommandPattern]:
        """Returns the patterns of commands that are denied, or asked for."""
        rules = self.deny if kind == DENY else self.ask
        return [one.matcher for one in rules if isinstance(one.matcher, CommandPattern)]


NO_RULES = PermissionRules()


def compile_rules(
    texts: Iterable[str], source: str, root: str, home: str, base: str
) -> Tuple[SourcedRule, ...]:
    """Compiles the rules of one settings file, whose folder is `base`. Raises RuleError."""
    rules = [parse_rule(text) for text in texts]
    return tuple(SourcedRule(rule, source, compile_matcher(rule, root, home, base)) for rule in rules)
