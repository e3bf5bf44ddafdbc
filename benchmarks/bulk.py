"""Memory and speed of a long bulk run: nothing grows with the number of rows, and the ledger costs little.

The server answers at once, so that the engine's own work is what is measured; answers are not cached, because
a cache is meant to fill. The client is a process of its own:
`python -m benchmarks.bulk ROWS URL long|in-turn`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from claude_force import AsyncAgentOrchestrator
from claude_force.performance_tracker import PerformanceTracker

from .part import Found, Goal, Part, ratios, table
from .processes import SERVER, answered, say, served
from .used import project, resident_bytes

ROWS, CONCURRENT = 100_000, 500
# Long enough for several full garbage collections, one of which is a third of 500 rows' time.
PAIRS, BLOCK = 15, 2_000
FIRST = 1_000
MOST_GROWTH_MB, LEAST_SPEED, MOST_OF_LEDGER = 50.0, 0.9, 0.03


def measure() -> Found:
    with served(str(SERVER)) as base_url:
        say(f"{ROWS:,} rows")
        long = answered("-m", "benchmarks.bulk", str(ROWS), base_url, "long")
        say(f"{PAIRS} times {BLOCK} rows with the ledger and without")
        turns = answered("-m", "benchmarks.bulk", str(BLOCK), base_url, "in-turn")
    return {"rows": ROWS, "concurrent": CONCURRENT, "long": long, "block": BLOCK, **turns}


def page(found: Found) -> Iterator[str]:
    long = found["long"]
    yield f"{found['rows']:,} rows, {found['concurrent']} at a time; {long['failed']} failed."
    heads = ("rows", "rows/s", "CPU ms a row", "resident MB")
    rows = [
        (f"{one['rows']:,}", f"{one['speed']:,.0f}", f"{one['cpu_ms']:.2f}", f"{one['mb']:.1f}")
        for one in long["marks"]
    ]
    yield from ("", *table(heads, rows), "")
    low, middle, high = statistics.quantiles(ratios(found["ledger"], found["none"]), n=4)
    yield (
        f"Processor time with the ledger, to that without it, {len(found['none'])} times {found['block']:,} "
        f"rows in turn in one process: {middle:.3f} (quartiles {low:.3f} and {high:.3f}). Of that the thread "
        f"that makes the lines and writes them takes {found['writing_us']:.0f} us a row by its own clock."
    )


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
    text = f"the ledger at most {MOST_OF_LEDGER:.0%} of the CPU"
    yield Goal(text, f"{cost:.1%}", cost <= MOST_OF_LEDGER, why(found))


def why(found: Found) -> str:
    row = statistics.median(found["none"]) * 1000
    return (
        f"making a line of JSON and writing it takes {found['writing_us']:.0f} us by its thread's own clock, "
        f"{found['writing_us'] / row:.1%} of the {row:.0f} us that a row takes without; the rest is spent "
        "beside that thread: handing over, waking it, and taking turns with it."
    )


PART = Part("bulk", "A long bulk run", measure, page, goals)


def tasks(rows: int, mark: str = "Task") -> Iterator[Tuple[str, str]]:
    return (("expert", f"{mark} {number} ".ljust(400, "x")) for number in range(rows))


def fleet(base_url: str, folder: Path) -> AsyncAgentOrchestrator:
    return AsyncAgentOrchestrator(
        project(folder), api_key="none", base_url=base_url, max_concurrent=CONCURRENT, stream=False
    )


async def run(rows: int, base_url: str, folder: Path) -> Dict[str, Any]:
    async with fleet(base_url, folder) as running:
        done = failed = before = 0
        steps = {FIRST, *range(rows // 10, rows + 1, rows // 10)}
        marks: List[Dict[str, float]] = []
        last, busy = time.perf_counter(), time.process_time()
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
    return {"failed": failed, "marks": marks}


async def in_turn(rows: int, base_url: str, folder: Path) -> Dict[str, Any]:
    """Milliseconds of CPU a row with the ledger and without, in one process: two of them differ by more than
    the ledger takes."""
    found: Dict[str, List[float]] = {"ledger": [], "none": []}
    async with fleet(base_url, folder) as running:
        writing = own_time(running.tracker)
        await block(running, rows, "warm")
        for number in range(PAIRS):
            for kept in (True, False) if number % 2 else (False, True):
                running.enable_tracking = kept
                found["ledger" if kept else "none"].append(await block(running, rows, f"{number} {kept}"))
    written = rows * (PAIRS + 1)
    return {**found, "writing_us": sum(writing) / written * 1e6}


async def block(running: AsyncAgentOrchestrator, rows: int, mark: str) -> float:
    began = time.process_time()
    async for result in running.stream_multiple(tasks(rows, mark), cache="off"):
        assert result.success
    running.tracker.flush()
    return (time.process_time() - began) / rows * 1000


def own_time(tracker: PerformanceTracker) -> List[float]:
    """Seconds of its thread for each batch that is made and written."""
    spent: List[float] = []
    original: Callable[[List[Any]], None] = tracker._write

    def timed(batch: List[Any]) -> None:
        began = time.thread_time()
        original(batch)
        spent.append(time.thread_time() - began)

    vars(tracker)["_write"] = timed
    return spent


def main() -> None:
    rows, base_url, what = sys.argv[1:]
    work = run if what == "long" else in_turn
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(work(int(rows), base_url, Path(folder)))))


if __name__ == "__main__":
    main()
