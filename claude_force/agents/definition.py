"""An agent's markdown file: front matter and instructions. Pure; never raises for any text.

The front matter is YAML by Claude Code's documentation, and about one public file in twenty is not valid
YAML. Where strict YAML refuses, lines are read as `key: value` with continuations.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

_LARGEST_FRONT_MATTER = 64 * 1024
_FENCE = re.compile(r"---[ \t]*")
_FIELD = re.compile(r"([A-Za-z][\w-]*)[ \t]*:(?:[ \t]+(.*)|[ \t]*)$")
# One line that YAML reads as nothing but a key and a text: no quotes around it, no sign that YAML knows.
_PLAIN = re.compile(r"([A-Za-z][\w-]*):[ ]+([A-Za-z][\w .,;/()!?+=<>'\"-]*)", re.ASCII)
_NO_TEXT = frozenset(("true", "false", "yes", "no", "on", "off", "null"))
_ALIAS = re.compile(r"(?:^|[\s\[,:-])[&*]\w", re.M)
# Only these begin a new field in the middle of a text at column 0: "Example: ..." there is text.
_KNOWN_FIELDS = frozenset(
    (
        *("name", "description", "model", "tools", "disallowedTools", "color", "permissionMode", "skills"),
        *("hooks", "mcpServers", "memory", "maxTurns", "background", "isolation", "effort"),
        *("version", "author", "tags", "category", "domains", "priority"),
    )
)


class Definition(NamedTuple):
    """What a file holds.

    Attributes:
        fields: of the front matter.
        body: the instructions.
        problem: why it can't be used, or None.
        is_yaml: whether the front matter could be read as what it should be.
    """

    fields: Dict[str, Any]
    body: str = ""
    problem: Optional[str] = None
    is_yaml: bool = True

    def text(self, name: str) -> str:
        """A field as one line of text, "" where it is missing."""
        value = self.fields.get(name)
        return "" if value is None or isinstance(value, (dict, list)) else str(value).strip()


def read_definition(text: str) -> Definition:
    """The parts of a file. A BOM, CRLF and a missing front matter are all right."""
    text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    first, _, rest = text.partition("\n")
    if not _FENCE.fullmatch(first):
        return Definition({}, text)
    lines = rest.split("\n")
    end = next((number for number, line in enumerate(lines) if _FENCE.fullmatch(line)), None)
    if end is None:
        return Definition(
            {}, problem="its front matter has no closing '---' line; add it after the last field"
        )
    front = "\n".join(lines[:end])
    if len(front) > _LARGEST_FRONT_MATTER:
        most = f"{_LARGEST_FRONT_MATTER:,} characters"
        return Definition({}, problem=f"its front matter has over {most}; move text below it")
    fields, body = _read_plain(lines[:end]) or _read_strict(front), "\n".join(lines[end + 1 :])
    return Definition(fields or _read_lenient(front), body, is_yaml=fields is not None or not front.strip())


def _read_plain(lines: List[str]) -> Optional[Dict[str, Any]]:
    """What YAML reads, where every line is of the simplest kind, as in most files; else None.

    To import YAML takes longer than all else that a command does before its first word.
    """
    fields: Dict[str, Any] = {}
    for line in lines:
        match = _PLAIN.fullmatch(line)
        if match is None:
            return None
        name, value = match.group(1), match.group(2).rstrip()
        if name.lower() in _NO_TEXT or value.lower() in _NO_TEXT:
            return None
        fields[name] = value
    return fields


def _read_strict(front: str) -> Optional[Dict[str, Any]]:
    """The mapping that YAML reads, or None where it refuses or would expand aliases."""
    import yaml

    # Aliases can expand a small file into gigabytes, and no agent needs one.
    if _ALIAS.search(front):
        return None
    try:
        value = yaml.load(front, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, LookupError, AttributeError):
        # The last two are what it raises for a tag with a value that does not fit, such as `!!bool x`.
        return None
    return {str(key): one for key, one in value.items()} if isinstance(value, dict) else None


def _read_lenient(front: str) -> Dict[str, Any]:
    fields: Dict[str, List[str]] = {}
    current: Optional[List[str]] = None
    for line in front.split("\n"):
        begun = _begins_field(line, fields)
        if begun is not None:
            name, value = begun
            current = fields.setdefault(name, [])
            current.append(value)
        elif current is not None:
            current.append(line.strip())
    return {name: _unquoted("\n".join(lines).strip()) for name, lines in fields.items()}


def _begins_field(line: str, fields: Dict[str, List[str]]) -> Optional[Tuple[str, str]]:
    match = _FIELD.match(line)
    if match is None:
        return None
    name, value = match.group(1), match.group(2) or ""
    after_text = any(len(lines) > 1 or len(lines[0]) > 80 for lines in fields.values())
    if name in fields or (name not in _KNOWN_FIELDS and (after_text or "description" in fields)):
        return None
    return name, value


def _unquoted(value: str) -> str:
    if value[:1] in ("|", ">"):
        value = value.split("\n", 1)[1] if "\n" in value else ""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
