"""What a step is run over: files, lines, a list. The files are read here, each when its part begins."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence

from ..errors import InputError
from .spec import FILES, INPUT, LINES, STEP, ForEach

_FILE_TEXT = "item.text"
_LINE_END = re.compile(r"\r\n|\r|\n")
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """One of the things that a step is run over.

    `label` is short and tells it from the others; `fields` are what templates can name as `item.NAME`;
    `path` is the file that `item.text` is read from.
    """

    label: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)
    path: Optional[Path] = None

    def values(self, names: Collection[str]) -> Dict[str, str]:
        """What these names of a template stand for, and more. Raises InputError for an unreadable file."""
        found = {"item": self.text, **{f"item.{name}": value for name, value in self.fields.items()}}
        if self.path is not None and _FILE_TEXT in names:
            found[_FILE_TEXT] = _read(self.path, self.label)
        return found


def reads_files(foreach: ForEach) -> bool:
    """Whether folders or files are read for it."""
    return foreach.source in (FILES, LINES)


def items_of(
    foreach: ForEach, root: Path, inputs: Mapping[str, Any], answers: Sequence[str] = ()
) -> List[Item]:
    """Files lie below `root`; `answers` are those of the step whose list it is. Raises InputError."""
    if foreach.source == FILES:
        patterns = [foreach.value] if isinstance(foreach.value, str) else foreach.value
        return _files(patterns, root)
    if foreach.source == LINES:
        # Not splitlines: it divides at form feeds and at U+2028 too, which stand within lines.
        lines = _LINE_END.split(_read(_inside(root, foreach.value), foreach.value))
        return [Item(_short(line), line) for line in lines if line.strip()]
    if foreach.source == STEP:
        return _each([value for answer in answers for value in _answered(answer, foreach.value)])
    return _each(inputs[foreach.value] if foreach.source == INPUT else foreach.value)


def _each(values: Sequence[Any]) -> List[Item]:
    return [_item(number, value) for number, value in enumerate(values, start=1)]


def _item(number: int, value: Any) -> Item:
    if isinstance(value, dict):
        return Item(str(number), _text(value), {str(name): _text(one) for name, one in value.items()})
    text = _text(value)
    return Item(_short(text) or str(number), text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def _files(patterns: Sequence[str], root: Path) -> List[Item]:
    found = {path for pattern in patterns for path in _matches(root, pattern)}
    if not found:
        raise InputError(f"No file below {root} matches {', '.join(patterns)}.")
    return [Item(name, name, path=root / name) for name in sorted(found)]


def _matches(root: Path, pattern: str) -> List[str]:
    _inside(root, pattern)
    # Path.glob is slower, and raises for patterns that match nothing on some systems.
    paths = (Path(one) for one in glob.glob(os.path.join(glob.escape(str(root)), pattern), recursive=True))  # noqa: PTH118, PTH207
    inside = (path for path in paths if path.is_file() and _is_inside(root, path))
    return [path.relative_to(root).as_posix() for path in inside]


def _inside(root: Path, name: str) -> Path:
    path = root / name
    try:
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts and _is_inside(root, path)
    except ValueError:  # Half a surrogate pair, or a NUL, which some versions of Python let pass.
        inside = False
    if not inside or "\0" in name:
        raise InputError(f"{name} is not inside the project {root}: name files relative to it, without '..'.")
    return path


def _is_inside(root: Path, path: Path) -> bool:
    return os.path.commonpath([os.path.realpath(root), os.path.realpath(path)]) == os.path.realpath(root)


def _read(path: Path, label: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"{label} can't be read: {reason}.") from error


def _answered(answer: str, step: str) -> List[Any]:
    """The JSON list in an answer: all of it, or what stands in the one fence, or between its brackets."""
    fenced = _FENCED.findall(answer)
    between = answer[answer.find("[") : answer.rfind("]") + 1]
    for text in (answer, *(fenced if len(fenced) == 1 else ()), between):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    raise InputError(
        f"The answer of step '{step}' is no JSON list to go through: {_short(answer)!r}. "
        "Have its agent answer with a JSON list alone."
    )
