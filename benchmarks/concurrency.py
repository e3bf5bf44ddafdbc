"""Wall time of concurrent calls against the slowest of them and against one after the other.

    python benchmarks/concurrency.py [--rounds 5]

The stand-in server runs in a process of its own and answers as a model would: a pause, then tokens
at a pace. Figures are ratios, each the median of the rounds with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from claude_force import AsyncAgentOrchestrator

AGENTS = ("reader", "writer", "checker")


def write_project(folder: Path) -> Path:
    agents = folder / ".claude" / "agents"
    agents.mkdir(parents=True)
    for name in AGENTS:
        (agents / f"{name}.md").write_text(f"---\nname: {name}\n---\nYou are a {name}.\n", encoding="utf-8")
    return folder / ".claude"


async def timed(orchestrator: AsyncAgentOrchestrator, count: int) -> tuple[float, float, float]:
    """Seconds: `count` calls at once, the slowest of them, all of their durations together."""
    tasks = [(AGENTS[number % 3], f"Task {number}") for number in range(count)]
    started = time.perf_counter()
    results = await orchestrator.execute_multiple(tasks)
    wall = time.perf_counter() - started
    if not all(result.success for result in results):
        raise SystemExit(f"a call failed: {next(result.errors for result in results if not result.success)}")
    durations = [result.duration for result in results]
    return wall, max(durations), sum(durations)


async def measure(base_url: str, project: Path, rounds: int) -> dict[str, list[float]]:
    ratios: dict[str, list[float]] = {"ten / slowest of ten": [], "three / three in sequence": []}
    async with AsyncAgentOrchestrator(project, api_key="none", base_url=base_url) as orchestrator:
        await timed(orchestrator, 10)
        for _ in range(rounds):
            wall, slowest, _ = await timed(orchestrator, 10)
            ratios["ten / slowest of ten"].append(wall / slowest)
            started = time.perf_counter()
            for _ in range(3):
                await timed(orchestrator, 1)
            sequential = time.perf_counter() - started
            wall, _, _ = await timed(orchestrator, 3)
            ratios["three / three in sequence"].append(wall / sequential)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    command = [sys.executable, "-m", "claude_force.testing"]
    command += ["--time-to-first-token", "0.2", "--tokens-per-second", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            base_url = server.stdout.readline().split()[-1]
            with tempfile.TemporaryDirectory() as folder:
                ratios = asyncio.run(measure(base_url, write_project(Path(folder)), rounds))
        finally:
            server.terminate()
    print(f"{'ratio':28} {'median':>7} {'min':>7} {'max':>7}   of {rounds} rounds")
    for name, values in ratios.items():
        print(f"{name:28} {statistics.median(values):7.3f} {min(values):7.3f} {max(values):7.3f}")


if __name__ == "__main__":
    main()
