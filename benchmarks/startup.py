"""How long a whole command takes, in starts of the bare interpreter.

Each round runs every command once, so that a machine that is slow for a while is slow for all of them; the
processor's time is shown beside the clock's, because it hardly depends on what else runs. The answer that is
found in the cache comes from the stand-in server, and is asked for once before.

What is installed has its bytecode beside it; here it is kept in a temporary folder and made beforehand.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Dict, Iterator, List, Mapping, NamedTuple, Sequence

from claude_force.testing import MessagesServer

from .part import Found, Goal, Part, ratios, table
from .used import cpu_seconds

ROUNDS = 30
BARE, ARGPARSE, NEEDED = "python -c pass", "import argparse", "import argparse, json, sqlite3, hmac"
IMPORT, HELP, CACHED = "import claude_force", "--help", "run agent, cached"
CODE: Mapping[str, str] = {BARE: "pass", **{code: code for code in (ARGPARSE, NEEDED, IMPORT)}}
# What the installed command does.
COMMAND = "import sys; from claude_force.cli.main import main; sys.exit(main())"
ANSWER = ("run", "agent", "code-reviewer", "--task", "def f(): pass")
COMMANDS: Mapping[str, Sequence[str]] = {
    HELP: ("--help",),
    "list agents": ("list", "agents"),
    CACHED: ANSWER,
}
# A command, what it is compared with, and below how many times that.
GOALS = ((HELP, ARGPARSE, 2.5), (CACHED, BARE, 3.0))
WHY = (
    "what it can't do without are the imports of argparse, json, sqlite3 and hmac, alone {least} times "
    "bare Python; the rest is reading the agents, the configuration and the prices, and the signed "
    "look-up. It imports neither an SDK, asyncio, rich nor YAML, which a test makes sure of."
)


class Spent(NamedTuple):
    """Seconds of one process, by the clock and of the processor."""

    wall: float
    cpu: float


def measure() -> Found:
    with tempfile.TemporaryDirectory() as folder, MessagesServer() as server:
        project = Path(folder) / "project"
        project.mkdir()
        environment = surroundings(Path(folder), server.base_url)
        run(["init"], project, environment)
        run(ANSWER, project, environment)
        assert len(server.requests) == 1
        times = measured(project, environment)
        assert len(server.requests) == 1, "the answer did not come from the cache"
    return {"rounds": ROUNDS, "seconds": times}


def surroundings(folder: Path, base_url: str) -> Dict[str, str]:
    """An empty home, the stand-in's address, and bytecode that is kept."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment.update(
        HOME=str(folder),
        PYTHONPYCACHEPREFIX=str(folder / "bytecode"),
        PYTHONPATH=str(Path(__file__).resolve().parent.parent),
        ANTHROPIC_API_KEY="none",
        ANTHROPIC_BASE_URL=base_url,
    )
    return environment


def run(arguments: Sequence[str], project: Path, environment: Dict[str, str]) -> Spent:
    """One command, its output into a pipe."""
    return timed([sys.executable, "-c", COMMAND, *arguments], project, environment)


def timed(command: List[str], project: Path, environment: Dict[str, str]) -> Spent:
    began, used = time.perf_counter(), cpu_seconds(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=str(project), env=environment, capture_output=True, check=True)
    return Spent(time.perf_counter() - began, cpu_seconds(resource.RUSAGE_CHILDREN) - used)


def measured(project: Path, environment: Dict[str, str]) -> Dict[str, List[Spent]]:
    """What every command took in every round."""
    times: Dict[str, List[Spent]] = {name: [] for name in (*CODE, *COMMANDS)}
    for number in range(ROUNDS + 1):
        now = {name: timed([sys.executable, "-c", code], project, environment) for name, code in CODE.items()}
        now.update({name: run(arguments, project, environment) for name, arguments in COMMANDS.items()})
        # The first round makes the bytecode.
        if number:
            for name, spent in now.items():
                times[name].append(spent)
    return times


def page(found: Found) -> Iterator[str]:
    yield f"Ratios are within a round; medians with quartiles, {found['rounds']} rounds."
    heads = ("", "ms", "times bare Python", "of the processor")
    yield from ("", *table(heads, (row(found, name) for name in found["seconds"])))


def row(found: Found, name: str) -> Sequence[str]:
    milliseconds = median(wall for wall, _ in found["seconds"][name]) * 1000
    return (
        name,
        f"{milliseconds:.1f}",
        quarters(against(found, name, BARE)),
        quarters(against(found, name, BARE, 1)),
    )


def against(found: Found, name: str, other: str, column: int = 0) -> List[float]:
    seconds = found["seconds"]
    return ratios([one[column] for one in seconds[name]], [one[column] for one in seconds[other]])


def quarters(values: List[float]) -> str:
    low, middle, high = quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def goals(found: Found) -> Iterator[Goal]:
    for name, other, most in GOALS:
        values = against(found, name, other)
        reached = median(values) < most
        yield Goal(
            f"`{name}` under {most:g} times `{other}`",
            quarters(values),
            reached,
            WHY.format(least=quarters(against(found, NEEDED, BARE))),
        )


PART = Part("startup", "Whole commands", measure, page, goals)
