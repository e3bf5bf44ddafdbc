"""A fleet against rate limits, over real HTTP, beside a semaphore around the SDK with the SDK's own retries.

    make bench-pace             (or: python -m benchmarks.pace [--rows 5000] [--scale 10])

The stand-in allows 1,000 requests, 200,000 input and 40,000 output tokens a minute, and takes two seconds to
the first token of an answer. It runs in a process of its own, as does each client, and simulated time passes
`scale` times as fast as real time for all of them, so that minutes take seconds. How busy the processors were
and how late the client's wake-ups came is printed too: a figure is worth something only where the machine was
not the limit.

The SDK is wrapped as many wrap it: a semaphore that is held over a row with all its attempts, on the SDK's
fastest transport. What it would sleep before another attempt is divided by `scale`; nothing else of it is
changed. A row's time runs from when it was taken on, which with the wrapper is when it was its turn;
claude-force takes on more rows than it sends at a time, and they wait for the pace.

More than the whole of a limit is used from the second minute on where the first left something in its bucket.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from rows import INPUT, MEANS, OUTPUT, REQUESTS, rows, spread  # noqa: E402

CLIENTS = (
    ("claude-force", "100"),
    ("claude-force", "auto"),
    ("SDK", "10"),
    ("SDK", "30"),
    ("SDK", "100"),
    ("SDK, paced by requests", "100"),
)
# Share of the tightest limit, share of attempts answered 429, rows lost.
LEAST_SHARE, MOST_REFUSED = 0.95, 0.01
# The first minute has room for two minutes' worth of requests.
FEWEST_ROWS = 2 * REQUESTS + 500
COLUMNS = (
    "client",
    "at a time",
    "rows lost",
    "answered 429",
    "attempts for each success",
    "of the tightest limit",
    "longest row, s",
    "minutes",
    "most at once",
    "CPU client, server",
    "late by, s",
)


class Outcome(NamedTuple):
    """Of one client; times are simulated seconds, `busy_*` shares of one processor.

    `late`: how much too late the client's event loop woke up, at the worst of a hundred wake-ups.
    """

    lost: int
    refused: float
    attempts: float
    share: float
    longest: float
    minutes: float
    most_in_flight: int
    busy_client: float
    busy_server: float
    late: float

    @property
    def reached(self) -> bool:
        return self.lost == 0 and self.refused < MOST_REFUSED and self.share >= LEAST_SHARE


def main() -> int:
    parser = argparse.ArgumentParser(description="A fleet against rate limits.")
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--scale", type=float, default=10.0)
    parser.add_argument("--workloads", nargs="+", choices=list(MEANS), default=list(MEANS))
    parser.add_argument("--only", nargs="+", choices=sorted({name for name, _ in CLIENTS}))
    options = parser.parse_args()
    if options.rows < FEWEST_ROWS:
        parser.error(f"--rows is {options.rows}; with less than {FEWEST_ROWS:,} there is no second minute")
    clients = [client for client in CLIENTS if not options.only or client[0] in options.only]
    print(f"{platform.platform()}, Python {platform.python_version()}, SDK {version('anthropic')}")
    print(
        f"{options.rows:,} rows against {REQUESTS:,} requests, {INPUT:,} input and {OUTPUT:,} output tokens "
        f"a minute; time passes {options.scale:g} times as fast as real time"
    )
    print(
        f"goals for claude-force: at least {LEAST_SHARE:g} of the tightest limit from the second minute on, "
        f"under {MOST_REFUSED:.0%} of attempts answered 429, no row lost"
    )
    reached = [compare(workload, clients, options.rows, options.scale) for workload in options.workloads]
    print(f"\nclaude-force: {'every goal reached' if all(reached) else 'A GOAL WAS MISSED'}")
    return 0 if all(reached) else 1


def compare(workload: str, clients: List[Tuple[str, str]], count: int, scale: float) -> bool:
    """Prints a table of all clients. Returns whether claude-force reached its goals."""
    tasks, answers = spread(rows(workload, count))
    print(f"\n## Bound by {workload}\n\nThe largest task is {tasks:,.0f} times the smallest, ", end="")
    print(f"the longest answer {answers:,.0f} times the shortest.\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    reached = True
    for name, concurrent in clients:
        print(f"  {workload}: {name}, {concurrent}", file=sys.stderr, flush=True)
        outcome = judged(*measured(name, workload, count, scale, concurrent), scale)
        print(f"| {name} | {concurrent} | {' | '.join(cells(outcome))} |", flush=True)
        reached = reached and (outcome.reached or name != "claude-force")
    return reached


def measured(
    name: str, workload: str, count: int, scale: float, concurrent: str
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What the client and what the server saw. Raises CalledProcessError where the client fails."""
    command = [sys.executable, str(HERE / "server.py"), workload, str(count), str(scale)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().strip()
        arguments = [name, base_url, workload, str(count), str(scale), concurrent]
        try:
            done = subprocess.run(
                [sys.executable, str(HERE / "clients.py"), *arguments],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=1800,
            )
        finally:
            seen = server.communicate()[0]
    return json.loads(done.stdout.strip().splitlines()[-1]), json.loads(seen.strip().splitlines()[-1])


def judged(client: Dict[str, Any], server: Dict[str, Any], scale: float) -> Outcome:
    attempts, taken = len(server["arrivals"]), server["taken"]
    return Outcome(
        lost=client["rows"] - client["succeeded"],
        refused=1 - len(taken) / attempts,
        attempts=attempts / max(1, client["succeeded"]),
        share=share_of_limit(taken),
        longest=client["longest"],
        minutes=client["real_seconds"] * scale / 60,
        most_in_flight=server["most_in_flight"],
        busy_client=client["cpu_seconds"] / client["real_seconds"],
        busy_server=server["cpu_seconds"] / client["real_seconds"],
        late=client["late_seconds"] * scale,
    )


def share_of_limit(taken: List[Tuple[float, int, int]]) -> float:
    """The highest of the three limits' use, from the second minute to the last request that was taken."""
    last = taken[-1][0]
    minutes = (last - 60) / 60
    inside = [(size, tokens) for at, size, tokens in taken if at >= 60]
    return max(
        len(inside) / REQUESTS / minutes,
        sum(size for size, _ in inside) / INPUT / minutes,
        sum(tokens for _, tokens in inside) / OUTPUT / minutes,
    )


def cells(outcome: Outcome) -> List[str]:
    return [
        f"{outcome.lost:,}",
        f"{outcome.refused:.2%}",
        f"{outcome.attempts:.2f}",
        f"{outcome.share:.3f}",
        f"{outcome.longest:.0f}",
        f"{outcome.minutes:.1f}",
        f"{outcome.most_in_flight}",
        f"{outcome.busy_client:.0%}, {outcome.busy_server:.0%}",
        f"{outcome.late:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
