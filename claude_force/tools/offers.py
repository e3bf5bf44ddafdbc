"""Which tools an agent is offered in a run, and why the others are left out. Pure."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

from ..agent_types import AgentSettings
from ..agents.names import suggest
from ..formatting import Wording
from .grant import Grant, level_of
from .permission_rules import NO_RULES, PermissionRules
from .rules import RuleError, parse_rule
from .tool_names import AVAILABLE, GONE, NOT_YET, READING, covers, current_name, is_mcp

# Values of `ToolOffer.state`.
OFFERED = "offered"
NOT_GRANTED = "not granted"
DENIED = "denied"
DISALLOWED = "disallowed"
PLAN = "plan"
NOT_YET_AVAILABLE = "not yet"
UNKNOWN = "unknown"

_PLAN_MODE = "plan"


class ToolOffer(NamedTuple):
    """Whether an agent is offered a tool.

    Attributes:
        name: as Claude Code names it today; one that it does not know, as the agent's file has it.
        state: `OFFERED`, or why it is left out.
        reason: the same in words for users, with the argument or option that would change it; "" if offered.
    """

    name: str
    state: str
    reason: str = ""


def offer_tools(settings: AgentSettings, grant: Grant, rules: PermissionRules = NO_RULES) -> List[ToolOffer]:
    """Returns a `ToolOffer` for each tool that an agent's file names; for all of them if it names none.

    What may be used is what the file names, without `disallowedTools`, cut to the grant, without what deny
    rules take away. Available tools come first, in the order in which they are offered.
    """
    names = _declared(settings.tools)
    known = [name for name in AVAILABLE if name in names]
    others = [name for name in names if name not in AVAILABLE]
    return [*(_offer(name, settings, grant, rules) for name in known), *map(_unavailable, others)]


def offered_names(offers: Sequence[ToolOffer]) -> Tuple[str, ...]:
    """Returns the names of the tools that are offered."""
    return tuple(one.name for one in offers if one.state == OFFERED)


def _declared(tools: Optional[Sequence[str]]) -> List[str]:
    """Returns the names in `tools` of a file, each once. A rule such as `Bash(git:*)` names the tool."""
    if tools is None:
        return list(AVAILABLE)
    names = [_tool_of(text) for text in tools]
    return list(AVAILABLE) if "*" in names else list(dict.fromkeys(names))


def _tool_of(text: str) -> str:
    try:
        return parse_rule(text).tool
    except RuleError:
        return current_name(text.partition("(")[0].strip())


def _offer(name: str, settings: AgentSettings, grant: Grant, rules: PermissionRules) -> ToolOffer:
    disallowed = _disallowing(name, settings.disallowed_tools)
    if disallowed is not None:
        return ToolOffer(name, DISALLOWED, f"disallowedTools of its file has {disallowed}")
    denied = rules.denied_tool(name)
    if denied is not None:
        return ToolOffer(name, DENIED, f"{denied.source} denies {denied.rule}")
    if settings.permission_mode == _PLAN_MODE and name not in READING:
        return ToolOffer(name, PLAN, "permissionMode of its file is plan, in which an agent only reads")
    if not grant.grants(name):
        level = level_of([name])
        reason = Wording(
            f'the run does not grant it; tools="{level}" would',
            f"the run does not grant it; --tools {level} would",
        )
        return ToolOffer(name, NOT_GRANTED, reason)
    return ToolOffer(name, OFFERED)


def _disallowing(name: str, disallowed: Sequence[str]) -> Optional[str]:
    """Returns the entry of `disallowedTools` that takes a tool away; a rule about some calls does so too."""
    return next((text for text in disallowed if covers(_tool_of(text), name)), None)


def _unavailable(name: str) -> ToolOffer:
    if name in NOT_YET or is_mcp(name):
        return ToolOffer(name, NOT_YET_AVAILABLE, "not available yet")
    if name in GONE:
        instead = f"; {GONE[name]} does its work" if GONE[name] else ""
        return ToolOffer(name, UNKNOWN, f"Claude Code has no such tool any more{instead}")
    same = [one for one in AVAILABLE if one.lower() == name.lower()]
    if same:
        return ToolOffer(name, UNKNOWN, f"names are case-sensitive: write {same[0]}")
    close = suggest(name, (*AVAILABLE, *NOT_YET))
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return ToolOffer(name, UNKNOWN, f"no tool has this name{hint}")
