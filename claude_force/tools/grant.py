"""What a run grants to the agents in it. Pure.

A grant is a level (`none`, `read`, `edit`, `bash`), or a list of levels, names of tools and rules:
`Read,Grep,Bash(git diff:*)`. `network` lets commands reach the network. Only the user grants: by an option,
an argument, or `tools` in `~/.claude/claude-force.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from ..agents.front_matter_keys import parse_names
from ..agents.names import suggest
from ..errors import InvalidOptionError
from ..formatting import Wording
from .rules import Rule, RuleError, parse_rule
from .tool_names import ALSO_OF, AVAILABLE, BASH, GONE, NOT_YET, is_mcp

_NONE, _NETWORK = "none", "network"
LEVELS: Mapping[str, Tuple[str, ...]] = {"read": AVAILABLE[:3], "edit": AVAILABLE[:5], "bash": AVAILABLE}
_WORDS = (_NONE, *LEVELS, _NETWORK)
_MOST_RULES = 200

GrantOption = Union[None, str, Sequence[str], "Grant"]


@dataclass(frozen=True)
class Grant:
    """What tools may do in a run. False where they may do nothing.

    >>> bool(parse_grant("none")), str(parse_grant("read")), parse_grant("bash,network").has_network
    (False, 'Read,Grep,Glob', True)

    Attributes:
        rules: each allows a tool, or some of its calls.
        has_network: whether commands may reach the network.
    """

    rules: Tuple[Rule, ...] = ()
    has_network: bool = False

    def __bool__(self) -> bool:
        return bool(self.rules)

    def __str__(self) -> str:
        words = [str(rule) for rule in self.rules]
        return ",".join([*words, _NETWORK] if self.has_network else words) or _NONE

    def grants(self, tool: str) -> bool:
        """Whether it allows some calls of the tool.

        As in Claude Code, a rule about paths of Read holds for Grep and Glob too, and one of Edit for Write.
        """
        return any(
            rule.names(tool) or (rule.specifier is not None and rule.tool in ALSO_OF.get(tool, ()))
            for rule in self.rules
        )

    def grants_all(self, tool: str) -> bool:
        """Whether it allows all calls of the tool."""
        return any(rule.covers_tool(tool) for rule in self.rules)

    def literals_in(self, tool: str) -> FrozenSet[str]:
        """The names, such as `.git`, that rules about the paths of a tool spell out."""
        specifiers = (rule.specifier or "" for rule in self.rules if rule.tool == tool)
        return frozenset(name for specifier in specifiers for name in specifier.split("/"))

    def narrowed(self, other: Grant) -> Grant:
        """Returns what both grant. Where both have rules for some calls of a tool, those that both have.

        >>> str(parse_grant("bash").narrowed(parse_grant("Read,Bash(git diff:*)")))
        'Read,Bash(git diff:*)'
        """
        rules: List[Rule] = []
        for tool in AVAILABLE:
            mine = [rule for rule in self.rules if rule.tool == tool]
            others = [rule for rule in other.rules if rule.tool == tool]
            if self.grants_all(tool):
                rules += others
            elif other.grants_all(tool):
                rules += mine
            else:
                rules += [rule for rule in mine if rule in others]
        return Grant(tuple(dict.fromkeys(rules)), self.has_network and other.has_network)


NO_GRANT = Grant()


def parse_grant(value: GrantOption) -> Grant:
    """Returns the grant that an option means. Raises InvalidOptionError.

    >>> parse_grant(["Read", "Bash(git diff:*)"]).rules
    (Rule(tool='Read', specifier=None), Rule(tool='Bash', specifier='git diff:*'))
    """
    if value is None:
        return NO_GRANT
    if isinstance(value, Grant):
        return value
    words = _words(value)
    if _NONE in words and len(words) > 1:
        raise _invalid(_NONE, "can't be combined with others", "Leave it out, or write it alone.")
    rules: List[Rule] = []
    for word in words:
        if word not in (_NONE, _NETWORK):
            rules += _rules_of(word)
    has_network = _NETWORK in words
    if has_network and not any(rule.tool == BASH for rule in rules):
        raise _invalid(_NETWORK, "is for commands", 'Write "bash,network".')
    return Grant(tuple(dict.fromkeys(rules)), has_network)


def _words(value: Union[str, Sequence[str]]) -> Tuple[str, ...]:
    words = parse_names(value)
    if words is None:
        raise _invalid(repr(value)[:60], "is not a grant", "Write text, or a list of names and rules.")
    if not words:
        raise _invalid(repr(value)[:60], "names nothing", f'Write "{_NONE}" to grant nothing.')
    if len(words) > _MOST_RULES:
        raise _invalid(f"{len(words):,} rules", "are too many", f"Write at most {_MOST_RULES}.")
    return words


def _rules_of(word: str) -> Iterable[Rule]:
    if word in LEVELS:
        return (Rule(tool) for tool in LEVELS[word])
    try:
        rule = parse_rule(word)
    except RuleError as error:
        raise _invalid(_shown(word), str(error), _hint(word)) from error
    if rule.tool in AVAILABLE:
        _check_specifier(word, rule)
        return (rule,)
    raise _unknown(word, rule.tool)


def _check_specifier(word: str, rule: Rule) -> None:
    # Imported here, as most grants have no specifier.
    from .matchers import compile_matcher

    try:
        compile_matcher(rule, "/", "/")
    except RuleError as error:
        raise _invalid(_shown(word), str(error), "Correct the rule.") from error


def _unknown(word: str, tool: str) -> InvalidOptionError:
    if tool in NOT_YET or is_mcp(tool):
        known = ", ".join(AVAILABLE)
        return _invalid(_shown(word), "is not available yet", f"Agents here can have {known}.")
    if tool in GONE:
        instead = f" Grant {GONE[tool]}." if GONE[tool] in AVAILABLE else ""
        return _invalid(_shown(word), "is not a tool any more", f"Leave it out.{instead}")
    return _invalid(_shown(word), "is not a tool", _hint(word))


def _hint(word: str) -> str:
    known = (*_WORDS, *AVAILABLE)
    name = word.partition("(")[0].strip()
    same = [one for one in known if one.lower() == name.lower()]
    # Words of a level are in small letters, and a suggestion ignores their case.
    close = same or suggest(name, _WORDS if name.islower() else AVAILABLE) or suggest(name, known)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Levels are {', '.join(_WORDS[:-1])}; tools are {', '.join(AVAILABLE)}."


def _shown(word: str) -> str:
    return repr(word if len(word) <= 60 else f"{word[:57]}...")


def _invalid(what: str, reason: str, advice: str) -> InvalidOptionError:
    text = f"{what} {reason}. {advice}"
    return InvalidOptionError(Wording(f"tools: {text}", f"--tools: {text}"))


def ungranted_notice(agent_name: str, tools: Optional[Sequence[str]]) -> str:
    """Returns the line for an agent that declares tools and runs without them.

    `tools`: those that its file names.
    """
    named = ", ".join((tools or ())[:6]) + (", ..." if len(tools or ()) > 6 else "")
    level = level_of(tools or ())
    text = f"{agent_name} declares tools ({named}) and runs without them; to grant them, "
    return Wording(f'{text}pass tools="{level}"', f"{text}add --tools {level}")


def level_of(tools: Iterable[str]) -> str:
    """Returns the lowest level that has all of these tools, as far as they are available."""
    names = {tool.partition("(")[0] for tool in tools} & set(AVAILABLE)
    return next(level for level, has in LEVELS.items() if names <= set(has))
