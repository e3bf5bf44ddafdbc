"""Promises about the cache: speed, eviction, and that changed entries are never returned."""

from __future__ import annotations

import math
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from statistics import linear_regression, mean, median, quantiles
from typing import Callable, Dict, List

from claude_force import ResponseCache

from .claim import Claim

ENTRIES, ANSWER = 10_000, "An answer of four kilobytes. " * 140
SIZES = (2_000, 8_000, 32_000)
FLIPS = 200
AGENT, MODEL = "python-expert", "claude-sonnet-5-5"


def measured(folder: Path) -> List[Claim]:
    return [*speed(folder / ".claude" / "cache-speed"), eviction(folder), *integrity(folder)]


def filled(folder: Path, entries: int, max_size_mb: float = 1_000) -> ResponseCache:
    cache = ResponseCache(cache_dir=folder, max_size_mb=max_size_mb)
    for number in range(entries):
        _set(cache, "Task", number)
    return cache


def _set(cache: ResponseCache, mark: str, number: int) -> None:
    cache.set(AGENT, f"{mark} {number}", MODEL, ANSWER, 100, 50, 0.001)


def each(work: Callable[[int], object], count: int) -> List[float]:
    """Milliseconds of each call."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        work(number)
        took.append((time.perf_counter() - began) * 1000)
    return took


def speed(folder: Path) -> List[Claim]:
    chance = Random(3)
    with closing(filled(folder, ENTRIES)) as cache:
        order = chance.sample(range(ENTRIES), 2_000)
        sets = each(partial(_set, cache, "New"), 2_000)
        misses = each(lambda number: cache.get(AGENT, f"Nothing {number}", MODEL), 2_000)
    with closing(ResponseCache(cache_dir=folder, max_size_mb=1_000)) as cache:
        disk = each(lambda number: cache.get(AGENT, f"Task {order[number]}", MODEL), 2_000)
        memory = each(lambda number: cache.get(AGENT, f"Task {order[-1 - number % 100]}", MODEL), 2_000)
    how = f"`ResponseCache`, {ENTRIES:,} entries of 4 KB, 2,000 of each; mean (p99)"
    rows: Dict[str, List[float]] = {
        "Cache hit under 1 ms on average (disk)": disk,
        "Cache hit under 1 ms on average (memory)": memory,
        "Cache miss under 1 ms on average": misses,
    }
    found = [Claim(text, _figure(took), mean(took) < 1, how) for text, took in rows.items()]
    return [*found, Claim("Cache set under 10 ms on average", _figure(sets), mean(sets) < 10, how)]


def _figure(milliseconds: List[float]) -> str:
    return f"{mean(milliseconds):.4f} ms ({quantiles(milliseconds, n=100)[98]:.4f})"


def eviction(folder: Path) -> Claim:
    """What one set costs that has to evict, by the number of entries: k log n grows as their logarithm."""
    costs = []
    for size in SIZES:
        place = folder / ".claude" / f"cache-{size}"
        filled(place, size).close()
        pages = sum(path.stat().st_size for path in place.glob("answers-*")) / 2**20
        with closing(ResponseCache(cache_dir=place, max_size_mb=pages)) as cache:
            took = each(partial(_set, cache, "Over"), 1_500)
            evicted = int(cache.get_stats()["evictions"])
        assert evicted >= 750, f"only {evicted} entries were evicted"
        costs.append(median(took))
    slope, _ = linear_regression([math.log(size) for size in SIZES], [math.log(cost) for cost in costs])
    shown = ", ".join(f"{cost * 1000:.0f} us at {size:,}" for size, cost in zip(SIZES, costs))
    return Claim(
        "LRU eviction in O(k log n)",
        f"a set that evicts: {shown}; it grows as n to the power of {slope:.2f}",
        slope < 0.25,
        "the median of 1,500 sets at the cap; n log n would be a power above 1, log n is one near 0",
    )


def integrity(folder: Path) -> List[Claim]:
    """Single bits of the store are flipped, and each entry is asked for."""
    place, chance = folder / ".claude" / "cache-bits", Random(5)
    with closing(filled(place, FLIPS)) as cache:
        healthy = cache.get_stats()["integrity_failures"]
        sound = sum(cache.get(AGENT, f"Task {number}", MODEL) is not None for number in range(FLIPS))
    (path,) = place.glob("answers-*.db")
    with closing(sqlite3.connect(str(path))) as db:
        for row, sealed in db.execute("SELECT row, sealed FROM answer").fetchall():
            changed = bytearray(sealed)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            db.execute("UPDATE answer SET sealed = ? WHERE row = ?", (bytes(changed), row))
        db.commit()
    with closing(ResponseCache(cache_dir=place)) as cache:
        given = [cache.get(AGENT, f"Task {number}", MODEL) for number in range(FLIPS)]
    wrong = sum(one is not None and one["response"] != ANSWER for one in given)
    how = f"{FLIPS} entries, one bit of each flipped in the file"
    return [
        Claim(
            "Cache integrity failures: 0",
            f"{healthy} in {sound} hits",
            healthy == 0,
            "an untouched store",
        ),
        Claim("Changed entries are found and never given out", f"{wrong} wrong answers", wrong == 0, how),
    ]
