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
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, Iterator, List

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SERVER = HERE.parent / "engine" / "server.py"
OURS, UNKEPT, PLAIN = "claude-force", "claude-force, no cache", "plain DBOS"
NAMES = (OURS, UNKEPT, PLAIN)
WORKERS = 2

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
    postgres = Postgres(fsync="on").create()
    try:
        with _server() as base_url:
            for number in range(rounds):
                for name in NAMES:
                    print(f"  round {number + 1}: {name}", file=sys.stderr, flush=True)
                    url = postgres.new_database()
                    found[name].append(one(name, url, base_url, rows, concurrency))
                    postgres.drop(url)
    finally:
        postgres.remove()
    return found


def one(name: str, url: str, base_url: str, rows: int, concurrency: int) -> Dict[str, float]:
    """One subject with workers and a driver of its own."""
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        environment = {
            **os.environ,
            "HOME": home,
            "PYTHONPATH": str(ROOT),
            "CLAUDE_CACHE_SECRET": "one for all processes",
            "DATABASE": url,
            "BASE_URL": base_url,
        }
        for number in range(WORKERS):
            words = ("worker", name, f"w{number + 1}", str(concurrency))
            stack.enter_context(_worker([sys.executable, str(HERE / "subjects.py"), *words], environment))
        done = subprocess.run(
            [
                sys.executable,
                str(HERE / "subjects.py"),
                "driver",
                name,
                str(rows),
                str(WORKERS * concurrency),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=900,
        )
    figures: Dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    if figures["answered"] != rows:
        raise SystemExit(f"{name} answered {figures['answered']:,.0f} of {rows:,} rows")
    return figures


@contextmanager
def _worker(command: List[str], environment: Dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("a worker did not start")
        try:
            yield
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
    yield f"{conditions['rows']:,} rows, {WORKERS} workers with {at_once} requests at a time each,"
    yield f"medians of {conditions['rounds']} rounds (lowest to highest)."
    yield from ("", "| | rows/s | ms a row | one call alone, ms | times as fast as plain DBOS |")
    yield "|---|---|---|---|---|"
    for name, rounds in found.items():
        speed = spread([one["rows_per_second"] for one in rounds], "{:,.0f}")
        each = spread([1000 / one["rows_per_second"] for one in rounds], "{:.2f}")
        alone = spread([one["alone_ms"] for one in rounds], "{:.0f}")
        yield f"| {name} | {speed} | {each} | {alone} | {ratio(found, name)} |"


_INTRODUCTION = (
    "`make bench-durable`: two workers, a driver, the server and Postgres (fsync on) share the machine.",
    "The server answers at once, with 1,500 characters, so that all of the time is the work around a",
    "call. claude-force keeps each call, result and answer in the database, paces all workers together",
    "and keeps the driver's ledger. Plain DBOS is a workflow with one step that makes the same request by",
    "the SDK, on a queue with the same settings; its driver enqueues from 16 threads and polls for the",
    "outcomes of all rows at once. One call alone is the time from `execute_agent` (or `enqueue`) to its",
    "answer with nothing else under way.",
)


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
