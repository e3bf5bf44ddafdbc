"""This cache beside its peers and beside the bare limit.

    make bench-cache            (or: python -m benchmarks.cache [--entries 10000 100000] [--rounds 3])

Every measure of every subject runs in a process of its own, the subjects in turn within each round. Figures
are medians over the rounds; a ratio is taken within one run, so the machine's speed cancels out.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import DefaultDict, Dict, List, Optional, Tuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from subjects import SUBJECTS  # noqa: E402

OURS = "claude-force"
EVICTING, TOGETHER = 20_000, 20_000
# Figure, unit, the one it is compared with, and the ratio to reach.
GOALS = (
    ("memory hit", "DSPy", 0.6),
    ("disk hit", "diskcache", 1.0),
    ("disk hit", "diskcache LRU", 1.0),
    ("miss", "diskcache", 1.0),
    ("miss", "diskcache LRU", 1.0),
    ("set", "diskcache LRU", 1.0),
    ("set p99", "diskcache LRU", 1.0),
)
BYTES = ("bytes", "resident")
RATIOS = ("four: overshoot",)

Figures = DefaultDict[Tuple[str, str], List[float]]


def measured(name: str, measure: str, folder: Path, entries: int) -> Dict[str, float]:
    """One measure in a process of its own; nothing where the subject fails, which is said on stderr."""
    command = [sys.executable, str(HERE / "measures.py"), name, measure, str(folder), str(entries)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        print(f"{name}, {measure}: failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {}
    found: Dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def one_round(entries: int, names: List[str], figures: Figures) -> None:
    for name in names:
        print(f"  {entries:,} entries: {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as place:
            for found in of_subject(name, Path(place), entries):
                for figure, value in found.items():
                    figures[(name, figure)].append(value)


def of_subject(name: str, place: Path, entries: int) -> List[Dict[str, float]]:
    if not SUBJECTS[name].on_disk:
        return [measured(name, "memory", fresh(place, "memory"), entries)]
    empty = fresh(place, "empty")
    measured(name, "fill", empty, 0)
    folder = fresh(place, "full")
    filled = measured(name, "fill", folder, entries)
    read = measured(name, "read", folder, entries)
    opened = {"open empty": measured(name, "read", empty, 0).get("open", float("nan"))}
    shutil.rmtree(folder)
    return [filled, read, opened]


def under_pressure(names: List[str], figures: Figures) -> None:
    for name in names:
        if not SUBJECTS[name].bounded:
            continue
        print(f"  full, and four processes at once: {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as place:
            found = measured(name, "evict", fresh(Path(place), "evict"), EVICTING)
            found.update(measured(name, "together", fresh(Path(place), "together"), TOGETHER))
        for figure, value in found.items():
            figures[(name, figure)].append(value)


def fresh(place: Path, name: str) -> Path:
    path = place / name
    path.mkdir(mode=0o700)
    return path


def table(figures: Figures, names: List[str]) -> List[str]:
    heads = list(dict.fromkeys(figure for _, figure in figures))
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells = [shown(figure, figures.get((name, figure))) for figure in heads]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def shown(figure: str, values: Optional[List[float]]) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    if figure in BYTES:
        return f"{value / 2**20:.1f} MB"
    if figure in RATIOS:
        return f"{value:.2f}"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def ratios(figures: Figures) -> List[str]:
    lines = ["| claude-force / | figure | ratio (smallest to largest) | to reach |", "|---|---|---|---|"]
    for figure, peer, goal in GOALS:
        mine, other = figures.get((OURS, figure)), figures.get((peer, figure))
        if mine and other:
            lines.append(f"| {peer} | {figure} | {spread(mine, other)} | {goal} |")
    opened, empty = figures.get((OURS, "open")), figures.get((OURS, "open empty"))
    if opened and empty:
        lines.append(f"| itself, empty | open | {spread(opened, empty)} | 1.5 |")
    return lines


def spread(mine: List[float], other: List[float]) -> str:
    found = sorted(one / two for one, two in zip(mine, other))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def report(sizes: Dict[int, Figures], pressure: Figures, names: List[str]) -> str:
    lines = [
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}. "
        "Times in us (median over a run, then over the rounds), entries of 4 KB.",
    ]
    for entries, figures in sizes.items():
        lines += ["", f"## {entries:,} entries", "", *table(figures, names), "", *ratios(figures)]
    lines += ["", "## A full store, and four processes at once", "", *table(pressure, names)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a file for the report, beside stdout")
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    args = parser.parse_args()
    sizes: Dict[int, Figures] = {entries: defaultdict(list) for entries in args.entries}
    pressure: Figures = defaultdict(list)
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        for entries in args.entries:
            one_round(entries, args.only, sizes[entries])
        under_pressure(args.only, pressure)
    text = report(sizes, pressure, args.only)
    print(text)
    if args.write:
        args.write.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
