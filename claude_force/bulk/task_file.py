"""The rows of a bulk run, from a file of tasks or one for each source file. Read anew at each iteration."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, TextIO

from ..errors import InputError
from ..storage.input_paths import open_named
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

# Names that a result has in the output, so that a row's own fields can't have them.
RESULT_FIELDS = (
    "index",
    "key",
    "success",
    "output",
    "error",
    "error_type",
    "model",
    "stop_reason",
    "input_tokens",
    "output_tokens",
    "cost",
    "cost_usd",
    "cached",
    "attempts",
    "duration",
    "duration_seconds",
    "request_id",
    "truncated",
    "refused",
    "empty",
    "cost_at_most",
    "cost_at_most_usd",
)
# What each result of a run has, and which of its fields are not those of the row that it answers.
_RESULT = {"index", "key", "agent", "success", "output", "error_type"}
_OF_A_RESULT = {"task", "agent", *RESULT_FIELDS}
_FAILED_BEFORE = "no output, as they failed in the run before"
_KINDS = ".jsonl, .ndjson, .json (a list), .csv, .tsv or .txt (a task in each line)"
# In characters: what is longer is a file of another kind.
_LONGEST_LINE = 16 * 1024 * 1024
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# In bytes. A list in JSON is read as a whole; other files are read line by line.
_LARGEST_LIST = 128 * 1024 * 1024


@dataclass(frozen=True)
class TaskRow:
    """One task with what its file says beside it.

    Attributes:
        fields: all other fields, carried through to the output.
        echo: the task as the output repeats it; None where a field names it.
        problem: why it can't be run; `kind` says that in a few words, the same for all that have it.
    """

    index: int
    agent: str
    task: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    echo: Optional[str] = None
    problem: Optional[str] = None
    kind: str = ""

    def key(self, options: str) -> str:
        """Tells whether a result is this row's: 16 hex characters over all of it and the run's `options`."""
        parts = [self.agent, self.task, self.fields, self.problem, options]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class TaskFile:
    """The rows of a file; `agent` is for those that name none. Raises InputError where it can't be read.

    The results of another run are tasks as well: each output is the task of `agent`. Messages call the file
    by `name`, where that is given.
    """

    def __init__(self, path: Path, agent: Optional[str], name: Optional[str] = None) -> None:
        self._path, self._agent, self._name = path, agent, name or str(path)
        reader = ROW_READERS.get(path.suffix.lower())
        if reader is None:
            raise InputError(f"{path} is not a kind of file that tasks are read from: {_KINDS}.")
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
        most = _LARGEST_LIST if self._read is json_list else None

        def opener(path: str, flags: int) -> int:
            return open_named(path, most)

        return open(self._path, encoding="utf-8-sig", newline="", opener=opener)

    def _not_utf8(self) -> str:
        """Which line is not UTF-8, counted from 1, or what the whole file is."""
        with os.fdopen(open_named(self._path), "rb") as lines:
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
        fields = {name: value for name, value in found.items() if name not in _OF_A_RESULT}
        task = found["output"]
        if found["success"] is not True or not isinstance(task, str):
            reason = f"{self._name}, row {index + 1} is the result of a failed row and has no output"
            return TaskRow(index, self._agent, "", fields, problem=reason, kind=_FAILED_BEFORE)
        return TaskRow(index, self._agent, task, fields, echo=task)

    def _unreadable(self, index: int, kind: str, problem: str) -> TaskRow:
        return TaskRow(index, self._agent or "", "", problem=problem, kind=kind)


TaskRows = Iterable[TaskRow]
