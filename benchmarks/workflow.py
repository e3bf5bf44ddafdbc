"""Workflows on the stand-in: the wall time of a run beside its critical path.

    make bench-workflow           (or: python -m benchmarks.workflow [--rounds 5])

Each step has an answer of its own length, so that it takes the server from 0.4 to 0.9 s. The critical path is
the longest sum of such times along the graph: no run can be faster. Writes benchmarks/workflow.json and
benchmarks/workflow.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

from claude_force import AsyncAgentOrchestrator, Step, Workflow
from claude_force.testing import MessagesServer
from claude_force.workflow.order import levels

HERE = Path(__file__).resolve().parent
FIRST_TOKEN_SECONDS, TOKENS_PER_SECOND, CHARACTERS_PER_TOKEN = 0.3, 400.0, 4
FEWEST_TOKENS, MOST_TOKENS = 40, 240
CONCURRENT = 30
GOAL = 1.10

Needs = Dict[str, Tuple[str, ...]]


def chain(length: int) -> Needs:
    return {f"s{one}": (f"s{one - 1}",) if one else () for one in range(length)}


def fan_out(width: int) -> Needs:
    middle = {f"m{one}": ("first",) for one in range(width)}
    return {"first": (), **middle, "last": tuple(middle)}


def diamond() -> Needs:
    return {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def random_graph(size: int, seed: int) -> Needs:
    chance = random.Random(seed)
    return {
        f"s{one}": tuple(f"s{other}" for other in chance.sample(range(one), min(one, chance.randrange(4))))
        for one in range(size)
    }


SHAPES: Mapping[str, Needs] = {
    "chain of 8": chain(8),
    "1, then 20 at once, then 1": fan_out(20),
    "diamond": diamond(),
    "random, 30 steps": random_graph(30, 7),
}


def tokens_of(step: str) -> int:
    """The length of its answer, the same in each run."""
    return random.Random(step).randrange(FEWEST_TOKENS, MOST_TOKENS)


def seconds_of(step: str) -> float:
    return FIRST_TOKEN_SECONDS + tokens_of(step) / TOKENS_PER_SECOND


def critical_path(needs: Needs) -> float:
    """Seconds."""
    ends: Dict[str, float] = {}
    for level in levels(needs):
        for step in level:
            ends[step] = max((ends[one] for one in needs[step]), default=0.0) + seconds_of(step)
    return max(ends.values())


def serve() -> None:
    """In a process of its own, so that the server's work is not the engine's."""

    def answer(body: Dict[str, Any]) -> str:
        step = str(body["messages"][0]["content"]).rpartition(" ")[2]
        return "x" * CHARACTERS_PER_TOKEN * (tokens_of(step) if step != "warm" else 1)

    with MessagesServer(
        time_to_first_token=FIRST_TOKEN_SECONDS, tokens_per_second=TOKENS_PER_SECOND, answer=answer
    ) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


async def measured(base_url: str, rounds: int) -> Dict[str, List[float]]:
    """Seconds of each run, the shapes in turn within each round."""
    found: Dict[str, List[float]] = {name: [] for name in SHAPES}
    with tempfile.TemporaryDirectory() as folder:
        agents = Path(folder, ".claude", "agents")
        agents.mkdir(parents=True)  # noqa: ASYNC240
        (agents / "expert.md").write_text(
            "---\nname: expert\nmodel: sonnet\n---\nYou help.", encoding="utf-8"
        )
        async with AsyncAgentOrchestrator(
            agents.parent, api_key="none", base_url=base_url, max_concurrent=CONCURRENT
        ) as running:
            # Imports and connections are not what is measured.
            await running.execute_multiple([("expert", f"{one} warm") for one in range(CONCURRENT)])
            for number in range(rounds):
                for name, needs in SHAPES.items():
                    print(f"  round {number + 1}: {name}", file=sys.stderr, flush=True)
                    found[name].append(await one_run(running, name, needs))
    return found


async def one_run(running: AsyncAgentOrchestrator, name: str, needs: Needs) -> float:
    steps = [Step(step, "expert", task=f"{step}", dependencies=before) for step, before in needs.items()]
    began = time.perf_counter()
    result = await running.execute_workflow(Workflow(name, tuple(steps)), "Go", cache="off")
    if not result.success:
        raise SystemExit(f"{name} failed: {[step.reason for step in result.steps]}")
    return time.perf_counter() - began


def page_of(conditions: Dict[str, Any], found: Dict[str, List[float]]) -> List[str]:
    shortest, longest = (
        FIRST_TOKEN_SECONDS + tokens / TOKENS_PER_SECOND for tokens in (FEWEST_TOKENS, MOST_TOKENS)
    )
    lines = [
        "# Workflows beside their critical path",
        "",
        f"`make bench-workflow`: each step takes the stand-in from {shortest:.1f} to {longest:.1f} s, and",
        "its answer is streamed. The critical path is the longest sum of such times along the graph. The",
        "run's journal and the ledger are written, the cache is off.",
        "",
        f"{conditions['machine']}; load {conditions['load_before']:.1f} before.",
        f"Medians of {conditions['rounds']} rounds (lowest to highest); the goal is {GOAL:g} times the path.",
        "",
        "| graph | steps | one by one, s | critical path, s | run, s | times the path |",
        "|---|---|---|---|---|---|",
    ]
    for name, times in found.items():
        needs, path = SHAPES[name], critical_path(SHAPES[name])
        alone = sum(seconds_of(step) for step in needs)
        ratios = [seconds / path for seconds in times]
        figures = f"{alone:.2f} | {path:.2f} | {spread(times)} | {spread(ratios, 3)}"
        lines.append(f"| {name} | {len(needs)} | {figures} |")
    return lines


def spread(values: List[float], digits: int = 2) -> str:
    """The median, with the lowest and the highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> int:
    parser = argparse.ArgumentParser(description="The wall time of graphs beside their critical path.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help="be the server (used by this program itself)")
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    before = os.getloadavg()[0]
    command = [sys.executable, "-m", "benchmarks.workflow", "--serve"]
    with tempfile.TemporaryDirectory() as home, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    ) as server:
        os.environ["HOME"] = home
        assert server.stdout is not None
        assert server.stdin is not None
        found = asyncio.run(measured(server.stdout.readline().strip(), options.rounds))
        server.stdin.close()
    conditions = {
        "machine": f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        "load_before": before,
        "rounds": options.rounds,
    }
    kept = {
        **conditions,
        "seconds": found,
        "paths": {name: critical_path(one) for name, one in SHAPES.items()},
    }
    (HERE / "workflow.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    page = "\n".join(page_of(conditions, found)) + "\n"
    (HERE / "workflow.md").write_text(page, encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
