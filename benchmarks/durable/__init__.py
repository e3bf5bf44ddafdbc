"""Durable calls over workers on Postgres, beside plain DBOS that makes the same requests.

Two worker processes, a driver process and a Postgres of their own on one machine; a server on loopback
answers at once, so that what is left is the work around a call. The subjects take turns within each
round, each in a new database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

from ..part import Found, Part, ratios, spread, table
from ..processes import ROOT, SERVER, answered, say, served

HERE = Path(__file__).resolve().parent
OURS, UNKEPT, PLAIN = "claude-force", "claude-force, no cache", "plain DBOS"
NAMES = (OURS, UNKEPT, PLAIN)
WORKERS, CONCURRENCY, ROWS, ROUNDS = 2, 50, 1_000, 3
IDLE_SECONDS = 5.0

Rounds = Dict[str, List[Dict[str, float]]]


def measure() -> Found:
    """Every subject in every round. Raises CalledProcessError where one fails."""
    sys.path.insert(0, str(ROOT / "tests"))
    from postgres import Postgres

    found: Rounds = {name: [] for name in NAMES}
    postgres = Postgres(fsync=True).create()
    try:
        with served(str(SERVER)) as base_url:
            for number in range(ROUNDS):
                for name in NAMES:
                    say(f"round {number + 1}: {name}")
                    url = postgres.new_database()
                    found[name].append(one(name, Scales(postgres, url), base_url))
                    postgres.drop(url)
    finally:
        postgres.remove()
    return {"rows": ROWS, "workers": WORKERS, "concurrency": CONCURRENCY, "rounds": ROUNDS, "figures": found}


class Scales:
    """What a database has to bear, and the processor time of it and of the workers."""

    def __init__(self, postgres: Any, url: str) -> None:
        self._postgres, self.url = postgres, url
        self._workers: List[int] = []
        self._bytes = self._cpu = 0.0

    def begin(self, workers: List[int]) -> None:
        """When these processes are there and nothing has been asked yet."""
        self._workers = workers
        self._bytes = self._number("SELECT pg_database_size(current_database())")
        self._cpu = self._cpu_seconds(workers)

    def figures(self, rows: float) -> Dict[str, float]:
        """When `rows` have been made and the driver has gone."""
        made = self._cpu_seconds(self._workers) - self._cpu
        grown = self._number("SELECT pg_database_size(current_database())") - self._bytes
        return {"others_cpu_ms": made / rows * 1000, "bytes_per_row": grown / rows, **self._idle()}

    def _idle(self) -> Dict[str, float]:
        done = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        connected = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
        before, cpu = self._number(done), self._cpu_seconds()
        time.sleep(IDLE_SECONDS)
        return {
            "connections": self._number(connected) / WORKERS,
            "idle_transactions": (self._number(done) - before) / IDLE_SECONDS / WORKERS,
            "idle_cpu_ms": (self._cpu_seconds() - cpu) * 1000 / IDLE_SECONDS / WORKERS,
        }

    def _number(self, query: str) -> float:
        import psycopg

        with psycopg.connect(self.url) as connection:
            return float(connection.execute(query).fetchone()[0])

    def _cpu_seconds(self, workers: Sequence[int] = ()) -> float:
        """Of the workers, the database server and its backends, those that have ended among them (Linux)."""
        server = self._postgres.process.pid
        ticks = 0
        for place in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = place.read_text().rpartition(")")[2].split()
                if server == int(place.parent.name):
                    ticks += sum(int(one) for one in fields[11:15])
                elif server == int(fields[1]) or int(place.parent.name) in workers:
                    ticks += sum(int(one) for one in fields[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")


def one(name: str, scales: Scales, base_url: str) -> Dict[str, float]:
    """One subject with workers and a driver of its own."""
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        environment = {
            **os.environ,
            "HOME": home,
            "PYTHONPATH": str(ROOT),
            "CLAUDE_CACHE_SECRET": "one for all processes",
            "DATABASE": scales.url,
            "BASE_URL": base_url,
        }
        workers = []
        for number in range(WORKERS):
            words = ("worker", name, f"w{number + 1}", str(CONCURRENCY))
            command = [sys.executable, str(HERE / "subjects.py"), *words]
            workers.append(stack.enter_context(_worker(command, environment)))
        scales.begin(workers)
        driver = (str(HERE / "subjects.py"), "driver", name, str(ROWS))
        figures: Dict[str, float] = answered(*driver, environment=environment)
        figures.update(scales.figures(figures["made"]))
    if figures["answered"] != ROWS:
        raise SystemExit(f"{name} answered {figures['answered']:,.0f} of {ROWS:,} rows")
    return figures


@contextmanager
def _worker(command: List[str], environment: Dict[str, str]) -> Iterator[int]:
    """Its process id, once it takes calls."""
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("a worker did not start")
        try:
            yield process.pid
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def page(found: Found) -> Iterator[str]:
    figures: Rounds = found["figures"]
    yield INTRODUCTION
    yield (
        f"{found['rows']:,} rows, {found['workers']} workers with {found['concurrency']} requests at a time "
        f"each, {found['rounds']} rounds."
    )
    heads = ("", "rows/s", "ms a row", "CPU ms a row", "one call alone, ms", "times as fast as plain DBOS")
    yield from ("", *table(heads, (row(figures, name) for name in NAMES)))
    yield from ("", "What the database has to bear for claude-force:", "")
    burden = (
        (what, spread([one[key] for one in figures[OURS]], form)) for key, (what, form) in _BURDEN.items()
    )
    yield from table(("", ""), burden)


def row(figures: Rounds, name: str) -> Sequence[str]:
    rounds = figures[name]
    speeds = {one: [each["rows_per_second"] for each in figures[one]] for one in (name, PLAIN)}
    return (
        name,
        spread(speeds[name], "{:,.0f}"),
        spread([1000 / speed for speed in speeds[name]]),
        spread([one["driver_cpu_ms"] + one["others_cpu_ms"] for one in rounds]),
        spread([one["alone_ms"] for one in rounds], "{:.0f}"),
        spread(ratios(speeds[name], speeds[PLAIN])) if name != PLAIN else "",
    )


INTRODUCTION = (
    "Two workers, a driver, the server and Postgres (fsync on) share the machine. The server answers at "
    "once, with 1,500 characters, so that all of the time is the work around a call. claude-force keeps "
    "each call, result and answer in the database, paces all workers together and keeps the driver's "
    "ledger. Plain DBOS is a workflow with one step that makes the same request by the SDK, on a queue "
    "with the same settings; its driver enqueues from 16 threads and polls for the outcomes of all rows at "
    "once. One call alone is the time from `execute_agent` (or `enqueue`) to its answer with nothing else "
    "under way. CPU time is that of driver, workers and Postgres together."
)


_BURDEN = {
    "bytes_per_row": ("bytes on its disk for a row, with queue, result and kept answer", "{:,.0f}"),
    "connections": ("connections of a worker", "{:,.1f}"),
    "idle_transactions": ("transactions a second of a worker that has nothing to do", "{:,.1f}"),
    "idle_cpu_ms": ("the server's processor time for that, ms a second", "{:,.1f}"),
}

PART = Part(
    "durable",
    "Durable calls on Postgres",
    measure,
    page,
    versions=("anthropic", "dbos", "sqlalchemy", "psycopg"),
)
