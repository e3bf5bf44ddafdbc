"""For how much of its time a fleet had as many attempts on the wire as it might have. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Dict, Iterable, List, Optional, Tuple

from .decoder import ExecutionRow

# Attempts are swept in the order of time, and lines come in the order in which executions ended. So many
# attempts are kept back until those that began before them have ended too; what ends still later counts only
# from there on.
MOST_KEPT_BACK = 100_000
MOST_RUNS = 1000


class TimeAtConcurrencyLimit:
    """Sums over all runs; each has a limit of its own.

    Attributes:
        busy: seconds with any attempt on the wire.
        full: seconds of these with as many as the limit that held when the newest of them began.
    """

    def __init__(self) -> None:
        self.busy = self.full = 0.0
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._kept_back = 0

    def share(self) -> Optional[float]:
        """0 to 1; None where no attempt is known. Settles all that was kept back."""
        for run in self._runs.values():
            self._settle(run, None)
        return self.full / self.busy if self.busy else None

    def add(self, rows: Iterable[ExecutionRow]) -> None:
        """Takes their attempts in."""
        for name, their in _by_run(rows).items():
            run = self._run(name)
            before = len(run.ends)
            for row in their:
                began = row["ended"] - row.get("execution_time_ms", 0) / 1000
                for first, last, limit, _ in row["timeline"]:
                    run.begins.append((began + first / 1000, limit))
                    run.ends.append(began + last / 1000)
            self._kept_back += len(run.ends) - before
        if self._kept_back > MOST_KEPT_BACK:
            for run in self._runs.values():
                self._settle(run, run.middle())

    def merge(self, other: TimeAtConcurrencyLimit) -> None:
        """Adds what `other` has; it is settled by that."""
        other.share()
        self.busy += other.busy
        self.full += other.full

    def _run(self, name: str) -> _Run:
        run = self._runs.get(name)
        if run is None:
            run = self._runs[name] = _Run()
            if len(self._runs) > MOST_RUNS:
                _, longest_quiet = self._runs.popitem(last=False)
                self._settle(longest_quiet, None)
        else:
            self._runs.move_to_end(name)
        return run

    def _settle(self, run: _Run, until: Optional[float]) -> None:
        before = len(run.ends)
        busy, full = run.settle(until)
        self._kept_back -= before - len(run.ends)
        self.busy += busy
        self.full += full


def _by_run(rows: Iterable[ExecutionRow]) -> Dict[str, List[ExecutionRow]]:
    runs: Dict[str, List[ExecutionRow]] = {}
    for row in rows:
        if "timeline" in row:
            runs.setdefault(row.get("run") or "", []).append(row)
    return runs


class _Run:
    """The attempts of one run: what is not settled yet, and how it stood at the moment up to which all is."""

    def __init__(self) -> None:
        self.begins: List[Tuple[float, int]] = []
        self.ends: List[float] = []
        self._on_wire = self._limit = 0
        self._settled = float("-inf")

    def middle(self) -> float:
        return sorted(self.ends)[len(self.ends) // 2] if self.ends else self._settled

    def settle(self, until: Optional[float]) -> Tuple[float, float]:
        """Seconds busy and seconds full since the last time, up to `until`; None for all that is left."""
        begins, ends = sorted(self.begins), sorted(self.ends)
        busy = full = 0.0
        now, on_wire, limit, next_begin, next_end = self._settled, self._on_wire, self._limit, 0, 0
        while next_end < len(ends) and (until is None or ends[next_end] <= until):
            # At one moment an end goes first: the room that it leaves is taken by the next.
            starts = next_begin < len(begins) and begins[next_begin][0] < ends[next_end]
            moment = max(now, begins[next_begin][0] if starts else ends[next_end])
            if on_wire > 0:
                busy += moment - now
                if on_wire >= limit:
                    full += moment - now
            if starts:
                on_wire, limit, next_begin = on_wire + 1, begins[next_begin][1], next_begin + 1
            else:
                on_wire, next_end = on_wire - 1, next_end + 1
            now = moment
        self.begins, self.ends = begins[next_begin:], ends[next_end:]
        self._settled, self._on_wire, self._limit = now, on_wire, limit
        return busy, full
