"""Readers of the formats of task files: they yield a value, or an UnreadableRow, for each row.

A fault that makes the rest of a file doubtful (an unclosed quote, a missing column) is an InputError; a fault
of one row fails that row alone. Sources: RFC 4180 for .csv, jsonlines.org and RFC 8259 for JSON.
"""

from __future__ import annotations

import csv
import json
import re
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, TextIO, Tuple

from ..errors import InputError


class BoundedLines:
    """Iterates over the lines of `file`. Raises InputError for one of more than `longest` characters."""

    def __init__(self, file: TextIO, longest: int) -> None:
        self._file, self._longest = file, longest
        self.name = file.name

    def __iter__(self) -> Iterator[str]:
        limit = self._longest + 1
        for number, line in enumerate(iter(lambda: self._file.readline(limit), ""), start=1):
            if len(line) == limit:
                raise InputError(
                    f"{self.name}, line {number} is over {self._longest:,} characters long: "
                    "this is not a file of tasks. Put each task on a line."
                )
            yield line

    def read(self) -> str:
        """Returns the whole text."""
        return self._file.read()


TASK, AGENT = "task", "agent"
# In characters: an unclosed quote would take the rest of the file into memory.
_LONGEST_ROW = 16 * 1024 * 1024
_DELIMITERS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
# What other tools call the task.
_OTHER_TASK_NAMES = ("prompt", "question", "instruction", "instructions", "input", "query", "text", "message")
_MAX_NAMES = 5
_NO_HEADER = "The first line has to name the columns: 'task', and 'agent' unless --agent names one for all."
# Kinds of problems, as a summary names them.
_NO_JSON, _OTHER_CELLS = "no JSON", "another number of cells"
NO_TASK, NO_AGENT = 'no text "task"', 'no "agent"'


class UnreadableRow:
    """A row that can't be read: the kind of its problem, and the problem with its line."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind, self.reason = kind, reason


def json_lines(lines: BoundedLines) -> Iterator[Any]:
    """Yields a value, or UnreadableRow, for each line. Raises InputError for another format."""
    is_first = True
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if is_first:
            _expect_lines(lines.name, number, text)
            is_first = False
        try:
            yield _parsed(line)
        except json.JSONDecodeError as error:
            yield UnreadableRow(_NO_JSON, f"line {number} is not JSON ({error.msg}, column {error.pos + 1})")
        except (ValueError, RecursionError) as error:
            yield UnreadableRow(_NO_JSON, f"line {number} is not JSON ({error})")


def _expect_lines(name: str, number: int, text: str) -> None:
    rest = text[1:].strip()
    if text == "{" or (text.startswith("[") and (not rest or rest[0] in '{"')):
        what = "a list" if text.startswith("[") else "an object of several lines"
        raise InputError(
            f"{name}, line {number} begins {what}; each line must be one object, such as "
            '{"task": "..."}. Name a file that holds one list .json.'
        )


def json_list(lines: BoundedLines) -> Iterator[Any]:
    """Yields the entries of a JSON list. Raises InputError for anything else."""
    try:
        found = _parsed(lines.read())
    except json.JSONDecodeError as error:
        hint = ". Name a file that has an object in each line .jsonl" if error.msg == "Extra data" else ""
        where = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise InputError(f"{lines.name} is not JSON ({where}){hint}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{lines.name} is not JSON ({error}).") from error
    if not isinstance(found, list):
        raise InputError(f"{lines.name} is not a list of tasks{_list_inside(found)}.")
    yield from found


def _list_inside(found: Any) -> str:
    lists = (
        [name for name, value in found.items() if isinstance(value, list)] if isinstance(found, dict) else []
    )
    return f"; its {lists[0]!r} is one: save that list alone" if lists else ""


def _parsed(text: str) -> Any:
    """Raises ValueError also for what JSON parsers disagree on: a repeated name, NaN and infinity."""
    return _DECODER.decode(text)


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text:.40} is too large a number")
    return number


# Made once: to make one takes longer than to read a line.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)


def table(delimiter: str) -> Callable[[BoundedLines], Iterator[Any]]:
    """Returns a reader of tables whose first line names the columns."""

    def read(lines: BoundedLines) -> Iterator[Any]:
        csv.field_size_limit(_LONGEST_ROW)
        rows = _TableRows(lines, delimiter)
        names = _header(rows, delimiter)
        for cells in rows:
            if len(cells) == len(names):
                yield dict(zip(names, cells))
            elif cells:
                yield UnreadableRow(
                    _OTHER_CELLS,
                    f"line {rows.began} has another number of cells than the first line ({len(cells)}, not "
                    f"{len(names)}); a cell that holds {_DELIMITERS[delimiter]} goes into double quotes",
                )

    return read


class _TableRows:
    """Iterates over the rows of a table as lists of cells; `began` is the first line of the row, from 1.

    Raises InputError for unmatched quotes, because no later cell can be trusted then.
    """

    def __init__(self, lines: BoundedLines, delimiter: str) -> None:
        self._lines, self.name = lines, lines.name
        self._delimiter = delimiter
        self._reader = csv.reader(self._counted(), delimiter=delimiter, strict=True)
        self._number, self.began, self._taken = 0, 1, 0
        self._row: List[str] = []
        cell = f'(?:"(?:[^"]|"")*"|[^"{re.escape(delimiter)}]*)'
        self._strict = re.compile(f"{cell}(?:{re.escape(delimiter)}{cell})*\r?\n?|\r")

    def _counted(self) -> Iterator[str]:
        for line in self._lines:
            self._number += 1
            self._taken += len(line)
            if "\0" in line:
                raise self._error("a NUL byte: the file is not text, or not UTF-8")
            if self._taken > _LONGEST_ROW:
                raise self._error("a row without end: a quote opens there and is never closed")
            self._row.append(line)
            yield line

    def __iter__(self) -> Iterator[List[str]]:
        return self

    def __next__(self) -> List[str]:
        self.began, self._taken, self._row = self._number + 1, 0, []
        try:
            cells = next(self._reader)
        except csv.Error as error:
            raise self._error(self._explain(str(error))) from error
        # RFC 4180 allows quotes only around a cell.
        text = "".join(self._row)
        if '"' in text and self._delimiter != "\t" and not self._strict.fullmatch(text):
            raise self._error('a quote inside a cell that is not quoted; write "a ""quoted"" cell"')
        return cells

    def _explain(self, error: str) -> str:
        if "end of data" in error:
            return f"a quote that is never closed: its row ends with the file, in line {self._number}"
        if "expected after" in error:
            return f'text behind a closing quote (line {self._number}); write a quote inside a cell as ""'
        return error

    def _error(self, what: str) -> InputError:
        where = (
            f"line {self.began}" if self._number <= self.began else f"lines {self.began} to {self._number}"
        )
        return InputError(f"{self.name}, {where} has {what}. Nothing was sent.")


def _header(rows: _TableRows, delimiter: str) -> List[str]:
    names = next((cells for cells in rows if cells), [])
    twice = sorted({name for name in names if names.count(name) > 1})
    where = f"{rows.name}, line {rows.began}"
    if TASK in twice or (twice and TASK in names):
        shown = f"two columns {twice[0]!r}" if twice[0] else "two columns without a name"
        raise InputError(f"{where} has {shown}; give each column a different name.")
    if TASK not in names:
        hint = _other_delimiter(names, delimiter) or _meant(names) or _NO_HEADER
        raise InputError(f'{where} has no column "task": it has {_shown(names)}. {hint}')
    return names


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(f"{name!r:.60}" for name in names[:_MAX_NAMES]) + more if names else "nothing at all"


def _other_delimiter(names: Sequence[str], delimiter: str) -> Optional[str]:
    line = delimiter.join(names)
    for other in _DELIMITERS:
        cells = [cell.strip().strip('"') for cell in line.split(other)]
        if other != delimiter and len(cells) > 1 and (TASK in cells or likely_task_name(cells) is not None):
            suffix = {"\t": ".tsv", ",": ".csv"}.get(other)
            way = (
                f"name the file {suffix}"
                if suffix
                else f"save it with {_DELIMITERS[delimiter]} between cells"
            )
            return f"Its cells seem to be separated by {_DELIMITERS[other]}: {way}."
    return None


def _meant(names: Sequence[str]) -> Optional[str]:
    name = likely_task_name(names)
    return None if name is None else f"If {name!r} is the task, rename that column to 'task'."


def likely_task_name(names: Sequence[str]) -> Optional[str]:
    """Returns the name that may mean "task": another spelling, or what other tools call it."""
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    for likely in (TASK, "tasks", *_OTHER_TASK_NAMES):
        if likely in by_lower:
            return by_lower[likely]
    return None


def text_lines(lines: BoundedLines) -> Iterator[Any]:
    """Yields each line that is not empty."""
    for line in lines:
        if line.strip():
            yield line.rstrip("\r\n")


def problem_of_value(found: Any) -> Optional[str]:
    """Returns why a value is not a row; None for an object with a text as its task."""
    if not isinstance(found, dict):
        return f'is {_kind(found)}, and not an object with a "task": {found!r:.80}'
    if TASK in found:
        is_text = isinstance(found[TASK], str)
        return None if is_text else f'has {_kind(found[TASK])} as its "task", and not a text'
    name = likely_task_name([one for one in found if isinstance(one, str)])
    hint = "" if name is None else f"; rename {name!r} to 'task'"
    return f'has no text "task"{hint}: {found!r:.80}'


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = ((list, "a list"), (dict, "an object"), (str, "a text"))
    return next((words for kind, words in kinds if isinstance(value, kind)), "a number")


ROW_READERS: Mapping[str, Callable[[BoundedLines], Iterator[Any]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_list,
    ".csv": table(","),
    ".tsv": table("\t"),
    ".txt": text_lines,
}
