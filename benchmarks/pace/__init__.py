"""A fleet against rate limits, over real HTTP, beside a semaphore around the SDK with the SDK's own retries.

The stand-in allows 1,000 requests, 200,000 input and 40,000 output tokens a minute, and takes two seconds to
the first token of an answer. Simulated time passes ten times as fast as real time for server and clients, so
that minutes take seconds. How busy the processors were and how late the client's wake-ups came is shown too:
a figure is worth something only where the machine was not the limit.

The SDK is wrapped as many wrap it: a semaphore that is held over a row with all its attempts, on the SDK's
fastest transport. What it would sleep before another attempt is divided by the scale; nothing else of it is
changed. A row's time runs from when it was taken on, which with the wrapper is when it was its turn;
claude-force takes on more rows than it sends at a time, and they wait for the pace.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from ..part import Found, Goal, Part, table
from ..processes import ROOT, answered, say
from .rows import INPUT, MEANS, OUTPUT, REQUESTS

OURS = "claude-force"
ROWS, SCALE = 5_000, 10.0
FEW = ((OURS, "100"), ("SDK", "100"))
MANY = (
    (OURS, "100"),
    (OURS, "auto"),
    ("SDK", "10"),
    ("SDK", "30"),
    ("SDK", "100"),
    ("SDK, paced by requests", "100"),
)
# Share of the tightest limit, share of attempts answered 429.
LEAST_SHARE, MOST_REFUSED = 0.95, 0.01
COLUMNS = {
    "rows lost": "{lost:,}",
    "answered 429": "{refused:.2%}",
    "attempts for each success": "{attempts:.2f}",
    "of the tightest limit": "{share:.3f}",
    "longest row, s": "{longest:.0f}",
    "minutes": "{minutes:.1f}",
    "most at once": "{most_in_flight}",
    "CPU of client and server": "{busy_client:.0%}, {busy_server:.0%}",
    "late by, s": "{late:.2f}",
}


def measure(clients: Sequence[Tuple[str, str]]) -> Found:
    found: Dict[str, List[Dict[str, Any]]] = {}
    for workload in MEANS:
        for name, concurrent in clients:
            say(f"{workload}: {name}, {concurrent}")
            outcome = judged(*seen(name, workload, concurrent))
            found.setdefault(workload, []).append({"client": name, "at a time": concurrent, **outcome})
    return {"rows": ROWS, "scale": SCALE, "workloads": found}


def seen(name: str, workload: str, concurrent: str) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What the client and what the server saw. Raises CalledProcessError where the client fails."""
    command = [sys.executable, "-m", "benchmarks.pace.server", workload, str(ROWS), str(SCALE)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=str(ROOT)
    ) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().strip()
        arguments = (name, base_url, workload, str(ROWS), str(SCALE), concurrent)
        try:
            client = answered("-m", "benchmarks.pace.clients", *arguments)
        finally:
            reported = server.communicate()[0]
    return client, json.loads(reported.strip().splitlines()[-1])


def judged(client: Dict[str, Any], server: Dict[str, Any]) -> Dict[str, float]:
    """Times are simulated seconds, `busy_*` shares of one processor.

    `late`: how much too late the client's event loop woke up, at the worst of a hundred wake-ups.
    """
    attempts, taken = len(server["arrivals"]), server["taken"]
    return {
        "lost": client["rows"] - client["succeeded"],
        "refused": 1 - len(taken) / attempts,
        "attempts": attempts / max(1, client["succeeded"]),
        "share": share_of_limit(taken),
        "longest": client["longest"],
        "minutes": client["real_seconds"] * SCALE / 60,
        "most_in_flight": server["most_in_flight"],
        "busy_client": client["cpu_seconds"] / client["real_seconds"],
        "busy_server": server["cpu_seconds"] / client["real_seconds"],
        "late": client["late_seconds"] * SCALE,
    }


def share_of_limit(taken: List[Tuple[float, int, int]]) -> float:
    """The highest of the three limits' use, from the second minute to the last request that was taken.

    It is above 1 where the first minute left something in the bucket.
    """
    last = taken[-1][0]
    minutes = (last - 60) / 60
    inside = [(size, tokens) for at, size, tokens in taken if at >= 60]
    return max(
        len(inside) / REQUESTS / minutes,
        sum(size for size, _ in inside) / INPUT / minutes,
        sum(tokens for _, tokens in inside) / OUTPUT / minutes,
    )


def page(found: Found) -> Iterator[str]:
    yield (
        f"{found['rows']:,} rows a hundredfold and more apart in size, against {REQUESTS:,} requests, "
        f"{INPUT:,} input and {OUTPUT:,} output tokens a minute. Time passes {found['scale']:g} times as "
        "fast as real time. The SDK stands behind a semaphore, with its own retries."
    )
    heads = ("bound by", "client", "at a time", *COLUMNS)
    rows = [
        (workload, one["client"], one["at a time"], *(form.format(**one) for form in COLUMNS.values()))
        for workload, outcomes in found["workloads"].items()
        for one in outcomes
    ]
    yield from ("", *table(heads, rows))


def goals(found: Found) -> Iterator[Goal]:
    ours = [one for each in found["workloads"].values() for one in each if one["client"] == OURS]
    share, refused = min(one["share"] for one in ours), max(one["refused"] for one in ours)
    lost = sum(one["lost"] for one in ours)
    text = "of the tightest limit from the second minute on, at every workload"
    yield Goal(f"at least {LEAST_SHARE:g} {text}", f"{share:.3f}", share >= LEAST_SHARE)
    yield Goal(f"under {MOST_REFUSED:.0%} answered 429", f"{refused:.2%}", refused < MOST_REFUSED)
    yield Goal("no row lost", f"{lost:,}", lost == 0)


PART = Part("pace", "A fleet against rate limits", partial(measure, FEW), page, goals)
ALL = Part(
    "pace-all",
    "A fleet against rate limits, more clients",
    partial(measure, MANY),
    page,
    goals,
    usual=False,
)
