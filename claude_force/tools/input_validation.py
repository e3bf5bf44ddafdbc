"""Checks the input of a tool call against the tool's schema. Pure.

The texts are those of Claude Code, which models know; so is what is converted: digits in a string to a
number, "true" and "false" to a boolean.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..conversation import ToolUse
from ..lazy_pattern import pattern

_NUMBER = pattern(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_MOST_ISSUES = 20
_BOOLEANS = {"true": True, "false": False}


class InvalidInputError(Exception):
    """The input does not match the schema. The text is the result that the model gets."""


def validate_input(use: ToolUse, schema: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the arguments of a call. Raises InvalidInputError.

    >>> schema = {"properties": {"limit": {"type": "number"}}, "required": ["limit"]}
    >>> validate_input(ToolUse("1", "Read", {"limit": "5"}), schema)
    {'limit': 5}
    """
    if use.wrong_input:
        raise _invalid(
            f"{use.name} was called with input that could not be parsed as JSON. "
            "Call it again with one JSON object."
        )
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    given = _as_object(use.input)
    arguments = {
        name: _converted(value, properties[name]) if name in properties else value
        for name, value in given.items()
    }
    issues = [
        *_missing(arguments, schema),
        *_unexpected(arguments, schema),
        *_mistyped(arguments, properties),
    ]
    if issues:
        raise _invalid(_listed(use.name, issues))
    for name, value in arguments.items():
        _check_value(name, value, properties.get(name, {}))
    return arguments


def _as_object(value: Any) -> Dict[str, Any]:
    """What JavaScript's `{...value}` makes of an input that is no object."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, str)):
        return {str(number): one for number, one in enumerate(value[: _MOST_ISSUES + 1])}
    return {}


def _missing(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> List[str]:
    required: Sequence[str] = schema.get("required", ())
    return [f"The required parameter `{name}` is missing" for name in required if name not in arguments]


def _unexpected(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> List[str]:
    if schema.get("additionalProperties", False):
        return []
    known = schema.get("properties", {})
    return [f"An unexpected parameter `{name}` was provided" for name in arguments if name not in known]


def _mistyped(arguments: Mapping[str, Any], properties: Mapping[str, Mapping[str, Any]]) -> List[str]:
    found = []
    for name, value in arguments.items():
        wanted, given = properties.get(name, {}).get("type"), _type_of(value)
        if wanted is None or given == wanted or (wanted == "integer" and _is_whole(value)):
            continue
        if wanted == "integer" and given != "number":
            wanted = "number"  # JavaScript knows no other kind.
        found.append(f"The parameter `{name}` type is expected as `{wanted}` but provided as `{given}`")
    return found


def _converted(value: Any, schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    if kind in ("number", "integer") and _NUMBER.fullmatch(value):
        number = float(value)
        return int(value) if "." not in value else int(number) if number.is_integer() else number
    return _BOOLEANS.get(value, value) if kind == "boolean" else value


def _type_of(value: Any) -> str:
    """Returns the name of a value's type in JSON Schema."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


def _check_value(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    """Raises InvalidInputError for a value outside the schema's `enum`, `minimum` or `maximum`."""
    options, least, most = schema.get("enum"), schema.get("minimum"), schema.get("maximum")
    if options is not None and value not in options:
        allowed = "|".join(json.dumps(option) for option in options)
        issue: Dict[str, Any] = {"code": "invalid_value", "values": list(options), "path": [name]}
        raise _invalid(_as_json(issue, f"Invalid option: expected one of {allowed}"))
    if least is not None and value < least:
        raise _invalid(_as_json(*_bound(name, "too_small", "minimum", least, "small", ">=")))
    if most is not None and value > most:
        raise _invalid(_as_json(*_bound(name, "too_big", "maximum", most, "big", "<=")))


def _bound(name: str, code: str, key: str, bound: float, word: str, sign: str) -> Tuple[Dict[str, Any], str]:
    issue = {"origin": "number", "code": code, key: bound, "inclusive": True, "path": [name]}
    return issue, f"Too {word}: expected number to be {sign}{bound}"


def _as_json(issue: Dict[str, Any], message: str) -> str:
    return json.dumps([{**issue, "message": message}], indent=2, ensure_ascii=False)


def _listed(tool: str, issues: List[str]) -> str:
    more = len(issues) - _MOST_ISSUES
    shown = [*issues[:_MOST_ISSUES], *([f"and {more} more"] if more > 0 else [])]
    lines = "\n".join(shown)
    return f"{tool} failed due to the following issue{'s' if len(issues) > 1 else ''}:\n{lines}"


def _invalid(text: str) -> InvalidInputError:
    return InvalidInputError(f"<tool_use_error>InputValidationError: {text}</tool_use_error>")
