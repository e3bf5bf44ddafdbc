"""Reads an agent's settings from its front matter and reports faults. Pure."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

from ..agent_types import AgentSettings
from .commands import find_injections
from .definition import Definition
from .front_matter_keys import AGENT, COMMAND, misspelled_keys, parse_names
from .names import is_model_name

T = TypeVar("T")

# PROBLEM: what was asked for can't be done. WARNING: something may not be as it was meant. NOTE: a fact.
PROBLEM, WARNING, NOTE = "problem", "warning", "note"

EFFORTS = ("low", "medium", "high", "xhigh", "max")
PERMISSION_MODES = ("default", "acceptEdits", "auto", "bypassPermissions", "dontAsk", "manual", "plan")
_SETTINGS = (
    "tools",
    "disallowedTools",
    "skills",
    "max_tokens",
    "temperature",
    "effort",
    "permissionMode",
    "maxTurns",
)
_MAX_TOKENS = 10**7
_MAX_TEMPERATURE = 2.0

# The keys of commands that have other names in agents.
_OF_COMMANDS = {"allowed-tools": "tools", "disallowed-tools": "disallowedTools"}

# What a value that can't be understood does, where it is not ignored.
_WITHOUT = dict.fromkeys(("tools", "disallowedTools"), "it gets no tools")

_NOT_YAML = (
    "its front matter is not valid YAML, or has aliases, and was read line by line; "
    "put a value that holds ': ' or begins with '*' in quotes"
)


class FieldFault(NamedTuple):
    """A fault of a file that is loaded as an agent; the text after the first "; " is the advice."""

    reason: str
    state: str = WARNING


class ModelField(NamedTuple):
    """The `model` of front matter: a valid name, or the invalid text."""

    name: Optional[str] = None
    wrong: Optional[str] = None


def read_model(definition: Definition) -> ModelField:
    """Returns the model of front matter; both fields are None if there is no `model` key."""
    written = definition.fields.get("model")
    if written is None:
        return ModelField()
    # YAML reads `model: 4` as a number.
    name = str(written).strip() if isinstance(written, (str, int, float)) else None
    if name == "":
        return ModelField()
    if name is None or isinstance(written, bool) or not is_model_name(name):
        return ModelField(wrong=str(written))
    return ModelField(name)


def read_settings(definition: Definition, is_command: bool = False) -> Tuple[AgentSettings, List[FieldFault]]:
    """Returns the valid settings, and a fault for each invalid one."""
    fields = definition.fields
    if is_command:
        fields = {_OF_COMMANDS.get(name, name): value for name, value in fields.items()}
    faults: List[FieldFault] = []
    found = {name: fields[name] for name in _SETTINGS if fields.get(name) is not None}
    if not found:
        # An empty `tools:` means no tools.
        return AgentSettings(tools=() if "tools" in fields else None), faults

    def take(key: str, name: str, read: Callable[[Any], Optional[T]], wanted: str) -> Dict[str, Any]:
        if key not in found:
            return {}
        value = read(found[key])
        if value is None:
            effect = _WITHOUT.get(key, "is ignored")
            faults.append(FieldFault(f"its {key} is {found[key]!r:.60} and {effect}; {wanted}", PROBLEM))
        return {} if value is None else {name: value}

    names = "write a list of names"
    values = {
        **take("tools", "tools", parse_names, names),
        **take("disallowedTools", "disallowed_tools", parse_names, names),
        **take("skills", "skills", parse_names, names),
        **take("max_tokens", "max_tokens", _token_count, "write a whole number from 1 up"),
        **take("temperature", "temperature", _temperature, "write a number from 0 to 1"),
        **take("effort", "effort", _effort, f"write one of {', '.join(EFFORTS)}"),
        **take("permissionMode", "permission_mode", _mode, f"write one of {', '.join(PERMISSION_MODES)}"),
        **take("maxTurns", "max_turns", _token_count, "write a whole number from 1 up"),
    }
    # A value that can't be understood must not give the agent more tools than its author meant.
    if "tools" in fields and "tools" not in values:
        values["tools"] = ()
    if "disallowedTools" in found and "disallowed_tools" not in values:
        values["disallowed_tools"] = ("*",)
    tools = values.get("tools")
    return AgentSettings(**{**values, "tools": None if tools == ("*",) else tools}), faults


def _token_count(value: Any) -> Optional[int]:
    try:
        number = int(str(value).replace("_", "")) if not isinstance(value, bool) else 0
    except ValueError:
        return None
    return number if 1 <= number <= _MAX_TOKENS else None


def _temperature(value: Any) -> Optional[float]:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= _MAX_TEMPERATURE else None


def _effort(value: Any) -> Optional[str]:
    name = str(value).strip().lower()
    return name if name in EFFORTS else None


def _mode(value: Any) -> Optional[str]:
    name = str(value).strip().lower()
    return next((mode for mode in PERMISSION_MODES if mode.lower() == name), None)


def find_faults(definition: Definition, is_command: bool) -> Iterator[FieldFault]:
    """Yields the faults of a file other than invalid settings."""
    if not definition.is_yaml:
        yield FieldFault(_NOT_YAML)
    if definition.late:
        yield FieldFault(
            f"its front matter begins on line {definition.late} and is read as text; move its '---' to line 1"
        )
    kind = COMMAND if is_command else AGENT
    for written, meant in misspelled_keys(definition.fields, kind):
        yield FieldFault(f"the key '{written}' of its front matter has no effect; write '{meant}'")
    if is_command:
        found = find_injections(definition.body)
        if found:
            shown = ", ".join(one[:40] for one in found[:3]) + (", ..." if len(found) > 3 else "")
            yield FieldFault(
                f"no command is executed and no file is read for it, {shown} is sent as text; "
                "put what the model needs into the task"
            )
