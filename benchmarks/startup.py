"""How long a whole command takes, in starts of the bare interpreter: python -m benchmarks.startup

Each round runs every command once, so that a machine that is slow for a while is slow for all of them; the
processor's time is shown beside the clock's, because it hardly depends on what else runs. The answer that is
found in the cache comes from the stand-in server, and is asked for once before.

What is installed has its bytecode beside it; here it is kept in a temporary folder and made beforehand.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Dict, List, Mapping, NamedTuple, Sequence

from claude_force.testing import MessagesServer

ROUNDS = 40
BARE = "python -c pass"
# What the installed command does.
COMMAND = "import sys; from claude_force.cli.main import main; sys.exit(main())"
ANSWER = ("run", "agent", "code-reviewer", "--task", "def f(): pass")
COMMANDS: Mapping[str, Sequence[str]] = {
    "--help": ("--help",),
    "list agents": ("list", "agents"),
    "run agent, cached": ANSWER,
}


class Spent(NamedTuple):
    """Seconds of one process, by the clock and of the processor."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, MessagesServer() as server:
        project = Path(folder) / "project"
        project.mkdir()
        environment = surroundings(Path(folder), server.base_url)
        run(["init"], project, environment)
        run(ANSWER, project, environment)
        assert len(server.requests) == 1
        times = measured(rounds, project, environment)
        assert len(server.requests) == 1, "the answer did not come from the cache"
    show(times)


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
    began, used = time.perf_counter(), cpu_seconds()
    subprocess.run(command, cwd=str(project), env=environment, capture_output=True, check=True)
    return Spent(time.perf_counter() - began, cpu_seconds() - used)


def cpu_seconds() -> float:
    """Of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measured(rounds: int, project: Path, environment: Dict[str, str]) -> Dict[str, List[Spent]]:
    """What every command took in every round."""
    times: Dict[str, List[Spent]] = {name: [] for name in (BARE, *COMMANDS)}
    for number in range(rounds + 1):
        now = {BARE: timed([sys.executable, "-c", "pass"], project, environment)}
        now.update({name: run(arguments, project, environment) for name, arguments in COMMANDS.items()})
        # The first round makes the bytecode.
        if number:
            for name, spent in now.items():
                times[name].append(spent)
    return times


def show(times: Dict[str, List[Spent]]) -> None:
    """Milliseconds, and the ratio to the bare interpreter in the same round: median and quarters."""
    bare = times[BARE]
    print(f"Python {sys.version.split()[0]}, {len(bare)} rounds")
    print(f"{'':20} {'ms':>8} {'times bare Python':>22} {'of the processor':>22}")
    for name, spent in times.items():
        wall = quarters([one.wall / other.wall for one, other in zip(spent, bare)])
        cpu = quarters([one.cpu / other.cpu for one, other in zip(spent, bare)])
        print(f"{name:20} {median(one.wall for one in spent) * 1000:8.1f} {wall:>22} {cpu:>22}")


def quarters(ratios: List[float]) -> str:
    low, middle, high = quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
