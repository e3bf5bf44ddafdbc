"""Writes the page of figures from the recorded results of all parts."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List

from .part import Part, table
from .parts import PARTS

INTRODUCTION = (
    "`make bench` measures what isn't marked otherwise and writes this page; it took {minutes:.0f} minutes. "
    "Figures are medians, with the lowest and the highest in brackets; ratios are taken within a round, the "
    "subjects in turn. Servers and clients are processes of their own, on loopback. All figures of all "
    "rounds are in [results.json](results.json)."
)


def written(results: Dict[str, Any]) -> Iterator[str]:
    """Line by line."""
    found = [part for part in PARTS if part.name in results]
    yield from ("<!-- Written by `make bench`: edit benchmarks/. -->", "# What was measured", "")
    yield from dict.fromkeys(results[part.name]["machine"] + "." for part in found)
    minutes = sum(results[part.name]["seconds"] for part in found if part.usual) / 60
    yield INTRODUCTION.format(minutes=minutes)
    yield from ("", "## Goals", "", *goals(found, results))
    for part in found:
        yield from section(part, results[part.name])


def goals(found: List[Part], results: Dict[str, Any]) -> Iterator[str]:
    rows = [(part, goal) for part in found for goal in part.goals(results[part.name]["found"])]
    shown = [(link(part), goal.text, goal.figure, "yes" if goal.reached else "**no**") for part, goal in rows]
    yield from table(("part", "goal", "measured", "reached"), shown)
    missed: Dict[str, List[str]] = {}
    for part, goal in rows:
        if not goal.reached:
            missed.setdefault(goal.why or "not known why.", []).append(f"{part.name}: {goal.text}")
    for why, texts in missed.items():
        yield from ("", f"Not reached, {'; '.join(texts)}: {why}")


def link(part: Part) -> str:
    """As GitHub makes anchors of titles."""
    kept = "".join(one for one in part.title.lower() if one.isalnum() or one in " -")
    return f"[{part.name}](#{kept.replace(' ', '-')})"


def section(part: Part, result: Dict[str, Any]) -> Iterator[str]:
    versions = "".join(f", {name} {text}" for name, text in result["versions"].items())
    command = "make bench" if part.usual else f'make bench PARTS="{part.name}"'
    yield from ("", f"## {part.title}", "")
    yield f"`{command}`{versions}; {result['seconds']:,} s; load {result['load_before']:.1f} before."
    yield from ("", *part.page(result["found"]))
