"""Where the processor's time of a call goes: the layers of the engine are switched off one by one.

Each subject lives in a process of its own; they take turns in each round, and a layer's time is the
difference between two of them within a round.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import product
from typing import Dict, Iterator, List, Tuple

from ..part import Found, Part, spread, table
from ..processes import SERVER, say, served
from . import HARDEST, LIMIT, OURS, client, one

ROUNDS = 4
SDK = "SDK, aiohttp"
# From the whole to the limit: a subject, and what it has that the next one hasn't.
STEPS: Tuple[Tuple[str, str], ...] = (
    (OURS, "the cache: asked, asked on the disk, its lease, and the answer kept; joining identical calls"),
    ("no cache", "the ledger"),
    ("no ledger", "the budget: reserved at its worst, settled; first of many"),
    ("no budget", "the rest of the engine: the agent's files, bulk, pace, room, retries, prices, the result"),
    (
        "transport",
        "the transport: the request, silence, errors, headers, the answer read",
    ),
    (LIMIT, "HTTP and JSON, which bare aiohttp has as well"),
)
NAMES = tuple(name for name, _ in STEPS)


def measure() -> Found:
    found: Dict[str, List[float]] = {name: [] for name in (*NAMES, SDK)}
    with served(str(SERVER)) as base_url, ExitStack() as stack:
        clients = {name: stack.enter_context(client(name)) for name in found}
        for number, name in product(range(ROUNDS), found):
            say(f"round {number + 1}: {name}")
            # All connections are open before the clock starts: opening one is no layer.
            figures = one(name, clients[name], HARDEST, base_url, warm=HARDEST.concurrent)
            found[name].append(figures["cpu_ms"] * 1000)
    return {"cpu_us": found}


def page(found: Found) -> Iterator[str]:
    figures: Dict[str, List[float]] = found["cpu_us"]
    yield (
        f"us of the processor for a request, plain, {HARDEST.concurrent} at a time, answered at once, all "
        f"connections open; {len(figures[OURS])} rounds. All of claude-force takes {shown(figures[OURS])}, "
        f"the SDK on aiohttp's transport alone {shown(figures[SDK])}. Garbage collections fall "
        "on one subject or another: a layer whose brackets hold 0 can't be told from nothing."
    )
    rows = [
        (text, shown(differences(figures, number)), f"{share(figures, number):.0%}")
        for number, (_, text) in enumerate(STEPS)
    ]
    yield from ("", *table(("layer", "us", "of the whole"), rows))


def differences(figures: Dict[str, List[float]], number: int) -> List[float]:
    """What the layer takes, in each round."""
    whole = figures[NAMES[number]]
    if number + 1 == len(NAMES):
        return whole
    return [one - other for one, other in zip(whole, figures[NAMES[number + 1]])]


def share(figures: Dict[str, List[float]], number: int) -> float:
    return sum(differences(figures, number)) / sum(figures[OURS])


def shown(values: List[float]) -> str:
    return spread(values, "{:,.0f}")


PART = Part(
    "layers", "Where the processor's time of a call goes", measure, page, versions=("anthropic", "aiohttp")
)
