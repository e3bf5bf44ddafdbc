"""One measure of one subject, in a process of its own: `python -m
benchmarks.cache.measures SUBJECT MEASURE FOLDER ENTRIES`.

Prints one JSON object of figures: times in microseconds, sizes in bytes.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Type

from ..processes import ROOT
from ..used import resident_bytes
from .subjects import SUBJECTS, ClaudeForce, Subject, answer

SAMPLE = 3000
MODULE = "benchmarks.cache.measures"


def each(call: Callable[[int], Any], numbers: Iterable[int]) -> List[float]:
    """Microseconds of each call."""
    taken = []
    for number in numbers:
        started = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - started) * 1e6)
    return taken


def checked(subject: Subject, numbers: Iterable[int]) -> List[float]:
    """Times of hits, after making sure of what they give."""
    numbers = list(numbers)
    times = each(subject.get, numbers)
    for number in numbers[:50]:
        if subject.get(number) != answer(number):
            raise SystemExit(f"entry {number} is not what was stored")
    return times


def middle(times: List[float]) -> float:
    return statistics.median(times)


def p99(times: List[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def fill(make: Type[Subject], folder: Path, entries: int) -> Dict[str, float]:
    subject = make(folder)
    times = each(subject.set, range(entries))
    subject.get(0)
    subject.close()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if not entries:
        return {}
    return {"set": middle(times), "set p99": p99(times), "set worst": max(times), "bytes": size}


def read(make: Type[Subject], folder: Path, entries: int) -> Dict[str, float]:
    """Of a store that another process has filled. Importing is not part of opening."""
    warm = make(_fresh(folder, "warm"))
    warm.set(1)
    warm.close()
    before = resident_bytes()
    started = time.perf_counter()
    subject = make(folder)
    subject.get(entries + 1)
    opened = (time.perf_counter() - started) * 1e6
    held = resident_bytes() - before
    if not entries:
        return {"open": opened}
    numbers = random.Random(7).sample(range(entries), min(SAMPLE, entries))
    found = {"open": opened, "resident": held, "disk hit": middle(checked(subject, numbers))}
    found["miss"] = middle(each(subject.get, range(10**7, 10**7 + SAMPLE)))
    if make.in_memory:
        found["memory hit"] = middle(each(subject.get, numbers[-200:] * 20))
    return found


def memory(make: Type[Subject], folder: Path, entries: int) -> Dict[str, float]:
    """Of a subject that has no disk."""
    subject = make(folder)
    times = each(subject.set, range(entries))
    numbers = random.Random(7).sample(range(entries), min(SAMPLE, entries))
    checked(subject, numbers)
    return {
        "set": middle(times),
        "set p99": p99(times),
        "memory hit": middle(each(subject.get, numbers[-200:] * 20)),
        "miss": middle(each(subject.get, range(10**7, 10**7 + SAMPLE))),
    }


def evict(make: Type[Subject], folder: Path, entries: int) -> Dict[str, float]:
    """Sets in a store that is full: each of them makes room for itself."""
    subject = make(folder, most_bytes=entries * 4096)
    each(subject.set, range(entries))
    spent: List[float] = []
    if isinstance(subject, ClaudeForce):
        spent = _eviction_alone(subject)
    times = each(subject.set, range(entries, 2 * entries))
    found = {"full set": middle(times), "full set p99": p99(times), "full set worst": max(times)}
    if isinstance(subject, ClaudeForce):
        gone = subject.cache.get_stats()["evictions"] - spent.pop(0)
        found["eviction per entry"] = sum(spent) / max(1, gone)
        found["eviction worst"] = max(spent)
    return found


def _eviction_alone(subject: ClaudeForce) -> List[float]:
    store: Any = subject.cache._disk._open
    spent = [float(subject.cache.get_stats()["evictions"])]
    original = store._keep_within_bounds

    def timed(spare: int) -> None:
        started = time.perf_counter()
        original(spare=spare)
        spent.append((time.perf_counter() - started) * 1e6)

    store._keep_within_bounds = timed
    return spent


def together(make: Type[Subject], folder: Path, entries: int) -> Dict[str, float]:
    """Four processes write and read one store that is bounded at a tenth of what they write."""
    name = next(name for name, one in SUBJECTS.items() if one is make)
    make(folder, most_bytes=entries * 410).close()
    started = time.perf_counter()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", MODULE, name, "one of four", str(folder), str(entries), str(part)],
            cwd=str(ROOT),
        )
        for part in range(4)
    ]
    most = 0
    while any(worker.poll() is None for worker in workers):
        most = max(most, _size(folder))
        time.sleep(0.02)
    if any(worker.returncode for worker in workers):
        raise SystemExit("a writer failed")
    wall = time.perf_counter() - started
    found = {"four: calls/s": 2 * entries / wall}
    if make.bounded:
        found["four: overshoot"] = most / (entries * 410)
    return found


def one_of_four(make: Type[Subject], folder: Path, entries: int, part: int) -> None:
    subject = make(folder, most_bytes=entries * 410)
    for number in range(part, entries, 4):
        subject.set(number)
        found = subject.get(number - 400)
        if found is not None and found != answer(number - 400):
            raise SystemExit(f"entry {number - 400} is not what was stored")
    subject.close()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _fresh(folder: Path, name: str) -> Path:
    path = folder.with_name(f"{folder.name}-{name}")
    path.mkdir()
    return path


MEASURES = {"fill": fill, "read": read, "memory": memory, "evict": evict, "together": together}


def main() -> None:
    name, measure, folder, entries = sys.argv[1:5]
    if measure == "one of four":
        one_of_four(SUBJECTS[name], Path(folder), int(entries), int(sys.argv[5]))
        return
    print(json.dumps(MEASURES[measure](SUBJECTS[name], Path(folder), int(entries))))


if __name__ == "__main__":
    main()
