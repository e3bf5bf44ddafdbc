"""Promises about calls: concurrent against sequential, cached against fresh, and how many fail."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Dict, Iterator, List, Tuple

from claude_force import AsyncAgentOrchestrator
from claude_force.testing import MessagesServer, faults

from ..part import spread
from .claim import Claim, within

ROUNDS = 5
AGENTS = ("reader", "writer", "checker")
# A short answer of a quick model: half a second until it begins, 80 tokens a second.
MODEL = ("--time-to-first-token", "0.5", "--tokens-per-second", "80", "--output-tokens", "120")
MODEL_TEXT = "0.5 s until an answer begins, 120 tokens at 80 a second"

Pair = Tuple[str, str]


async def measured() -> List[Claim]:
    with tempfile.TemporaryDirectory() as folder, model() as base_url:
        project = write_project(Path(folder))
        async with AsyncAgentOrchestrator(project, api_key="none", base_url=base_url) as orchestrator:
            await timed(orchestrator, [("reader", "warm up")])
            found = [*await at_once(orchestrator), await kept(orchestrator)]
        return [*found, *await workload(project), *await healthy(project)]


def write_project(folder: Path) -> Path:
    agents = folder / ".claude" / "agents"
    agents.mkdir(parents=True)
    for name in AGENTS:
        (agents / f"{name}.md").write_text(f"---\nname: {name}\n---\nYou are a {name}.\n", encoding="utf-8")
    return folder / ".claude"


@contextmanager
def model() -> Iterator[str]:
    """The stand-in as a process, answering at the pace of a model."""
    command = [sys.executable, "-m", "claude_force.testing", "--port", "0", *MODEL]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(word for word in process.stdout.readline().split() if word.startswith("http"))
    finally:
        process.terminate()
        process.wait()


async def timed(orchestrator: AsyncAgentOrchestrator, tasks: List[Pair], cache: str = "off") -> float:
    """Seconds for all of them."""
    began = time.perf_counter()
    results = await orchestrator.execute_multiple(tasks, cache=cache)
    took = time.perf_counter() - began
    failed = [result.errors for result in results if not result.success]
    if failed:
        raise SystemExit(f"a call failed: {failed[0]}")
    return took


def tasks(count: int, mark: str) -> List[Pair]:
    return [(AGENTS[number % 3], f"Task {number} of {mark}") for number in range(count)]


async def at_once(orchestrator: AsyncAgentOrchestrator) -> List[Claim]:
    """Three and ten agents, against one after the other."""
    faster: Dict[int, List[float]] = {3: [], 10: []}
    beside: List[float] = []
    for number in range(ROUNDS):
        for count, ratios in faster.items():
            in_turn = 0.0
            for one in tasks(count, f"round {number}"):
                in_turn += await timed(orchestrator, [one])
            together = await timed(orchestrator, tasks(count, f"round {number}"))
            ratios.append(in_turn / together)
            if count == 10:
                beside.append(together / (in_turn / 10))
    how = f"`execute_multiple`; {MODEL_TEXT}; {ROUNDS} rounds"
    return [
        Claim(
            "3 agents at once: 2 to 3 times as fast",
            f"{spread(faster[3])} times",
            median(faster[3]) >= 2,
            how,
        ),
        Claim(
            "10 agents at once: 15 to 35 s where one takes 4 to 12 s (about 3 times one)",
            f"{spread(beside)} times as long as one; {spread(faster[10], '{:.1f}')} times as fast as in turn",
            median(beside) <= 3,
            how,
        ),
    ]


async def kept(orchestrator: AsyncAgentOrchestrator) -> Claim:
    """The same question fresh and again."""
    ratios, hits = [], []
    for number in range(ROUNDS):
        question = [("reader", f"Question {number}")]
        fresh = await timed(orchestrator, question, cache="use")
        hit = await timed(orchestrator, question, cache="use")
        ratios.append(fresh / hit)
        hits.append(hit * 1000)
    return Claim(
        "A cached answer: 40 to 200 times as fast, under 50 ms",
        f"{spread(ratios, '{:,.0f}')} times, {spread(hits)} ms",
        median(ratios) >= 40 and max(hits) < 50,
        f"a whole call; fresh: {MODEL_TEXT}",
    )


async def workload(project: Path) -> List[Claim]:
    """What a cache saves where questions come again as they do in practice: a few often, most seldom."""
    chance, distinct, asked = Random(7), 1_000, 2_000
    weights = [1 / (rank + 1) for rank in range(distinct)]
    questions = chance.choices(range(distinct), weights, k=asked)
    with MessagesServer() as server:
        async with AsyncAgentOrchestrator(
            project, api_key="none", base_url=server.base_url, max_concurrent=50
        ) as orchestrator:
            results = await orchestrator.execute_multiple([("writer", f"Topic {one}") for one in questions])
        paid = sum(result.cost or 0.0 for result in results)
        saved = sum(result.saved_cost or 0.0 for result in results)
        assert len(server.requests) == len(set(questions))
    share, rate = saved / (saved + paid), 1 - len(set(questions)) / asked
    how = f"{asked:,} questions drawn from {distinct:,} by Zipf's law (exponent 1); figures of the results"
    return [
        Claim("Caching saves 30 to 50 % of the cost", f"{share:.0%}", within(share, 0.3, 0.5), how),
        Claim("Cache hit rate of 20 to 70 %", f"{rate:.0%}", within(rate, 0.2, 0.7), how),
    ]


async def healthy(project: Path) -> List[Claim]:
    """A service on which one request in fifty fails in passing, as on an ordinary day."""
    chance, calls = Random(11), 2_000
    plan = [faults.status(529) if chance.random() < 0.02 else None for _ in range(2 * calls)]
    with MessagesServer(faults=plan) as server:
        async with AsyncAgentOrchestrator(
            project, api_key="none", base_url=server.base_url, max_concurrent=50
        ) as orchestrator:
            results = await orchestrator.execute_multiple(tasks(calls, "an ordinary day"), cache="off")
        statuses = Counter(type(result.error).__name__ for result in results if not result.success)
        attempts = len(server.requests)
    failed, silent = sum(statuses.values()), statuses["SilenceError"]
    how = f"{calls:,} calls, {attempts - calls} requests answered 529, at random"
    return [
        Claim("Error rate below 1 %", f"{failed / calls:.2%}", failed / calls < 0.01, how),
        Claim("Timeout rate below 0.1 %", f"{silent / calls:.2%}", silent / calls < 0.001, how),
    ]


if __name__ == "__main__":
    print(*asyncio.run(measured()), sep="\n")
