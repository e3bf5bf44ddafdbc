"""Agents that read files: loops of requests and tool calls, beside what users would take instead.

Each subject runs its agents at once, in a process of its own, against a server that answers without delay.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from ..part import Found, Goal, Part, ratios, spread, table
from ..processes import answered, say, served
from . import command, pace, plain
from .files import write_project

OURS, RUNNER, PYDANTIC, LIMIT = "claude-force", "SDK's tool runner", "pydantic-ai", "bare aiohttp"
NAMES = (OURS, RUNNER, PYDANTIC, LIMIT)
REQUESTS, TURNS = 4, 110
ROUNDS = 2
# Streamed or not, how many agents at once, and who: pydantic-ai would take minutes for 500 of them.
CELLS: Tuple[Tuple[str, int, Tuple[str, ...]], ...] = (
    ("streamed", 100, NAMES),
    ("streamed", 500, (OURS, RUNNER, LIMIT)),
    ("plain", 100, NAMES),
)
MOST_OF_LIMIT, AS_FAST_AS_RUNNER, AS_FAST_AS_PYDANTIC = 3.0, 3.0, 6.0
MOST_MB, LESS_THAN_COMMAND, MOST_OF_TURN_10 = 0.2, 300, 1.5
LEAST_SHARE, MOST_REFUSED, MOST_OF_PRICE, MOST_OF_PLAIN = 0.95, 0.01, 0.25, 1.05
_TENTH, _HUNDREDTH = 0, 1


def measure() -> Found:
    cells = {_name(form, count): {name: [] for name in who} for form, count, who in CELLS}
    with served("-m", "benchmarks.tools.server") as base_url:
        for number in range(ROUNDS):
            for form, count, who in CELLS:
                say(f"round {number + 1}: {count} agents, {form}")
                for name in who:
                    cells[_name(form, count)][name].append(_one(name, base_url, count, form))
        say("turns")
        with tempfile.TemporaryDirectory() as home:
            turns = answered("-m", "benchmarks.tools.turns", f"{base_url}/{TURNS}", home)
    with tempfile.TemporaryDirectory() as home:
        money = answered("-m", "benchmarks.tools.money", home)
    say("pace")
    with tempfile.TemporaryDirectory() as home:
        paced = pace.measure(Path(home))
    say("plain calls")
    calls = plain.measure()
    return {
        "cells": cells,
        "turns": turns,
        "money": money,
        "pace": paced,
        "plain": calls,
        "command": _command(),
    }


def _name(form: str, count: int) -> str:
    return f"{count} agents, {form}"


def _one(name: str, base_url: str, count: int, form: str) -> Dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        address = f"{base_url}/{REQUESTS}"
        figures = answered("-m", "benchmarks.tools.measure", name, address, str(count), form, home)
    if figures["ended"] != count:
        raise SystemExit(f"{name} lost answers of {count} agents, {form}: {figures}")
    return figures


def _command() -> Dict[str, Any]:
    found = command.command_path()
    if found is None:
        return {}
    say("the command")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        root = write_project(Path(home, "project"), "claude-sonnet-5-5", "You read.")
        return command.measure(found, root, Path(home))


def page(found: Found) -> Iterator[str]:
    yield (
        f"Agents of {REQUESTS} requests, each but the last calling Read on a file of 2 KB, all at once. A "
        "streamed answer has some 200 events. For claude-force the tools are the real ones, confined to the "
        "project; cache, pace, budget and ledger are on. The others open the file. The goals are for "
        "streamed answers, which is how agents get them: in one piece an answer costs clients little, and "
        "what claude-force does besides weighs more."
    )
    heads = ("", "client", "CPU ms a request", "MB an agent", "claude-force takes of its CPU")
    yield from ("", *table(heads, _rows(found["cells"])))
    yield from ("", *_command_lines(found))
    turns, money, paced = found["turns"], found["money"], found["pace"]
    tenth, hundredth = _milliseconds(turns, _TENTH), _milliseconds(turns, _HUNDREDTH)
    yield from ("", f"A turn takes {tenth:.1f} ms around the 10th, {hundredth:.1f} ms around the 100th.")
    yield ""
    yield (
        f"{money['turns']:.0f} turns of 5,000 tokens, and 2,000 more with each: ${money['with']:.2f} of "
        f"input, ${money['without']:.2f} without breakpoints of the prompt cache."
    )
    yield ""
    yield (
        f"{pace.AGENTS} agents of {pace.REQUESTS_OF_EACH} requests under {pace.A_MINUTE:,} a minute took "
        f"{paced['minutes']:.1f} simulated minutes, in which time passed {pace.SCALE:g} times as fast."
    )
    yield ""
    calls = found["plain"]
    yield (
        f"Calls without tools: {spread(calls['now'])} ms of CPU, {spread(calls['before'])} at "
        f"{plain.BEFORE}, before there were any."
        if calls
        else f"Calls without tools were not compared: {plain.MISSING}."
    )


def _rows(cells: Dict[str, Any]) -> Iterator[Tuple[str, ...]]:
    for cell, figures in cells.items():
        count = int(cell.split()[0])
        for name, rounds in figures.items():
            yield (
                cell,
                name,
                spread([1000 * one["cpu_seconds"] / count / REQUESTS for one in rounds]),
                f"{_grown(rounds) / count:.3f}",
                spread(_cpu(figures, name)) if name != OURS else "",
            )


def _command_lines(found: Found) -> Iterator[str]:
    figures = found["command"]
    if not figures:
        yield f"Claude Code's command was not measured: {command.MISSING}."
        return
    processes = command.PROCESSES
    yield (
        f"{processes} processes of Claude Code's command at once: {figures['cpu_seconds'] / processes:.2f} s "
        f"of CPU and {figures['peak_mb'] / processes:.0f} MB each, so 100 agents take "
        f"{100 * figures['cpu_seconds'] / processes:.0f} s and "
        f"{100 * figures['peak_mb'] / processes / 1024:.0f} GB."
    )


def _cpu(figures: Dict[str, List[Dict[str, float]]], name: str) -> List[float]:
    mine, theirs = ([one["cpu_seconds"] for one in figures[who]] for who in (OURS, name))
    return ratios(mine, theirs)


def _grown(rounds: List[Dict[str, float]]) -> float:
    return statistics.median(one["grown_mb"] for one in rounds)


def _milliseconds(turns: Any, which: int) -> float:
    return statistics.median(agent[which] for agent in turns)


def goals(found: Found) -> Iterator[Goal]:
    cells = found["cells"]
    for form, count, who in CELLS:
        if form == "streamed":
            yield from _goals_of(cells[_name(form, count)], count, who)
    yield from _memory(found)
    ratio = _milliseconds(found["turns"], _HUNDREDTH) / _milliseconds(found["turns"], _TENTH)
    text = f"turn 100 at most {MOST_OF_TURN_10:g} times the CPU of turn 10"
    yield Goal(text, f"{ratio:.2f}", ratio <= MOST_OF_TURN_10)
    share, refused = found["pace"]["share"], found["pace"]["refused"]
    yield Goal(f"over {LEAST_SHARE:.0%} of a limit of requests used", f"{share:.3f}", share > LEAST_SHARE)
    yield Goal(f"under {MOST_REFUSED:.0%} answered 429", f"{refused:.2%}", refused < MOST_REFUSED)
    part = found["money"]["with"] / found["money"]["without"]
    text = f"at most {MOST_OF_PRICE:g} of the price without breakpoints"
    yield Goal(text, f"{part:.3f}", part <= MOST_OF_PRICE)
    if found["plain"]:
        times = ratios(found["plain"]["now"], found["plain"]["before"])
        text = f"calls without tools at most {MOST_OF_PLAIN:g} times the CPU of {plain.BEFORE}"
        yield Goal(text, spread(times), statistics.median(times) <= MOST_OF_PLAIN)


def _goals_of(figures: Dict[str, Any], count: int, who: Tuple[str, ...]) -> Iterator[Goal]:
    of_limit = _cpu(figures, LIMIT)
    text = f"{count} agents: at most {MOST_OF_LIMIT:g} times the CPU of {LIMIT}"
    yield Goal(text, spread(of_limit), statistics.median(of_limit) <= MOST_OF_LIMIT)
    for name, least in ((RUNNER, AS_FAST_AS_RUNNER), (PYDANTIC, AS_FAST_AS_PYDANTIC)):
        if name in who:
            times = [1 / one for one in _cpu(figures, name)]
            text = f"{count} agents: {name} takes at least {least:g} times the CPU"
            yield Goal(text, spread(times), statistics.median(times) >= least)


def _memory(found: Found) -> Iterator[Goal]:
    mine = _grown(found["cells"][_name("streamed", 500)][OURS]) / 500
    yield Goal(f"at most {MOST_MB:g} MB an agent", f"{mine:.3f}", mine <= MOST_MB)
    if found["command"]:
        times = found["command"]["peak_mb"] / command.PROCESSES / mine
        text = f"at least {LESS_THAN_COMMAND} times less memory than Claude Code's command"
        yield Goal(text, f"{times:,.0f}", times >= LESS_THAN_COMMAND)


PART = Part(
    "tools",
    "Agents with tools",
    measure,
    page,
    goals,
    ("anthropic", "aiohttp", "pydantic-ai-slim"),
)
