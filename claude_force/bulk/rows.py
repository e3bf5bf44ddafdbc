"""The rows of a bulk run, from a file of tasks or one for each source file. Read anew at each iteration."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, TextIO

from ..errors import InputError

_KINDS = ".jsonl, .ndjson, .json (a list), .csv, .tsv or .txt (a task in each line)"
# The most that the module csv can be told on every system.
_LONGEST_CELL = 2**31 - 1


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
            with self._path.open(encoding="utf-8-sig", newline="") as lines:
                for index, found in enumerate(self._read(lines)):
                    yield self._row(index, found)
        except OSError as error:
            raise InputError(f"{self._path} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            where = f"line {_first_other(self._path)} is not UTF-8"
            raise InputError(f"{self._path} can't be read: {where}. Convert the file to UTF-8.") from error

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


class SourceFiles:
    """A row for each file that `patterns` match, in the order of their names.

    The task is `instruction`, followed by the file's path and text. `output` is never among them.
    """

    def __init__(
        self, patterns: Sequence[str], agent: str, instruction: str = "", output: Optional[Path] = None
    ) -> None:
        """Raises InputError where nothing matches."""
        found = {path for pattern in patterns for path in glob.glob(pattern, recursive=True)}  # noqa: PTH207
        own = output.resolve() if output is not None else None
        self._paths = sorted(path for path in found if Path(path).is_file() and Path(path).resolve() != own)
        if not self._paths:
            raise InputError(f"No file matches {', '.join(patterns)}.")
        self._agent, self._instruction = agent, instruction

    def __iter__(self) -> Iterator[Row]:
        for index, path in enumerate(self._paths):
            fields = {"file": path}
            try:
                text = Path(path).read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not UTF-8"
                yield Row(index, self._agent, "", fields, problem=f"{path} can't be read: {reason}")
            else:
                task = f'<file path="{path}">\n{text}\n</file>'
                opening = f"{self._instruction}\n\n" if self._instruction else ""
                yield Row(index, self._agent, opening + task, fields)


Rows = Iterable[Row]


class _Broken:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _first_other(path: Path) -> int:
    """The first line that is not UTF-8, counted from 1."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def _json_lines(lines: TextIO) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                yield _Broken(f"line {number} is not JSON ({error.msg}, column {error.pos + 1})")
            except (ValueError, RecursionError) as error:
                yield _Broken(f"line {number} is not JSON ({error})")


def _json_list(lines: TextIO) -> Iterator[Any]:
    try:
        found = json.load(lines)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{lines.name} is not JSON ({error}).") from error
    if not isinstance(found, list):
        raise InputError(f"{lines.name} holds no list of tasks.")
    yield from found


def _table(delimiter: str) -> Callable[[TextIO], Iterator[Any]]:
    def read(lines: TextIO) -> Iterator[Any]:
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


def _text_lines(lines: TextIO) -> Iterator[Any]:
    for line in lines:
        if line.strip():
            yield line.rstrip("\r\n")


_READERS: Dict[str, Callable[[TextIO], Iterator[Any]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".txt": _text_lines,
}
