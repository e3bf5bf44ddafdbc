"""Exports executions for other programs: a JSON array, or CSV with a header."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any, Callable, Iterable, TextIO

from ..errors import InvalidOptionError
from ..storage.output_paths import open_output
from .entry import FIELD_NAMES, Entry
from .rotating_log import is_ledger_file

# A spreadsheet computes a cell that begins with one of these; some treat the wide forms the same.
_FORMULA_STARTS = tuple("=+-@\t\n\uff1d\uff0b\uff0d\uff20")


def open_export(target: Path, folder: Path) -> TextIO:
    """Opens `target` for an export of the ledger in `folder`. Raises as `check_target`, and OSError."""
    check_target(target, folder)
    # A foreign line may hold half a surrogate pair, which must not end the export.
    return os.fdopen(open_output(target), "w", encoding="utf-8", errors="backslashreplace", newline="")


def check_target(target: Path, folder: Path) -> None:
    """Raises InvalidOptionError if writing to `target` would destroy the ledger in `folder`."""
    real = Path(os.path.realpath(str(target)))
    if is_ledger_file(real.name) and real.parent == Path(os.path.realpath(str(folder))):
        raise InvalidOptionError(f"{target} belongs to the ledger itself: choose another output file.")


def writer_of(format: str) -> Callable[[Iterable[Entry], TextIO], int]:
    """Returns `write_json` or `write_csv`. Raises InvalidOptionError for other formats."""
    if format not in _WRITERS:
        raise InvalidOptionError(f"Unknown format {format!r}; choose one of {', '.join(_WRITERS)}.")
    return _WRITERS[format]


def write_json(entries: Iterable[Entry], out: TextIO) -> int:
    """Writes an array with one object per line, all fields in each. Returns the number of entries."""
    written = 0
    for entry in entries:
        out.write((",\n" if written else "[\n") + json.dumps(entry.fields()))
        written += 1
    out.write("\n]\n" if written else "[]\n")
    return written


def write_csv(entries: Iterable[Entry], out: TextIO) -> int:
    """Writes a column per field: empty for None, JSON for booleans and `timeline`.

    An apostrophe precedes text that a spreadsheet would take for a formula. Returns the number of entries.
    """
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELD_NAMES)
    written = 0
    for entry in entries:
        fields = entry.fields()
        writer.writerow([_cell(fields[name]) for name in FIELD_NAMES])
        written += 1
    return written


_WRITERS = {"json": write_json, "csv": write_csv}


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        # Before Python 3.13 the csv module doesn't quote a carriage return, and readers end the row there.
        text = value.replace("\r\n", "\n").replace("\r", "\n")
        return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
    return json.dumps(value) if isinstance(value, (bool, tuple)) else value
