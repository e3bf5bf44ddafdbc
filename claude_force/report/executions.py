"""Which executions a report shows, and groups of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Deque, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..errors import InvalidOptionError
from ..formatting import pluralize
from ..ledger.entry import Entry, ExecutionRow, to_entry
from ..ledger.metrics import UNKNOWN, Metrics, compute_metrics
from ..ledger.reader import LedgerReader
from ..ledger.turns import join_turns
from .html import format_time

LAST = "last"
# About 8 MB of HTML, which browsers still sort and filter at once.
MAX_ROWS = 100_000
_MAX_NAMED_RUNS = 5


@dataclass(frozen=True)
class Selection:
    """Executions for a report.

    Attributes:
        scope: a description of the selection.
        rows: the newest executions of it, at most `max_rows`.
        skipped: the number of lines of the ledger that could not be read.
    """

    rows: List[ExecutionRow]
    scope: str
    skipped: int


def select(
    folder: Path, run: Optional[str] = None, since: Optional[float] = None, max_rows: int = MAX_ROWS
) -> Selection:
    """Selects executions of the ledger in `folder`.

    Args:
        run: the id of a run, LAST for the one that ended last, None for all.
        since: Unix seconds; None for all.

    Raises:
        InvalidOptionError: there is no such run.
        OSError: a file of the ledger can't be read.
    """
    wanted = _find_run(folder, run, since) if run else None
    reader, found = LedgerReader(folder, since), 0
    newest: Deque[ExecutionRow] = deque(maxlen=max_rows)
    for row in _rows(reader):
        if wanted is None or row.get("run") == wanted:
            newest.append(row)
            found += 1
    scope = f"Run {wanted}" if wanted else "All executions"
    if found > max_rows:
        scope += f" (the newest {max_rows:,} of {found:,})"
    if since is not None:
        scope += f" since {format_time(since)} UTC"
    return Selection(list(newest), scope, reader.skipped)


def _rows(reader: LedgerReader) -> Iterator[ExecutionRow]:
    for batch in reader.batches():
        yield from batch


def _find_run(folder: Path, run: str, since: Optional[float]) -> Optional[str]:
    """Returns the id; None without executions, or if the last one has no run as in older formats."""
    ends: Dict[Optional[str], float] = {}
    for row in _rows(LedgerReader(folder, since)):
        name = row.get("run")
        ends[name] = max(row["ended"], ends.get(name, 0.0))
    if run == LAST:
        return max(ends, key=lambda name: ends[name], default=None)
    if run not in ends:
        raise InvalidOptionError(f"There is no run {run!r} in {folder}. {_known_runs(ends)}")
    return run


def _known_runs(ends: Dict[Optional[str], float]) -> str:
    named: List[Tuple[float, str]] = sorted(((end, name) for name, end in ends.items() if name), reverse=True)
    if not named:
        return "No run is recorded there yet."
    shown = ", ".join(f"{name} (ended {format_time(end)} UTC)" for end, name in named[:_MAX_NAMED_RUNS])
    older = len(named) - _MAX_NAMED_RUNS
    more = f" and {pluralize(older, 'older one')}" if older > 0 else ""
    return f"The last are {shown}{more}."


ANSWERED, FAILED, CACHED = "answered", "failed", "cached"


@dataclass(frozen=True)
class Execution:
    """An execution with all fields and with those that its line has; `began` and `ended` in Unix seconds."""

    entry: Entry
    row: ExecutionRow
    began: float
    ended: float

    @property
    def outcome(self) -> str:
        """FAILED, CACHED for a cached or shared answer, else ANSWERED."""
        if not self.entry.success:
            return FAILED
        return CACHED if self.entry.cached or self.entry.shared else ANSWERED


@dataclass(frozen=True)
class Group:
    """Executions and their metrics."""

    name: str
    executions: Sequence[Execution]
    metrics: Metrics


def executions_of(rows: Iterable[ExecutionRow]) -> List[Execution]:
    """Returns the executions by their start. One of an agent with tools has all its turns."""
    return sorted(map(_execution, join_turns(rows)), key=lambda execution: execution.began)


def _execution(row: ExecutionRow) -> Execution:
    # A wrong clock may write times before 1970: an axis from there would show nothing else.
    entry, ended = to_entry(row), max(0.0, row["ended"])
    return Execution(entry, row, max(0.0, ended - entry.execution_time_ms / 1000), ended)


def group_of(name: str, executions: Sequence[Execution]) -> Group:
    """Returns a group with the metrics of `executions`."""
    return Group(name, executions, compute_metrics([execution.row for execution in executions]))


def group_by(executions: Iterable[Execution], key: Callable[[Execution], Optional[str]]) -> List[Group]:
    """Returns a group for each value of `key`, by descending cost."""
    found: Dict[str, List[Execution]] = {}
    for execution in executions:
        found.setdefault(key(execution) or UNKNOWN, []).append(execution)
    groups = [group_of(name, members) for name, members in found.items()]
    return sorted(groups, key=lambda one: (-one.metrics.cost, -one.metrics.executions, one.name))
