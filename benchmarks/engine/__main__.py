"""The engine beside the SDK, the clients that others build on it, and the bare limit.

    make bench-engine           (or: python -m benchmarks.engine [--requests 3000] [--rounds 3])

Each subject makes the same requests, 500 at a time and all different, to a server on loopback that answers at
once, in a process of its own, the subjects in turn within each round. A ratio is taken within one round, so
that the machine's speed cancels out; it is printed as its median with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import DefaultDict, Dict, List

HERE = Path(__file__).resolve().parent
NAMES = (
    "claude-force",
    "SDK, aiohttp",
    "SDK, default",
    "LiteLLM",
    "LangChain",
    "pydantic-ai",
    "bare aiohttp",
)
OURS = NAMES[0]
# The ratio of ours to theirs, in requests a second, that is to be reached.
GOALS = {"SDK, aiohttp": 0.85, "SDK, default": 1.8, "LiteLLM": 2.5, "LangChain": 3.0, "pydantic-ai": 6.0}
CHARACTERS = 1500

Rounds = DefaultDict[str, List[Dict[str, float]]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Requests a second through each client.")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrent", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    options = parser.parse_args()
    found = measured(options.only, options.rounds, options.requests, options.concurrent)
    report(found, options.requests, options.concurrent, options.rounds)
    return 0


def measured(names: List[str], rounds: int, requests: int, concurrent: int) -> Rounds:
    """Every subject in every round. Raises CalledProcessError where one fails."""
    found: Rounds = defaultdict(list)
    command = [sys.executable, str(HERE / "server.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base_url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        for number in range(rounds):
            for name in names:
                print(f"  round {number + 1}: {name}", file=sys.stderr, flush=True)
                found[name].append(one(name, base_url, requests, concurrent))
        assert server.stdin is not None
        server.stdin.close()
    return found


def one(name: str, base_url: str, requests: int, concurrent: int) -> Dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, str(HERE / "measure.py"), name, base_url, str(requests), str(concurrent), home],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
    figures: Dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    if figures["characters"] != requests * CHARACTERS:
        raise SystemExit(f"{name} lost answers: {figures['characters']:,.0f} characters")
    return figures


def report(found: Rounds, requests: int, concurrent: int, rounds: int) -> None:
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"{requests:,} requests, {concurrent} at a time, medians of {rounds} rounds\n")
    print("| client | requests/s | CPU ms/request | resident MB | claude-force is faster by |")
    print("|---|---|---|---|---|")
    for name, figures in found.items():
        median = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        print(
            f"| {name} | {median['requests_per_second']:,.0f} | {median['cpu_ms']:.2f} "
            f"| {median['resident_mb']:.0f} | {ratio(found, name)} |"
        )


def ratio(found: Rounds, name: str) -> str:
    if name == OURS or OURS not in found:
        return ""
    key = "requests_per_second"
    ratios = [ours[key] / theirs[key] for ours, theirs in zip(found[OURS], found[name])]
    goal = f", goal {GOALS[name]:g}" if name in GOALS else ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}){goal}"


if __name__ == "__main__":
    sys.exit(main())
