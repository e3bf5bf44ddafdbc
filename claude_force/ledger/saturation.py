"""Computes how long a fleet had as many attempts on the wire as its concurrency limit allows. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Dict, Iterable, List, Optional, Tuple

from .entry import ExecutionRow

# Attempts are swept in the order of their times, but lines come in the order in which executions ended. Up to
# so many attempts are buffered until those that began earlier have ended too; an attempt that ends even later
# counts only from the swept time on.
MAX_BUFFERED_ATTEMPTS = 100_000
# Of so many runs the state is held; the least recent run beyond it is swept.
MAX_RUNS = 1000


class TimeAtConcurrencyLimit:
    """Adds up the time of all runs, each with its own concurrency limit.

    Attributes:
        busy: seconds with any attempt on the wire.
        full: seconds of `busy` with as many attempts as the limit that held when the newest of them began.
    """

    def __init__(self, max_buffered: int = MAX_BUFFERED_ATTEMPTS, max_runs: int = MAX_RUNS) -> None:
        self._max_buffered, self._max_runs = max_buffered, max_runs
        self.busy = self.full = 0.0
        self._runs: OrderedDict[str, _RunSweep] = OrderedDict()
        self._buffered = 0

    def share(self) -> Optional[float]:
        """Returns `full / busy` after sweeping all buffered attempts; None without attempts."""
        for run in self._runs.values():
            self._sweep(run, None)
        return self.full / self.busy if self.busy else None

    def add(self, rows: Iterable[ExecutionRow]) -> None:
        """Adds the attempts of these executions."""
        for name, members in _by_run(rows).items():
            run = self._run(name)
            before = len(run.ends)
            for row in members:
                began = row["ended"] - row.get("execution_time_ms", 0) / 1000
                for start, end, limit, _ in row["timeline"]:
                    run.starts.append((began + start / 1000, limit))
                    run.ends.append(began + end / 1000)
            self._buffered += len(run.ends) - before
        if self._buffered > self._max_buffered:
            for run in self._runs.values():
                self._sweep(run, run.median_end())

    def _run(self, name: str) -> _RunSweep:
        run = self._runs.get(name)
        if run is None:
            run = self._runs[name] = _RunSweep()
            if len(self._runs) > self._max_runs:
                _, least_recent = self._runs.popitem(last=False)
                self._sweep(least_recent, None)
        else:
            self._runs.move_to_end(name)
        return run

    def _sweep(self, run: _RunSweep, until: Optional[float]) -> None:
        before = len(run.ends)
        busy, full = run.sweep(until)
        self._buffered -= before - len(run.ends)
        self.busy += busy
        self.full += full


def _by_run(rows: Iterable[ExecutionRow]) -> Dict[str, List[ExecutionRow]]:
    runs: Dict[str, List[ExecutionRow]] = {}
    for row in rows:
        if "timeline" in row:
            runs.setdefault(row.get("run") or "", []).append(row)
    return runs


class _RunSweep:
    """The buffered attempts of one run, and its state at the time up to which it is swept."""

    def __init__(self) -> None:
        self.starts: List[Tuple[float, int]] = []
        self.ends: List[float] = []
        self._on_wire = self._limit = 0
        self._swept_until = float("-inf")

    def median_end(self) -> float:
        return sorted(self.ends)[len(self.ends) // 2] if self.ends else self._swept_until

    def sweep(self, until: Optional[float]) -> Tuple[float, float]:
        """Returns busy and full seconds since the last sweep, up to `until`; None for all attempts."""
        starts, ends = sorted(self.starts), sorted(self.ends)
        busy = full = 0.0
        now, on_wire, limit, next_start, next_end = self._swept_until, self._on_wire, self._limit, 0, 0
        while next_end < len(ends) and (until is None or ends[next_end] <= until):
            # At equal times an end comes first: the next attempt takes its slot.
            is_start = next_start < len(starts) and starts[next_start][0] < ends[next_end]
            event = max(now, starts[next_start][0] if is_start else ends[next_end])
            if on_wire > 0:
                busy += event - now
                if on_wire >= limit:
                    full += event - now
            if is_start:
                on_wire, limit, next_start = on_wire + 1, starts[next_start][1], next_start + 1
            else:
                on_wire, next_end = on_wire - 1, next_end + 1
            now = event
        self.starts, self.ends = starts[next_start:], ends[next_end:]
        self._swept_until, self._on_wire, self._limit = now, on_wire, limit
        return busy, full
