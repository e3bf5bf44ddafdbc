"""This cache beside its peers and beside the bare limit.

Every measure of every subject runs in a process of its own, the subjects in turn within each round.
"""

from __future__ import annotations

import platform
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..part import Found, Goal, Part, ratios, spread, table
from ..processes import answered, say

OURS = "claude-force"
ON_DISK = (OURS, "SQLite row", "diskcache", "diskcache LRU", "DSPy", "LiteLLM disk", "LangChain SQLite")
IN_MEMORY = ("dict", "dict + HMAC", "LiteLLM memory")
BOUNDED = (OURS, "diskcache", "diskcache LRU", "DSPy")
ENTRIES, MANY, PRESSED = 10_000, 100_000, 20_000
ROUNDS = 2
# Figure, peer, and the most that ours may be of theirs.
GOALS = (
    ("memory hit", "DSPy", 0.6),
    ("disk hit", "diskcache", 1.0),
    ("disk hit", "diskcache LRU", 1.0),
    ("miss", "diskcache", 1.0),
    ("miss", "diskcache LRU", 1.0),
    ("set", "diskcache LRU", 1.0),
    ("set p99", "diskcache LRU", 1.0),
)
# Figure of a full store, and the most that it may be.
BOUNDS = (
    ("eviction per entry", "eviction at most 8 us an entry", 8.0),
    ("eviction worst", "no call over 2 ms because of eviction", 2000.0),
    ("four: overshoot", "four writers go at most 1.5 times over the cap", 1.5),
)
MOST_OPEN, MOST_RESIDENT = 1.5, 2**20
BYTES = ("bytes", "resident")
PLAIN_NUMBERS = ("four: overshoot",)

# Values of all rounds, by subject and figure.
Figures = Dict[str, Dict[str, List[float]]]


def measure(entries: int, pressed: bool) -> Found:
    found: Figures = {}
    pressure: Figures = {}
    for number in range(ROUNDS):
        for name in (*ON_DISK, *IN_MEMORY):
            say(f"round {number + 1}, {entries:,} entries: {name}")
            add(found, name, of_subject(name, entries))
        for name in BOUNDED if pressed else ():
            say(f"round {number + 1}, full, and four processes at once: {name}")
            add(pressure, name, under_pressure(name))
    versions = {"entries": entries, "sqlite": sqlite3.sqlite_version, "processor": platform.machine()}
    return {**versions, "rounds": ROUNDS, "figures": found, "pressure": pressure}


def add(figures: Figures, name: str, found: Dict[str, float]) -> None:
    for figure, value in found.items():
        figures.setdefault(name, {}).setdefault(figure, []).append(value)


def one(name: str, what: str, folder: Path, entries: int) -> Dict[str, float]:
    """One measure in a process of its own; nothing where a peer fails, which is said."""
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        return answered("-m", "benchmarks.cache.measures", name, what, str(folder), str(entries))
    except subprocess.CalledProcessError:
        if name == OURS:
            raise
        say(f"{name}, {what}: failed")
        return {}


def of_subject(name: str, entries: int) -> Dict[str, float]:
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        if name in IN_MEMORY:
            return one(name, "memory", place / "memory", entries)
        one(name, "fill", place / "empty", 0)
        found = one(name, "fill", place / "full", entries)
        found.update(one(name, "read", place / "full", entries))
        shutil.rmtree(place / "full")
        found["open empty"] = one(name, "read", place / "empty", 0).get("open", float("nan"))
        return found


def under_pressure(name: str) -> Dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        found = one(name, "evict", Path(place) / "evict", PRESSED)
        return {**found, **one(name, "together", Path(place) / "together", PRESSED)}


def page(found: Found) -> Iterator[str]:
    yield (
        f"SQLite {found['sqlite']}, {found['processor']}; entries of 4 KB, {found['entries']:,} of them. "
        f"Times in us: the median of a run, then of {found['rounds']} rounds."
    )
    yield from ("", *figures_table(found["figures"]), "")
    heads = ("claude-force to", "figure", "ratio", "at most")
    yield from table(
        heads, [(peer, name, spread(all_), str(most)) for peer, name, all_, most in compared(found)]
    )
    if found["pressure"]:
        yield from ("", f"A full store of {PRESSED:,} entries, and four processes at once:", "")
        yield from figures_table(found["pressure"])


def figures_table(figures: Figures) -> Iterator[str]:
    heads = list(dict.fromkeys(figure for one in figures.values() for figure in one))
    rows = [(name, *(shown(head, one.get(head)) for head in heads)) for name, one in figures.items()]
    return table(("", *heads), rows)


def shown(figure: str, values: Optional[List[float]]) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    if figure in BYTES:
        return f"{value / 2**20:.1f} MB"
    if figure in PLAIN_NUMBERS:
        return f"{value:.2f}"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def compared(found: Found) -> Iterator[Tuple[str, str, List[float], float]]:
    """Peer, figure, ratios and the most that they may be."""
    figures: Dict[str, Any] = found["figures"]
    mine = figures[OURS]
    for figure, peer, most in GOALS:
        if figure in figures.get(peer, {}):
            yield peer, figure, ratios(mine[figure], figures[peer][figure]), most
    yield "an empty store", "open", ratios(mine["open"], mine["open empty"]), MOST_OPEN


def goals(found: Found) -> Iterator[Goal]:
    for peer, figure, values, most in compared(found):
        reached = statistics.median(values) <= most
        text = f"{figure} at most {most:g} of {peer}'s, {found['entries']:,} entries"
        yield Goal(text, spread(values), reached, "" if reached else why(found, peer, figure))
    resident = found["figures"][OURS]["resident"]
    shown_mb = spread([value / 2**20 for value in resident]) + " MB"
    yield Goal("nothing resident after opening (under 1 MB)", shown_mb, max(resident) < MOST_RESIDENT)
    for figure, text, bound in BOUNDS if found["pressure"] else ():
        values = found["pressure"][OURS][figure]
        yield Goal(text, spread(values), statistics.median(values) <= bound)


def why(found: Found, peer: str, figure: str) -> str:
    """What a signed answer in SQLite costs at the least, of the same run."""
    figures = found["figures"]
    if figure == "memory hit":
        mine, bare = (statistics.median(figures[name][figure]) for name in (OURS, "dict"))
        return (
            f"beside looking it up, {bare:.1f} of the {mine:.1f} us, a hit asks a map that all processes "
            "share whether anything was withdrawn, and the clock for its age and for the order of use, and "
            "is given out as a dict of its own."
        )
    if peer != "diskcache":
        return ""
    signature = statistics.median(figures["dict + HMAC"]["memory hit"])
    row = statistics.median(figures["SQLite row"]["disk hit"])
    theirs = statistics.median(figures[peer]["disk hit"])
    return (
        f"with its usual policy {peer} neither signs, nor hashes a question, nor notes a use. An HMAC of 4 "
        f"KB from a dict ({signature:.1f} us) and a bare row of SQLite ({row:.1f} us) are "
        f"{signature + row:.1f} us before anything else, beside {theirs:.1f} us of its whole hit; of a "
        "miss, the question's SHA-256 and SQLite's look-up are most. With its LRU policy, which is what "
        "this cache does, both are below 1."
    )


_VERSIONS = ("diskcache", "dspy", "litellm", "langchain-community")
PART = Part("cache", "The cache beside its peers", partial(measure, ENTRIES, True), page, goals, _VERSIONS)
LARGE = Part(
    "cache-large",
    "The cache beside its peers, 100,000 entries",
    partial(measure, MANY, False),
    page,
    goals,
    _VERSIONS,
    usual=False,
)
