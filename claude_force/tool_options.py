"""The options of a call that concern tools: what is granted, and the bounds of the loop. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from . import settings
from .errors import InvalidOptionError
from .formatting import Wording, naming, option
from .tools.grant import Grant, parse_grant

_TOOLS = "tools"


class ToolOptions(NamedTuple):
    """What the caller grants to one agent.

    Attributes:
        grant: grants something.
        max_turns: the caller's own bound for this call, which comes before that of the agent's file.
        most_turns: bounds what the file says; None for no bound.
        add_dirs: folders outside the project that tools may use as well.
        in_place: whether tools that edit change the project itself, and not a copy.
    """

    grant: Grant
    max_turns: Optional[int] = None
    most_turns: Optional[int] = None
    max_tool_calls: Optional[int] = None
    add_dirs: Tuple[Path, ...] = ()
    in_place: bool = False

    def turns(self, of_file: Optional[int], default: int) -> int:
        """Returns the bound that holds for an agent whose file says `of_file`."""
        if self.max_turns is not None:
            return self.max_turns
        found = [most for most in (of_file, self.most_turns) if most is not None]
        return min(found, default=default)


def read_tool_options(given: Mapping[str, Any], defaults: Any) -> Optional[ToolOptions]:
    """Returns the options of tools among those of a call; None where no tool is granted.

    `defaults` has the orchestrator's own, as attributes: `tools`, `max_turns`, `max_tool_calls`, `add_dirs`.

    Raises InvalidOptionError.
    """
    max_turns, max_tool_calls, added = (
        given.get(name) for name in ("max_turns", "max_tool_calls", "add_dirs")
    )
    check_limits(max_turns, max_tool_calls)
    granted = given.get(_TOOLS)
    if granted is None:
        granted = defaults.tools
    if _is_api_field(granted):
        return None
    grant = parse_grant(granted)
    if not grant:
        return None
    return ToolOptions(
        grant,
        max_turns,
        defaults.max_turns,
        defaults.max_tool_calls if max_tool_calls is None else max_tool_calls,
        folders(defaults.add_dirs if added is None else added),
        _is_in_place(given),
    )


def refuse_in_place(given: Mapping[str, Any]) -> None:
    """Raises InvalidOptionError where several agents would change the same files at once."""
    if _is_in_place(given):
        text = "{} is for one agent: those of a run would change the same files at once. Leave it out."
        raise InvalidOptionError(naming(text, "in_place"))


def _is_in_place(given: Mapping[str, Any]) -> bool:
    value = given.get("in_place", False)
    if not isinstance(value, bool):
        raise InvalidOptionError(f"in_place is {value!r:.80}; it must be True or False.")
    return value


def without_tool_options(given: Dict[str, Any]) -> Dict[str, Any]:
    """Returns the options of a call without those of tools; a `tools` for the API's request stays."""
    kept = {name: value for name, value in given.items() if name not in settings.TOOL_OPTIONS}
    if _is_api_field(given.get(_TOOLS)):
        kept[_TOOLS] = given[_TOOLS]
    return kept


def check_defaults(grant: Any, max_turns: Any, max_tool_calls: Any, add_dirs: Any) -> None:
    """Checks the options of an orchestrator. Raises InvalidOptionError."""
    parse_grant(grant)
    check_limits(max_turns, max_tool_calls)
    folders(add_dirs)


def check_limits(max_turns: Any, max_tool_calls: Any) -> None:
    """Raises InvalidOptionError for what is not a number of turns or of calls, or None."""
    for name, value, least in (("max_turns", max_turns, 1), ("max_tool_calls", max_tool_calls, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            rule = f"it must be a whole number from {least} up"
            raise InvalidOptionError(
                Wording(f"{name} is {value!r}; {rule}, or None.", f"{option(name)} is {value!r}; {rule}.")
            )


def folders(add_dirs: Any) -> Tuple[Path, ...]:
    """Raises InvalidOptionError for what is not a list of folders."""
    if not isinstance(add_dirs, (list, tuple)):
        raise InvalidOptionError(f"add_dirs is {add_dirs!r:.80}; give a list of folders.")
    for one in add_dirs:
        if not isinstance(one, (str, Path)) or not str(one):
            raise InvalidOptionError(f"add_dirs has {one!r:.80}; give the paths of folders.")
    return tuple(map(Path, add_dirs))


def _is_api_field(value: Any) -> bool:
    """Whether the value is the field `tools` of the Messages API: a list of objects."""
    return isinstance(value, (list, tuple)) and bool(value) and not any(isinstance(one, str) for one in value)
