"""Workflows on the stand-in: the wall time of a run beside its critical path.

Each step has an answer of its own length, so that it takes the server from 0.4 to 0.9 s. The critical path is
the longest sum of such times along the graph: no run can be faster. The server is a process of its own:
`python -m benchmarks.workflow`.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Tuple

from claude_force import AsyncAgentOrchestrator, Step, Workflow
from claude_force.testing import MessagesServer
from claude_force.workflow.graph import levels

from .part import Found, Goal, Part, ratios, spread, table
from .processes import say, served
from .used import project

FIRST_TOKEN_SECONDS, TOKENS_PER_SECOND, CHARACTERS_PER_TOKEN = 0.3, 400.0, 4
FEWEST_TOKENS, MOST_TOKENS = 40, 240
CONCURRENT, ROUNDS, GOAL = 30, 5, 1.10

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


def measure() -> Found:
    with served("-m", "benchmarks.workflow") as base_url:
        found = asyncio.run(measured(base_url))
    paths = {name: critical_path(needs) for name, needs in SHAPES.items()}
    return {"rounds": ROUNDS, "seconds": found, "paths": paths}


async def measured(base_url: str) -> Dict[str, List[float]]:
    """Seconds of each run, the shapes in turn within each round."""
    found: Dict[str, List[float]] = {name: [] for name in SHAPES}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncAgentOrchestrator(
            project(Path(folder)), api_key="none", base_url=base_url, max_concurrent=CONCURRENT
        ) as running:
            # Imports and connections are not what is measured.
            await running.execute_multiple([("expert", f"{one} warm") for one in range(CONCURRENT)])
            for number in range(ROUNDS):
                for name, needs in SHAPES.items():
                    say(f"round {number + 1}: {name}")
                    found[name].append(await one_run(running, name, needs))
    return found


async def one_run(running: AsyncAgentOrchestrator, name: str, needs: Needs) -> float:
    steps = [Step(step, "expert", task=f"{step}", dependencies=before) for step, before in needs.items()]
    began = time.perf_counter()
    result = await running.execute_workflow(Workflow(name, tuple(steps)), "Go", cache="off")
    if not result.success:
        raise SystemExit(f"{name} failed: {[step.reason for step in result.steps]}")
    return time.perf_counter() - began


def page(found: Found) -> Iterator[str]:
    shortest, longest = (
        FIRST_TOKEN_SECONDS + tokens / TOKENS_PER_SECOND for tokens in (FEWEST_TOKENS, MOST_TOKENS)
    )
    yield (
        f"Each step takes the stand-in from {shortest:.1f} to {longest:.1f} s, and its answer is streamed. "
        "The critical path is the longest sum of such times along the graph. The run's journal and the "
        f"ledger are written, the cache is off. {found['rounds']} rounds."
    )
    heads = ("graph", "steps", "one by one, s", "critical path, s", "run, s", "times the path")
    yield from (
        "",
        *table(heads, (row(name, times, found["paths"][name]) for name, times in found["seconds"].items())),
    )


def row(name: str, times: List[float], path: float) -> Tuple[str, ...]:
    needs = SHAPES[name]
    alone = sum(seconds_of(step) for step in needs)
    against = spread([seconds / path for seconds in times], "{:.3f}")
    return (name, str(len(needs)), f"{alone:.2f}", f"{path:.2f}", spread(times), against)


def goals(found: Found) -> Iterator[Goal]:
    for name, times in found["seconds"].items():
        against = ratios(times, [found["paths"][name]] * len(times))
        text = f"{name}: at most {GOAL:g} times its critical path"
        yield Goal(text, spread(against, "{:.3f}"), statistics.median(against) <= GOAL)


PART = Part("workflow", "Workflows beside their critical path", measure, page, goals)


if __name__ == "__main__":
    serve()
