"""Which executions a report shows: of a run or of a span of time, the newest where there are too many."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Deque, Dict, Iterator, List, Optional, Tuple

from ..errors import InvalidOptionError
from ..formatting import pluralize
from ..ledger.entry import ExecutionRow
from ..ledger.reader import ALL_TIME, LedgerReader, TimeRange
from .text import moment

LAST = "last"
# About 8 MB of page, and what a browser still sorts and filters at once.
MOST_ROWS = 100_000
_SHOWN_RUNS = 5


@dataclass(frozen=True)
class Selection:
    """Executions for a report.

    Attributes:
        scope: which these are, in words.
        found: how many there were; `rows` are the newest of them.
        skipped: lines of the ledger that are no execution.
    """

    rows: List[ExecutionRow]
    scope: str
    found: int
    skipped: int


def select(
    folder: Path, run: Optional[str] = None, window: TimeRange = ALL_TIME, most: int = MOST_ROWS
) -> Selection:
    """Reads the ledger in `folder`.

    Args:
        run: the name of a run, LAST for the one that ended last, None for all.

    Raises:
        InvalidOptionError: a run of that name is not there.
        OSError: a file that is there can't be read.
    """
    wanted = _wanted(folder, run, window) if run else None
    reading, found = LedgerReader(folder, window), 0
    newest: Deque[ExecutionRow] = deque(maxlen=most)
    for row in _rows(reading):
        if wanted is None or row.get("run") == wanted:
            newest.append(row)
            found += 1
    scope = f"Run {wanted}" if wanted else "All executions"
    if found > most:
        scope += f" (the newest {most:,} of {found:,})"
    return Selection(list(newest), scope + _bounds(window), found, reading.skipped)


def _rows(reading: LedgerReader) -> Iterator[ExecutionRow]:
    for block in reading.batches():
        yield from block


def _wanted(folder: Path, run: str, window: TimeRange) -> Optional[str]:
    """The run's name; None where the last execution has none, as in the older format, or there is none."""
    ends: Dict[Optional[str], float] = {}
    for row in _rows(LedgerReader(folder, window)):
        name = row.get("run")
        ends[name] = max(row["ended"], ends.get(name, 0.0))
    if run == LAST:
        return max(ends, key=lambda name: ends[name], default=None)
    if run not in ends:
        raise InvalidOptionError(f"There is no run {run!r} in {folder}. {_known(ends)}")
    return run


def _known(ends: Dict[Optional[str], float]) -> str:
    named: List[Tuple[float, str]] = sorted(((end, name) for name, end in ends.items() if name), reverse=True)
    if not named:
        return "No run is recorded there yet."
    shown = ", ".join(f"{name} (ended {moment(end)} UTC)" for end, name in named[:_SHOWN_RUNS])
    more = f" and {pluralize(len(named) - _SHOWN_RUNS, 'older one')}" if len(named) > _SHOWN_RUNS else ""
    return f"The last are {shown}{more}."


def _bounds(window: TimeRange) -> str:
    since = f" from {moment(window.since)} UTC on" if window.since is not None else ""
    until = f" before {moment(window.until)} UTC" if window.until is not None else ""
    return since + until
