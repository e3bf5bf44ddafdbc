"""Executions as other programs take them: one JSON array, or CSV with a row of names above."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any, Callable, Iterable, TextIO

from ..errors import InvalidOptionError
from ..storage.places import open_output
from .entry import NAMES, Entry
from .rotating_log import is_ledger_file


def open_export(target: Path, folder: Path) -> TextIO:
    """Opens a file for what the ledger in `folder` holds. Raises as `check_target`, OSError."""
    check_target(target, folder)
    # Half a character, which a foreign line may hold, must not end the export.
    return os.fdopen(open_output(target), "w", encoding="utf-8", errors="backslashreplace", newline="")


def check_target(target: Path, folder: Path) -> None:
    """Raises InvalidOptionError where writing to `target` would destroy the ledger in `folder`."""
    real = Path(os.path.realpath(str(target)))
    if is_ledger_file(real.name) and real.parent == Path(os.path.realpath(str(folder))):
        raise InvalidOptionError(f"{target} is a file of the ledger itself. Name another file to write to.")


def write_json(entries: Iterable[Entry], out: TextIO) -> int:
    """An array of objects with all fields, one on each line. Returns their number."""
    written = 0
    for entry in entries:
        out.write((",\n" if written else "[\n") + json.dumps(entry.fields()))
        written += 1
    out.write("\n]\n" if written else "[]\n")
    return written


def write_csv(entries: Iterable[Entry], out: TextIO) -> int:
    """A column for each field, empty for what is not known; truth values and `timeline` are JSON.

    A text that a spreadsheet would take for a formula has an apostrophe before it, and so stays a text.
    Returns the number of entries.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(NAMES)
    written = 0
    for entry in entries:
        fields = entry.fields()
        writer.writerow([_cell(fields[name]) for name in NAMES])
        written += 1
    return written


# What a cell that a spreadsheet computes begins with; some spreadsheets take the wide forms for the same.
_BEGIN_FORMULAS = tuple("=+-@\t\n\uff1d\uff0b\uff0d\uff20")

_WRITERS = {"json": write_json, "csv": write_csv}


def writer_of(format: str) -> Callable[[Iterable[Entry], TextIO], int]:
    """Raises InvalidOptionError for any but "json" and "csv"."""
    if format not in _WRITERS:
        raise InvalidOptionError(f"There is no format {format!r}; choose one of {', '.join(_WRITERS)}.")
    return _WRITERS[format]


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        # The csv module does not quote a carriage return before Python 3.13, and readers end the row there.
        text = value.replace("\r\n", "\n").replace("\r", "\n")
        return f"'{text}" if text.startswith(_BEGIN_FORMULAS) else text
    return json.dumps(value) if isinstance(value, (bool, tuple)) else value
