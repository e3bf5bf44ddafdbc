"""Memory and speed of a long bulk run: nothing grows with the number of rows, and the ledger costs little.

The server answers at once, so that the engine's own work is what is measured; answers are not cached, because
a cache is meant to fill. The client is a process of its own:
`python -m benchmarks.bulk ROWS URL ledger|none`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from .part import Found, Goal, Part, ratios, spread, table
from .processes import SERVER, answered, say, served
from .used import project, resident_bytes

ROWS, FEWER, CONCURRENT, ROUNDS = 100_000, 10_000, 500, 5
FIRST = 1_000
MOST_GROWTH_MB, LEAST_SPEED, MOST_OF_LEDGER = 50.0, 0.9, 0.03


def measure() -> Found:
    with served(str(SERVER)) as base_url:
        say(f"{ROWS:,} rows")
        long = client(ROWS, base_url, "ledger")
        with_ledger, without = [], []
        for number in range(ROUNDS):
            say(f"round {number + 1} of {FEWER:,} rows, with the ledger and without")
            with_ledger.append(client(FEWER, base_url, "ledger")["cpu_ms"])
            without.append(client(FEWER, base_url, "none")["cpu_ms"])
    return {"rows": ROWS, "concurrent": CONCURRENT, "long": long, "ledger": with_ledger, "none": without}


def client(rows: int, base_url: str, ledger: str) -> Dict[str, Any]:
    return answered("-m", "benchmarks.bulk", str(rows), base_url, ledger)


def page(found: Found) -> Iterator[str]:
    long = found["long"]
    yield f"{found['rows']:,} rows, {found['concurrent']} at a time; {long['failed']} failed."
    heads = ("rows", "rows/s", "CPU ms a row", "resident MB")
    rows = [
        (f"{one['rows']:,}", f"{one['speed']:,.0f}", f"{one['cpu_ms']:.2f}", f"{one['mb']:.1f}")
        for one in long["marks"]
    ]
    yield from ("", *table(heads, rows), "")
    cost = spread(ratios(found["ledger"], found["none"]), "{:.3f}")
    yield f"Processor time with the ledger, to that without it, {FEWER:,} rows in turn: {cost}."


def goals(found: Found) -> Iterator[Goal]:
    marks = found["long"]["marks"]
    grown = marks[-1]["mb"] - marks[0]["mb"]
    # The first thousand rows have the imports and the connections in them.
    speed = marks[-1]["speed"] / marks[1]["speed"]
    cost = statistics.median(ratios(found["ledger"], found["none"])) - 1
    yield Goal(
        f"memory within {MOST_GROWTH_MB:g} MB of that at row {FIRST:,}",
        f"{grown:+.1f} MB",
        grown < MOST_GROWTH_MB,
    )
    text = f"rows a second of the last tenth at least {LEAST_SPEED:g} of the first"
    yield Goal(text, f"{speed:.2f}", speed >= LEAST_SPEED)
    yield Goal(f"the ledger at most {MOST_OF_LEDGER:.0%} of the CPU", f"{cost:.1%}", cost <= MOST_OF_LEDGER)


PART = Part("bulk", "A long bulk run", measure, page, goals)


def tasks(rows: int) -> Iterator[Tuple[str, str]]:
    return (("expert", f"Task {number} ".ljust(400, "x")) for number in range(rows))


async def run(rows: int, base_url: str, ledger: bool, folder: Path) -> Dict[str, Any]:
    from claude_force import AsyncAgentOrchestrator

    async with AsyncAgentOrchestrator(
        project(folder),
        api_key="none",
        base_url=base_url,
        max_concurrent=CONCURRENT,
        stream=False,
        enable_tracking=ledger,
    ) as running:
        done = failed = before = 0
        steps = {FIRST, *range(rows // 10, rows + 1, rows // 10)}
        marks: List[Dict[str, float]] = []
        last, busy = time.perf_counter(), time.process_time()
        first_busy = busy
        async for result in running.stream_multiple(tasks(rows), cache="off"):
            done += 1
            failed += not result.success
            if done in steps:
                now, cpu = time.perf_counter(), time.process_time()
                each = {
                    "speed": (done - before) / (now - last),
                    "cpu_ms": (cpu - busy) / (done - before) * 1000,
                }
                marks.append({"rows": done, **each, "mb": resident_bytes() / 2**20})
                last, before, busy = now, done, cpu
        whole = (time.process_time() - first_busy) / rows * 1000
    return {"failed": failed, "marks": marks, "cpu_ms": whole}


def main() -> None:
    rows, base_url, ledger = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(run(int(rows), base_url, ledger == "ledger", Path(folder)))))


if __name__ == "__main__":
    main()
