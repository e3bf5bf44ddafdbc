"""Parses a markdown file with front matter: an agent, a command or a skill. Pure; raises for no text.

Front matter is YAML by Claude Code's documentation, but about 7 % of public files are not valid YAML. Those
are read line by line as `key: value` with continuations.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..lazy_pattern import pattern
from .front_matter_keys import IN_TEXT, LISTS, ONE_LINE
from .names import is_model_name

_LARGEST_FRONT_MATTER = 64 * 1024
_DEEPEST = 100
# Lines searched for front matter that does not start on line 1.
_LATEST_FRONT_MATTER = 50
_MOST_BITS = 4096
# YAML reads 1:30 as a base-60 number, in time quadratic in its digits.
_BASE_60 = pattern(r"(?::[0-5]?\d){40}")
_MARKS = ",:-?&![{\n"
_FENCE = pattern(r"---[ \t]*")
# Accepts blanks of other scripts, which YAML does not.
_FIELD = pattern(
    "([A-Za-z][\\w-]*)[ \t\u00a0\u3000]*:(?:[ \t\u00a0\u3000]+(.*)|[ \t\u00a0\u3000]*)$", re.ASCII
)
_FIELD_WITHOUT_BLANK = pattern(r"([A-Za-z][\w-]*):(\S.*)", re.ASCII)
# A line that YAML reads as a key and a plain text, a quoted text, or a number.
_PLAIN = pattern(
    r"([A-Za-z][\w-]*):[ ]+"
    r"(?:([A-Za-z][\w .,;/()!?+=<>'\"-]*)|\"([ !#-\[\]-~]*)\"[ ]*|(0|[1-9][0-9]{0,8})"
    r"|([0-9]{1,3}\.[0-9]{1,6}))",
    re.ASCII,
)
_NO_TEXT = frozenset(("true", "false", "yes", "no", "on", "off", "null"))
# What a value must look like for its line to start a field inside a text.
_PLAUSIBLE = {
    **dict.fromkeys(("maxTurns", "max_tokens", "temperature", "priority"), pattern(r"[\d._]+")),
    **dict.fromkeys(("background", "disable-model-invocation"), pattern(r"[A-Za-z]+")),
    **dict.fromkeys(
        ("color", "effort", "permissionMode", "memory", "isolation", "context", "mode", "type"),
        pattern(r"[\"']?[\w#.-]+[\"']?"),
    ),
}


class Definition(NamedTuple):
    """The parts of a file.

    Attributes:
        fields: of front matter, by key.
        body: the text below front matter.
        problem: why the file can't be used, or None.
        is_yaml: whether the front matter could be read as YAML.
        has_front_matter: whether line 1 starts front matter.
        late: the line of front matter that is ignored because it does not start on line 1; else 0.
    """

    fields: Dict[str, Any]
    body: str = ""
    problem: Optional[str] = None
    is_yaml: bool = True
    has_front_matter: bool = True
    late: int = 0

    def text(self, name: str) -> str:
        """Returns a field as text; "" if missing or not text."""
        value = self.fields.get(name)
        return "" if value is None or isinstance(value, (dict, list)) else str(value).strip()


def read_definition(text: str) -> Definition:
    """Parses a file. Accepts a BOM, CRLF and missing front matter."""
    text = text.lstrip("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    first, _, rest = text.partition("\n")
    if not _FENCE.fullmatch(first):
        return Definition({}, text, has_front_matter=False, late=_late_front_matter(text))
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


def front_matter_marks(text: str) -> int:
    """Counts the YAML punctuation in front matter, which parse time is proportional to."""
    end = text.find("\n---", 3) if text.lstrip("\ufeff").startswith("---") else 0
    # Longer front matter is not parsed.
    front = text[:end] if 0 < end <= _LARGEST_FRONT_MATTER else ""
    return sum(map(front.count, _MARKS))


def _late_front_matter(text: str) -> int:
    """Returns the line of a late front matter block with known fields; 0 if no such block is found."""
    if "\n---" not in text:
        return 0
    lines = text.split("\n", _LATEST_FRONT_MATTER)[:_LATEST_FRONT_MATTER]
    begin = next((number for number, line in enumerate(lines) if _FENCE.fullmatch(line.strip())), None)
    if begin is None:
        return 0
    field = _FIELD.match(next((line for line in lines[begin + 1 :] if line.strip()), ""))
    closed = any(_FENCE.fullmatch(line) for line in text.split("\n")[begin + 1 :])
    return begin + 1 if closed and field is not None and field.group(1) in IN_TEXT else 0


def _read_plain(lines: List[str]) -> Optional[Dict[str, Any]]:
    """Parses front matter whose lines are all simple, as in most files; returns None for any other.

    Importing YAML takes longer than everything else a command does before its first output.
    """
    fields: Dict[str, Any] = {}
    for line in lines:
        match = _PLAIN.fullmatch(line)
        if match is None:
            return None
        name, text, quoted, number, fraction = match.groups()
        if name.lower() in _NO_TEXT:
            return None
        if text is not None:
            text = text.rstrip()
            if text.lower() in _NO_TEXT:
                if text not in ("true", "false"):
                    return None
                fields[name] = text == "true"
                continue
        fields[name] = text or (quoted if quoted is not None else int(number) if number else float(fraction))
    return fields


def _read_strict(front: str) -> Optional[Dict[str, Any]]:
    """Parses front matter as YAML; returns None if it is invalid or has aliases."""
    import yaml

    if _BASE_60.search(front) or _is_deep(front):
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Aliases can expand a small file into gigabytes, and no agent needs them.
        if "*" in front and "&" in front and _has_alias(yaml.parse(front, Loader=loader)):
            return None
        value = yaml.load(front, Loader=loader)
    except (
        yaml.YAMLError,
        ArithmeticError,
        ValueError,
        RecursionError,
        TypeError,
        LookupError,
        AttributeError,
    ):
        # YAML raises the last two for a tag whose value does not fit, such as `!!bool x`.
        return None
    if not isinstance(value, dict) or _has_huge_number(value):
        return None
    return {str(key): one for key, one in value.items()}


def _is_deep(front: str) -> bool:
    """Whether brackets are nested deeper than front matter needs.

    The C loader recurses without a bound: 60,000 brackets crash Python 3.8.
    """
    if front.count("[") + front.count("{") <= _DEEPEST:
        return False
    depth = 0
    for character in front:
        depth += (character in "[{") - (character in "]}")
        if depth > _DEEPEST:
            return True
    return False


def _has_huge_number(value: Dict[Any, Any]) -> bool:
    """Whether it has a number so large that Python refuses to format it."""
    rest: List[Any] = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest.extend(one)
            rest.extend(one.values())
        elif isinstance(one, (list, tuple, set)):
            rest.extend(one)
        elif isinstance(one, int) and one.bit_length() > _MOST_BITS:
            return True
    return False


def _has_alias(events: Any) -> bool:
    return any(type(event).__name__ == "AliasEvent" for event in events)


def _read_lenient(front: str) -> Dict[str, Any]:
    """Parses front matter line by line: a one-line field ends with its line, a text at the next field."""
    fields: Dict[str, List[str]] = {}
    # The field being continued; "" if none.
    current, after_text = "", False
    for line in front.split("\n"):
        begun = _begins_field(line, fields, current, after_text)
        if begun is None:
            if current:
                fields[current].append(line.strip())
                after_text = True
            continue
        name, value = begun
        fields[name] = [value]
        after_text = after_text or len(value) > 80
        current = "" if name in ONE_LINE else name
    return {name: _value_of(name, lines) for name, lines in fields.items()}


def _begins_field(
    line: str, fields: Dict[str, List[str]], current: str, after_text: bool
) -> Optional[Tuple[str, str]]:
    """`after_text`: an earlier field is a long or multi-line text."""
    match = _FIELD.match(line)
    if match is None:
        match = _FIELD_WITHOUT_BLANK.match(line)
        if match is None or match.group(1) not in ONE_LINE:
            return None
    name, value = match.group(1), match.group(2) or ""
    if name in fields:
        return None
    if not current or current in LISTS:
        return name, value
    if name in IN_TEXT:
        return (name, value) if _is_plausible(name, value) else None
    # "Example: ..." inside a description is text.
    return None if after_text or "description" in fields else (name, value)


def _is_plausible(name: str, value: str) -> bool:
    value = _without_comment(value)
    if name == "model":
        return not value or is_model_name(_unquoted(value))
    pattern = _PLAUSIBLE.get(name)
    return pattern is None or not value or pattern.fullmatch(value) is not None


def _value_of(name: str, lines: List[str]) -> str:
    if name in ONE_LINE:
        return _unquoted(_without_comment(lines[0]))
    return _unquoted("\n".join(lines).strip())


def _without_comment(value: str) -> str:
    """Removes a YAML comment: ' #' starts one unless the text is in quotes."""
    value = value.strip()
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        return value[: end + 1] if end > 0 and value[end + 1 :].lstrip()[:1] in ("", "#") else value
    return re.split(r"(?:^|[ \t])#", value, maxsplit=1)[0].rstrip()


def _unquoted(value: str) -> str:
    if value[:1] in ("|", ">"):
        value = value.split("\n", 1)[1] if "\n" in value else ""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
