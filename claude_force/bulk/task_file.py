"""The rows of a bulk run, and a file of tasks as their source."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, Iterator, Mapping, Optional, TextIO

from ..errors import InputError
from ..storage.input_paths import open_input
from .task_readers import (
    AGENT,
    NO_AGENT,
    NO_TASK,
    ROW_READERS,
    TASK,
    BoundedLines,
    UnreadableRow,
    json_list,
    problem_of_value,
)

STDIN = "standard input"
# Names of fields that each result has, so that a field of a row can't have them.
RESULT_FIELDS = (
    *("index", "key", "success", "output", "error", "error_type", "model", "stop_reason"),
    *("input_tokens", "output_tokens", "cost", "cost_usd", "cached", "attempts", "duration"),
    *("duration_seconds", "request_id", "truncated", "refused", "empty", "cost_at_most", "cost_at_most_usd"),
)
# Of the results of agents that used tools.
TOOL_FIELDS = ("turns", "tool_calls", "stopped_by")
# Fields that tell a result from a task, and the fields of a result that do not come from its row.
_RESULT = {"index", "key", "agent", "success", "output", "error_type"}
_RESULT_ONLY = {"task", "agent", *RESULT_FIELDS}
_FAILED_BEFORE = "no output, as they failed in the run before"
_FILE_KINDS = ".jsonl, .ndjson, .json (a list), .csv, .tsv or .txt (a task in each line)"
# In characters. A longer line means another kind of file.
_LONGEST_LINE = 16 * 1024 * 1024
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# In bytes. A list in JSON is read as a whole; other files are read line by line.
_LARGEST_LIST = 128 * 1024 * 1024


@dataclass(frozen=True)
class TaskRow:
    """One task with the other fields of its row.

    Attributes:
        fields: all other fields, which are copied to the result.
        echo: the task as the result repeats it; None where a field names the task.
        problem: why it can't be run; `kind` says that in a few words, the same for all rows with the problem.
    """

    index: int
    agent: str
    task: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    echo: Optional[str] = None
    problem: Optional[str] = None
    kind: str = ""

    def key(self, options: str) -> str:
        """Returns what identifies the result of this row: 16 hex characters of a hash, `options` included."""
        parts = [self.agent, self.task, self.fields, self.problem, options]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class TaskFile:
    """Iterates over the rows of a file of tasks; each iteration reads the file again.

    `agent` is the agent of rows that name none. Messages call the file by `name`, if given. The results of
    another run are tasks as well: each output is the task of `agent`. Raises InputError for a file that
    can't be read.

    Example:
        for row in TaskFile(Path("tasks.csv"), agent="code-reviewer"):
            print(row.index, row.agent, row.task)
    """

    def __init__(self, path: Path, agent: Optional[str], name: Optional[str] = None) -> None:
        self._path, self._agent, self._name = path, agent, name or str(path)
        reader = ROW_READERS.get(path.suffix.lower())
        if reader is None:
            raise InputError(f"{path} is not a kind of file that tasks are read from: {_FILE_KINDS}.")
        self._read = reader

    def __iter__(self) -> Iterator[TaskRow]:
        try:
            with self._open() as lines:
                for index, found in enumerate(self._read(BoundedLines(lines, _LONGEST_LINE))):
                    yield self._row(index, found)
        except OSError as error:
            raise InputError(f"{self._name} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self._name} can't be read: {self._not_utf8()}. Convert the file to UTF-8."
            ) from error

    def _open(self) -> TextIO:
        largest = _LARGEST_LIST if self._read is json_list else None

        def opener(path: str, flags: int) -> int:
            return open_input(path, largest)

        return open(self._path, encoding="utf-8-sig", newline="", opener=opener)

    def _not_utf8(self) -> str:
        """Says which line, counted from 1, is not UTF-8, or that the file is UTF-16."""
        with os.fdopen(open_input(self._path), "rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), b""), start=1):
                if number == 1 and line.startswith(_UTF_16):
                    return "it is UTF-16"
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    return f"line {number} is not UTF-8"
        return "it is not UTF-8"

    def _row(self, index: int, found: Any) -> TaskRow:
        if isinstance(found, UnreadableRow):
            return self._unreadable(index, found.kind, f"{self._name}: {found.reason}")
        if isinstance(found, str):
            found = {TASK: found}
        if isinstance(found, dict) and set(found) >= _RESULT:
            return self._row_of_result(index, found)
        problem = problem_of_value(found)
        if problem is not None:
            return self._unreadable(index, NO_TASK, f"{self._name}, row {index + 1} {problem}")
        fields = dict(found)
        task, agent = fields.pop(TASK), fields.pop(AGENT, None) or self._agent
        if not isinstance(agent, str):
            reason = f'{self._name}, row {index + 1} has no "agent"; give it one, or --agent for all'
            return TaskRow(index, "", task, fields, task, reason, NO_AGENT)
        return TaskRow(index, agent, task, fields, echo=task)

    def _row_of_result(self, index: int, found: Dict[str, Any]) -> TaskRow:
        if not self._agent:
            raise InputError(
                f"{self._name} holds the results of a run. Name the agent that gets each output as its task: "
                "--agent NAME."
            )
        own = _RESULT_ONLY.union(TOOL_FIELDS) if found.keys() >= set(TOOL_FIELDS) else _RESULT_ONLY
        fields = {name: value for name, value in found.items() if name not in own}
        task = found["output"]
        if found["success"] is not True or not isinstance(task, str):
            reason = f"{self._name}, row {index + 1} is the result of a failed row and has no output"
            return TaskRow(index, self._agent, "", fields, problem=reason, kind=_FAILED_BEFORE)
        return TaskRow(index, self._agent, task, fields, echo=task)

    def _unreadable(self, index: int, kind: str, problem: str) -> TaskRow:
        return TaskRow(index, self._agent or "", "", problem=problem, kind=kind)


@contextmanager
def spool(source: BinaryIO) -> Iterator[Path]:
    """Copies JSON lines to a private temporary file, as tasks are read more than once. Raises OSError."""
    descriptor, name = tempfile.mkstemp(".jsonl", "claude-force-tasks-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file)
        yield Path(name)
    finally:
        Path(name).unlink()


TaskRows = Iterable[TaskRow]
