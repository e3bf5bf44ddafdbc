"""The engine beside the SDK, the clients that others build on it, and the bare limit.

Each subject lives in a process of its own and makes the same requests, all different, to a server that
answers at once or after 200 ms. The subjects take turns in each cell of the grid, the cells in each round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Tuple

from ..part import Found, Goal, Part, ratios, spread, table
from ..processes import ROOT, SERVER, say, served

OURS, LIMIT = "claude-force", "bare aiohttp"
NAMES = (OURS, "SDK, aiohttp", "SDK, default", "LiteLLM", "LangChain", "pydantic-ai", LIMIT)
# Requests a second of ours to theirs, plain, 500 at a time, answered at once.
GOALS = {"SDK, aiohttp": 0.85, "SDK, default": 1.8, "LiteLLM": 2.5, "LangChain": 3.0, "pydantic-ai": 6.0}
CHARACTERS = 1500
# By how many are under way at a time: requests that are measured, answered at once and after the delay.
REQUESTS: Mapping[int, Tuple[int, int]] = {
    3: (60, 9),
    10: (100, 30),
    100: (200, 200),
    500: (1000, 500),
    2000: (2000, 2000),
}
DELAY_MS = 200
MOST_WARM = 100


class Cell(NamedTuple):
    """One place of the grid."""

    streamed: bool
    delay_ms: int
    concurrent: int

    @property
    def name(self) -> str:
        """What its figures are kept under."""
        return f"{'streamed' if self.streamed else 'plain'}, {self.delay_ms} ms, {self.concurrent}"

    @property
    def requests(self) -> int:
        return REQUESTS[self.concurrent][1 if self.delay_ms else 0]

    @property
    def rounds(self) -> int:
        """The whole is to take ten minutes, of which the slower clients need most."""
        return 3 if self == HARDEST else 2 if self.concurrent < 2000 else 1

    @property
    def ideal(self) -> float:
        """Requests a second if all of the time were the server's."""
        batches = -(-self.requests // self.concurrent)
        return self.requests / (batches * self.delay_ms / 1000) if self.delay_ms else float("inf")


GRID = tuple(Cell(*one) for one in product((False, True), (0, DELAY_MS), REQUESTS))
HARDEST = Cell(False, 0, 500)


def measure() -> Found:
    found: Dict[str, Dict[str, List[Dict[str, float]]]] = {
        cell.name: {name: [] for name in NAMES} for cell in GRID
    }
    with served(str(SERVER)) as base_url, ExitStack() as stack:
        clients = {name: stack.enter_context(client(name)) for name in NAMES}
        for number, cell in product(range(max(cell.rounds for cell in GRID)), GRID):
            if number >= cell.rounds:
                continue
            say(f"round {number + 1}: {cell.name}")
            for name in NAMES:
                found[cell.name][name].append(one(name, clients[name], cell, base_url))
    return {"grid": found}


@contextmanager
def client(name: str) -> Iterator[subprocess.Popen[str]]:
    """Ends with its standard input."""
    with tempfile.TemporaryDirectory() as home, subprocess.Popen(
        [sys.executable, "-m", "benchmarks.calls.measure", name, home],
        cwd=str(ROOT),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()


def one(
    name: str, process: subprocess.Popen[str], cell: Cell, base_url: str, warm: int = MOST_WARM
) -> Dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    asked: Dict[str, Any] = {
        "base_url": f"{base_url}/{cell.delay_ms}",
        "concurrent": cell.concurrent,
        "streamed": cell.streamed,
        "requests": cell.requests,
        "warm": min(warm, 2 * cell.concurrent),
    }
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    figures: Dict[str, float] = json.loads(line) if line else {}
    if figures.get("characters") != cell.requests * CHARACTERS:
        raise SystemExit(f"{name} lost answers in {cell.name}: {figures}")
    return figures


def page(found: Found) -> Iterator[str]:
    grid = found["grid"]
    yield (
        f"Requests with 4,096 characters in and {CHARACTERS:,} out, at most so many at a time. For "
        "claude-force the cache is asked and filled, and pace, budget and ledger are on; the others only "
        f"send. Up to {MOST_WARM} connections are open before the clock starts."
    )
    rounds = len(grid[HARDEST.name][OURS])
    yield from ("", f"Plain, {HARDEST.concurrent} at a time, answered at once, {rounds} rounds:", "")
    yield from table(
        ("client", "requests/s", "CPU ms a request", "resident MB", "claude-force is as fast, times"),
        (summary(grid[HARDEST.name], name) for name in NAMES),
    )
    yield from ("", "How many times as fast claude-force is, over the grid:", "")
    heads = ("answers", "server takes", "at a time", "claude-force, requests/s", "of the ideal", *NAMES[1:])
    yield from table(heads, (row(cell, grid[cell.name]) for cell in GRID))
    yield ""
    yield "The ideal is that all of the time is the server's. A figure without a spread is of one round."


def summary(cell: Dict[str, List[Dict[str, float]]], name: str) -> Tuple[str, ...]:
    median = {key: statistics.median(one[key] for one in cell[name]) for key in cell[name][0]}
    speed = f"{median['requests_per_second']:,.0f}"
    faster = spread(speeds(cell, name)) if name != OURS else ""
    return (name, speed, f"{median['cpu_ms']:.2f}", f"{median['resident_mb']:.0f}", faster)


def row(cell: Cell, figures: Dict[str, List[Dict[str, float]]]) -> Tuple[str, ...]:
    mine = statistics.median(one["requests_per_second"] for one in figures[OURS])
    return (
        "streamed" if cell.streamed else "plain",
        f"{cell.delay_ms} ms",
        f"{cell.concurrent:,}",
        f"{mine:,.0f}",
        f"{mine / cell.ideal:.0%}" if cell.delay_ms else "",
        *(spread(speeds(figures, name)) for name in NAMES[1:]),
    )


def speeds(cell: Dict[str, List[Dict[str, float]]], name: str) -> List[float]:
    mine, theirs = ([one["requests_per_second"] for one in cell[who]] for who in (OURS, name))
    return ratios(mine, theirs)


def goals(found: Found) -> Iterator[Goal]:
    cell = found["grid"][HARDEST.name]
    for name, goal in GOALS.items():
        times = speeds(cell, name)
        text = f"{goal:g} times as fast as {name}; plain, {HARDEST.concurrent} at a time, answered at once"
        yield Goal(text, spread(times), statistics.median(times) >= goal)


PART = Part(
    "calls",
    "Calls beside the SDK and the frameworks",
    measure,
    page,
    goals,
    ("anthropic", "aiohttp", "litellm", "langchain-anthropic", "pydantic-ai-slim"),
)
