"""Durable calls over workers on Postgres, beside plain DBOS that makes the same requests.

    make bench-durable           (or: python -m benchmarks.durable [--rows 1500] [--rounds 5])

Two worker processes, a driver process and a Postgres of their own on one machine; a server on loopback
answers at once, so that what is left is the work around a call. The subjects take turns within each
round, each in a new database, so that the machine's speed cancels out of their ratio. Writes
benchmarks/durable.json and benchmarks/durable.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

import psycopg

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SERVER = HERE.parent / "engine" / "server.py"
OURS, UNKEPT, PLAIN = "claude-force", "claude-force, no cache", "plain DBOS"
NAMES = (OURS, UNKEPT, PLAIN)
WORKERS = 2
IDLE_SECONDS = 5.0

Rounds = Dict[str, List[Dict[str, float]]]

sys.path.insert(0, str(ROOT / "tests"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Rows a second through two workers on Postgres.")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--concurrency", type=int, default=50, help="of each worker")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    found = measured(options.rows, options.concurrency, options.rounds)
    conditions = {
        "machine": f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("dbos", "sqlalchemy", "psycopg", "anthropic")},
        "load_before": before,
        "rows": options.rows,
        "concurrency": options.concurrency,
        "rounds": options.rounds,
    }
    (HERE.parent / "durable.json").write_text(
        json.dumps({**conditions, "found": found}, indent=1) + "\n", encoding="utf-8"
    )
    page = "\n".join(page_of(conditions, found)) + "\n"
    (HERE.parent / "durable.md").write_text(page, encoding="utf-8")
    print(page)
    return 0


def measured(rows: int, concurrency: int, rounds: int) -> Rounds:
    """Every subject in every round. Raises CalledProcessError where one fails."""
    from postgres import Postgres

    found: Rounds = {name: [] for name in NAMES}
    postgres = Postgres(fsync=True).create()
    try:
        with _server() as base_url:
            for number in range(rounds):
                for name in NAMES:
                    print(f"  round {number + 1}: {name}", file=sys.stderr, flush=True)
                    url = postgres.new_database()
                    found[name].append(one(name, Scales(postgres, url), base_url, rows, concurrency))
                    postgres.drop(url)
    finally:
        postgres.remove()
    return found


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


def one(name: str, scales: Scales, base_url: str, rows: int, concurrency: int) -> Dict[str, float]:
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
            words = ("worker", name, f"w{number + 1}", str(concurrency))
            command = [sys.executable, str(HERE / "subjects.py"), *words]
            workers.append(stack.enter_context(_worker(command, environment)))
        scales.begin(workers)
        done = subprocess.run(
            [sys.executable, str(HERE / "subjects.py"), "driver", name, str(rows)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=900,
        )
        figures: Dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        figures.update(scales.figures(figures["made"]))
    if figures["answered"] != rows:
        raise SystemExit(f"{name} answered {figures['answered']:,.0f} of {rows:,} rows")
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


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.stdin.close()


def page_of(conditions: Dict[str, Any], found: Rounds) -> Iterator[str]:
    versions = ", ".join(f"{name} {text}" for name, text in conditions["versions"].items())
    yield from ("# Durable calls on Postgres", "", *_INTRODUCTION, "")
    yield f"{conditions['machine']}; {versions}; load {conditions['load_before']:.1f} before."
    at_once = conditions["concurrency"]
    yield f"{conditions['rows']:,} rows, {WORKERS} workers with {at_once} requests at a time each."
    yield f"Medians of {conditions['rounds']} rounds (lowest to highest)."
    heads = ("rows/s", "ms a row", "processor ms a row", "one call alone, ms", "times as fast as plain DBOS")
    yield from ("", f"| | {' | '.join(heads)} |", "|---|---|---|---|---|---|")
    for name, rounds in found.items():
        speed = spread([one["rows_per_second"] for one in rounds], "{:,.0f}")
        each = spread([1000 / one["rows_per_second"] for one in rounds], "{:.2f}")
        cpu = spread([one["driver_cpu_ms"] + one["others_cpu_ms"] for one in rounds], "{:.2f}")
        alone = spread([one["alone_ms"] for one in rounds], "{:.0f}")
        yield f"| {name} | {speed} | {each} | {cpu} | {alone} | {ratio(found, name)} |"
    yield from ("", "What the database has to bear for claude-force:", "", "| | |", "|---|---|")
    for key, (what, form) in _BURDEN.items():
        yield f"| {what} | {spread([one[key] for one in found[OURS]], form)} |"


_INTRODUCTION = (
    "`make bench-durable`: two workers, a driver, the server and Postgres (fsync on) share the machine.",
    "The server answers at once, with 1,500 characters, so that all of the time is the work around a",
    "call. claude-force keeps each call, result and answer in the database, paces all workers together",
    "and keeps the driver's ledger. Plain DBOS is a workflow with one step that makes the same request by",
    "the SDK, on a queue with the same settings; its driver enqueues from 16 threads and polls for the",
    "outcomes of all rows at once. One call alone is the time from `execute_agent` (or `enqueue`) to its",
    "answer with nothing else under way. Processor time is that of driver, workers and Postgres together:",
    "where others use the machine too, it tells more than rows a second.",
)


_BURDEN = {
    "bytes_per_row": ("bytes on its disk for a row, with queue, result and kept answer", "{:,.0f}"),
    "connections": ("connections of a worker", "{:,.1f}"),
    "idle_transactions": ("transactions a second of a worker that has nothing to do", "{:,.1f}"),
    "idle_cpu_ms": ("the server's processor time for that, ms a second", "{:,.1f}"),
}


def spread(values: List[float], form: str) -> str:
    """The median, with the lowest and the highest."""
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(statistics.median(values))} ({low} to {high})"


def ratio(found: Rounds, name: str) -> str:
    """Of rows a second, within each round."""
    if name == PLAIN:
        return ""
    key = "rows_per_second"
    return spread([ours[key] / plain[key] for ours, plain in zip(found[name], found[PLAIN])], "{:.2f}")


if __name__ == "__main__":
    sys.exit(main())
