"""Memory and speed of a long bulk run: nothing grows with the number of rows.

    python benchmarks/bulk.py [--rows 100000] [--concurrent 500]

Prints rows a second, processor time a row and resident memory as the run goes. To be reached: memory at
the end within 50 MB of that at row 1,000, and the last tenth of the rows at no less than 0.9 of the
speed of the first; on a machine that others use, the processor time tells more. The server answers at
once, so that the engine's own work is what is measured; answers are not cached, because a cache is meant
to fill.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator, List, Tuple

from claude_force import AsyncAgentOrchestrator

SERVER = Path(__file__).resolve().parent / "engine" / "server.py"
FIRST = 1_000


def resident_mb() -> float:
    """Now, not at its highest (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def tasks(rows: int) -> Iterator[Tuple[str, str]]:
    return (("expert", f"Task {number} ".ljust(400, "x")) for number in range(rows))


async def run(base_url: str, rows: int, concurrent: int, config: str) -> None:
    async with AsyncAgentOrchestrator(
        config, api_key="none", base_url=base_url, max_concurrent=concurrent, stream=False
    ) as running:
        done, failed, began, at_first = 0, 0, time.perf_counter(), 0.0
        marks = {FIRST, *range(rows // 10, rows + 1, rows // 10)}
        last, before = began, 0
        rates: List[float] = []
        work: List[float] = []
        busy = time.process_time()
        async for result in running.stream_multiple(tasks(rows), cache="off"):
            done += 1
            failed += not result.success
            if done in marks:
                now = time.perf_counter()
                at_first = resident_mb() if done == FIRST else at_first
                rates.append((done - before) / (now - last))
                work.append((time.process_time() - busy) / (done - before) * 1000)
                print(
                    f"{done:>8,} rows: {rates[-1]:6,.0f} rows/s, {work[-1]:5.2f} ms CPU a row, "
                    f"{resident_mb():6.1f} MB",
                    flush=True,
                )
                last, before, busy = now, done, time.process_time()
        print(f"{failed} failed; memory since row {FIRST:,}: {resident_mb() - at_first:+.1f} MB")
        # The first thousand rows have the imports and the connections in them.
        faster, dearer = rates[-1] / rates[1], work[-1] / work[1]
        print(f"last tenth / first: rows a second {faster:.2f}, CPU a row {dearer:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A long bulk run.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--concurrent", type=int, default=500)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"{options.rows:,} rows, {options.concurrent} at a time")
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base_url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        with tempfile.TemporaryDirectory() as folder:
            agents = Path(folder, ".claude", "agents")
            agents.mkdir(parents=True)
            (agents / "expert.md").write_text(
                "---\nname: expert\nmodel: sonnet\n---\nYou help.", encoding="utf-8"
            )
            asyncio.run(run(base_url, options.rows, options.concurrent, str(agents.parent)))
        assert server.stdin is not None
        server.stdin.close()


if __name__ == "__main__":
    main()
