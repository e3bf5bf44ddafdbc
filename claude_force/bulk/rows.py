"""The rows of a bulk run, from a file of tasks or one for each source file. Read anew at each iteration."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, TextIO

from ..errors import InputError
from ..storage.named_paths import open_named
from .lines import BoundedLines

_KINDS = ".jsonl, .ndjson, .json (a list), .csv, .tsv or .txt (a task in each line)"
# In characters: what is longer is a file of another kind. A cell may have many lines.
_LONGEST_LINE = _LONGEST_CELL = 16 * 1024 * 1024
# In bytes. A list in JSON is read as a whole; other files are read line by line.
_LARGEST_LIST = 512 * 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One task with what its file says beside it.

    Attributes:
        fields: all other fields, carried through to the output.
        echo: the task as the output repeats it; None where a field names it.
        problem: why it can't be run.
    """

    index: int
    agent: str
    task: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    echo: Optional[str] = None
    problem: Optional[str] = None

    def key(self, options: str) -> str:
        """Tells whether a result is this row's: 16 hex characters over all of it and the run's `options`."""
        parts = [self.agent, self.task, self.fields, self.problem, options]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class TaskFile:
    """The rows of a file; `agent` is for those that name none. Raises InputError where it can't be read."""

    def __init__(self, path: Path, agent: Optional[str]) -> None:
        self._path, self._agent = path, agent
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise InputError(f"{path} is not a kind of file that tasks are read from: {_KINDS}.")
        self._read = reader

    def __iter__(self) -> Iterator[Row]:
        try:
            with self._open() as lines:
                for index, found in enumerate(self._read(BoundedLines(lines, _LONGEST_LINE))):
                    yield self._row(index, found)
        except OSError as error:
            raise InputError(f"{self._path} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            where = f"line {self._first_other()} is not UTF-8"
            raise InputError(f"{self._path} can't be read: {where}. Convert the file to UTF-8.") from error

    def _open(self) -> TextIO:
        most = _LARGEST_LIST if self._read is _json_list else None

        def opener(path: str, flags: int) -> int:
            return open_named(path, most)

        return open(self._path, encoding="utf-8-sig", newline="", opener=opener)

    def _first_other(self) -> int:
        """The first line that is not UTF-8, counted from 1."""
        with os.fdopen(open_named(self._path), "rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    return number
        return 1

    def _row(self, index: int, found: Any) -> Row:
        if isinstance(found, _Broken):
            return Row(index, self._agent or "", "", problem=f"{self._path}: {found.reason}")
        if isinstance(found, str):
            found = {"task": found}
        if not isinstance(found, dict) or not isinstance(found.get("task"), str):
            reason = f'{self._path}, row {index + 1} has no text "task": {found!r:.80}'
            return Row(index, self._agent or "", "", problem=reason)
        fields = dict(found)
        task, agent = fields.pop("task"), fields.pop("agent", None) or self._agent
        if not isinstance(agent, str):
            reason = f'{self._path}, row {index + 1} has no "agent"; give it one, or --agent for all'
            return Row(index, "", task, fields, task, problem=reason)
        return Row(index, agent, task, fields, echo=task)


Rows = Iterable[Row]


class _Broken:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _json_lines(lines: BoundedLines) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                yield _Broken(f"line {number} is not JSON ({error.msg}, column {error.pos + 1})")
            except (ValueError, RecursionError) as error:
                yield _Broken(f"line {number} is not JSON ({error})")


def _json_list(lines: BoundedLines) -> Iterator[Any]:
    try:
        found = json.loads(lines.read())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{lines.name} is not JSON ({error}).") from error
    if not isinstance(found, list):
        raise InputError(f"{lines.name} holds no list of tasks.")
    yield from found


def _table(delimiter: str) -> Callable[[BoundedLines], Iterator[Any]]:
    def read(lines: BoundedLines) -> Iterator[Any]:
        # A cell that is too long for a task is that row's fault alone.
        csv.field_size_limit(_LONGEST_CELL)
        reader = csv.DictReader(lines, delimiter=delimiter)
        try:
            if "task" not in (reader.fieldnames or ()):
                heads: List[str] = list(reader.fieldnames or ())
                raise InputError(f'{lines.name} has no column "task"; its first line has {heads}.')
            for found in reader:
                if None in found or None in found.values():
                    yield _Broken(f"line {reader.line_num} has another number of cells than the first line")
                else:
                    yield found
        except csv.Error as error:
            raise InputError(f"{lines.name}, line {reader.line_num + 1} can't be read: {error}.") from error

    return read


def _text_lines(lines: BoundedLines) -> Iterator[Any]:
    for line in lines:
        if line.strip():
            yield line.rstrip("\r\n")


_READERS: Dict[str, Callable[[BoundedLines], Iterator[Any]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".txt": _text_lines,
}
