"""The items that a step with `foreach` is run for: files, lines, the entries of a list."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence

from ..errors import FileAccessError, InputError
from ..storage.file_walk import FileWalk, Match, PathSpot, has_magic, split_pattern
from ..storage.input_paths import InputPath
from ..storage.path_text import printable
from ..storage.project_files import ProjectFiles
from ..storage.project_root import project_root
from .models import FILES, INPUT, LINES, STEP, ForEach

logger = logging.getLogger(__name__)

_FILE_TEXT = "item.text"
# In bytes, of one file.
_LARGEST = 16 * 1024 * 1024
# Each line is a call, and all of them are in memory.
_MAX_LINES = 200_000
_MAX_LOGGED = 10
_MAX_LABEL = 80
_LINE_END = re.compile(r"\r\n|\r|\n")
# Blanks of one line only: if they matched line ends, many empty lines would take quadratic time.
_FENCED = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        label: a short text that tells it from the others.
        fields: what templates can name as `item.NAME`.
        path: the file that `item.text` is read from, when its part begins.
        problem: why the file can't be read.
    """

    label: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)
    path: Optional[InputPath] = None
    problem: Optional[FileAccessError] = None

    def values(self, names: Collection[str]) -> Dict[str, str]:
        """Returns the values of a template's names, and more. Raises InputError for an unreadable file."""
        if self.problem is not None:
            raise self.problem
        found = {"item": self.text, **{f"item.{name}": value for name, value in self.fields.items()}}
        if self.path is not None and _FILE_TEXT in names:
            found[_FILE_TEXT] = _read(self.path)
        return found


def reads_files(foreach: ForEach) -> bool:
    """Returns whether `load_items` reads folders or files."""
    return foreach.source in (FILES, LINES)


def load_items(
    foreach: ForEach, root: Path, inputs: Mapping[str, Any], answers: Sequence[str] = ()
) -> List[Item]:
    """Returns the items: files below `root`, or entries of the lists in `answers`. Raises InputError."""
    if foreach.source == FILES:
        patterns = [foreach.value] if isinstance(foreach.value, str) else foreach.value
        return _files(patterns, root)
    if foreach.source == LINES:
        # Not splitlines, which also splits at form feeds and U+2028.
        lines = _LINE_END.split(_text_of_lines(root, foreach.value))
        if len(lines) > _MAX_LINES:
            raise InputError(
                f"{printable(foreach.value)} has more than {_MAX_LINES:,} lines: divide it, or run it as a "
                "file of tasks."
            )
        return [Item(_short(line), line) for line in lines if line.strip()]
    if foreach.source == STEP:
        values = [value for answer in answers for value in _parse_list(answer, foreach.value)]
    else:
        values = inputs[foreach.value] if foreach.source == INPUT else foreach.value
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
    return line if len(line) <= _MAX_LABEL else line[: _MAX_LABEL - 1] + "…"


def _files(patterns: Sequence[str], root: Path) -> List[Item]:
    found = {match.spot.label: match for pattern in patterns for match in _matches(root, pattern)}
    if not found:
        raise InputError(f"No file below {printable(root)} matches {', '.join(map(printable, patterns))}.")
    bounds = project_root(root)
    return [
        Item(printable(name), printable(name), path=InputPath(bounds, one.spot), problem=one.problem)
        for name, one in sorted(found.items())
    ]


def _matches(root: Path, pattern: str) -> List[Match]:
    """Returns the files of a pattern or a name, those that can't be read included."""
    plain = _input_path(root, pattern)
    folder, rest = split_pattern(pattern)
    with ProjectFiles(plain.root) as files:
        walk = FileWalk(files)
        named = walk.match(plain.spot)
        if not has_magic(pattern):
            if named is not None and named.problem is not None and named.problem.is_outside:
                raise _not_inside(root, pattern)
            return [named] if named is not None else []
        if named is not None and named.problem is None:
            return [named]
        found = list(walk.matches(_input_path(root, folder).spot, rest))
    _log_skipped(walk)
    return found


def _log_skipped(walk: FileWalk) -> None:
    skipped = [error for error in walk.skipped.values() if not error.is_missing]
    for error in skipped[:_MAX_LOGGED]:
        logger.warning("Skipped: %s", error)
    if len(skipped) > _MAX_LOGGED:
        logger.warning("... and %d more like these", len(skipped) - _MAX_LOGGED)


def _not_inside(root: Path, name: str) -> InputError:
    return InputError(
        f"{printable(name)} is not inside the project {printable(root)}: name files relative to it, "
        "without '..'."
    )


def _input_path(root: Path, name: str) -> InputPath:
    """Returns a path relative to the project's folder. Raises InputError for a path that may lead out."""
    plain = name.replace("\\", "/")
    is_relative = not plain.startswith("/") and not Path(name).is_absolute() and plain[1:2] != ":"
    if not is_relative or ".." in plain.split("/") or not _can_be_named(name):
        raise _not_inside(root, name)
    below = _below(root)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return InputPath(
        project_root(root), PathSpot("/".join((*([below] if below else []), *parts)), "/".join(parts))
    )


def _below(root: Path) -> str:
    """Returns the project's folder, relative to the root that its links may not leave."""
    below = os.path.relpath(os.path.realpath(root), project_root(root)).replace(os.sep, "/")
    return "" if below == "." else below


def _can_be_named(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # Half of a surrogate pair.
        return False


def _text_of_lines(root: Path, name: str) -> str:
    try:
        return _read(_input_path(root, name))
    except FileAccessError as error:
        if error.is_outside:
            raise _not_inside(root, name) from error
        raise


def _read(path: InputPath) -> str:
    with ProjectFiles(path.root) as files:
        data = files.read(path.spot.name, _LARGEST, path.spot.label)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{printable(path.spot.label)} can't be read: it is not UTF-8.") from error


def _parse_list(answer: str, step: str) -> List[Any]:
    """Returns the JSON list in an answer: all of it, in its only code fence, or between brackets."""
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
        f"The answer of step '{step}' is not a JSON list: {_short(answer)!r}. "
        "Have its agent answer with a JSON list alone."
    )
