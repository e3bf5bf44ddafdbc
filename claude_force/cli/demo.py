"""`demo`: measures three agents on real files: one by one, at once, ten at once, and ten from the cache.

Then come agents with tools (`demo_tools.py`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ..async_orchestrator import AsyncAgentOrchestrator
from ..errors import InputError
from ..response_cache import ResponseCache
from ..settings import NO_TOOLS
from ..types import AgentResult
from . import render, signals, streams
from .demo_tools import ToolDemo, run_tools

Rows = Sequence[Tuple[str, str]]

PACKAGE = Path(__file__).resolve().parent.parent
REVIEWED = ("errors.py", "types.py", "transport/messages.py")
TEAM = ("code-reviewer", "security-specialist", "documentation-writer")
# Those of a fast model.
FIRST_TOKEN_SECONDS, TOKENS_PER_SECOND = 0.3, 100.0
# The tasks of all calls are in memory at once, about 15 kB each.
_MOST_CALLS = 10_000
# With -I and this process's sys.path: with -m, Python would import from the working directory first.
# It ends with this process, however that ends: its standard input is closed then.
_SERVER = (
    "import json, os, sys, threading; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start(); "
    "from claude_force.testing.__main__ import main; sys.exit(main())"
)

STAND_IN = (
    "No key is used and nothing is paid: a stand-in on this machine answers, over real HTTP, with a\n"
    "pause and a pace like a model's. Its answers are counted facts, not reviews. Times and tokens\n"
    "are measured; costs are what these tokens would cost at list price.\n"
)
LIVE = "The real API answers, and these calls are paid for.\n"


@dataclass(frozen=True)
class Round:
    """The calls of one way to run them, and the seconds they took."""

    name: str
    wall_seconds: float
    results: Tuple[AgentResult, ...]

    def fields(self) -> Dict[str, Any]:
        """Returns the round as `--json` shows it."""
        durations = [result.duration for result in self.results]
        return {
            "run": self.name,
            "calls": len(self.results),
            "answered": sum(result.success for result in self.results),
            "wall_seconds": self.wall_seconds,
            "slowest_call_seconds": max(durations),
            "all_calls_seconds": sum(durations),
            "speed_up": sum(durations) / self.wall_seconds,
            "cached": sum(result.cached for result in self.results),
            "tokens": sum(result.usage.total_tokens for result in self.results if not result.cached),
            "cost_usd": _total([result.cost for result in self.results]),
            "saved_usd": _total([result.saved_cost for result in self.results if result.cached]),
        }


def _total(costs: Sequence[Optional[float]]) -> Optional[float]:
    """Returns a sum of USD, None if one of them is unknown."""
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def demo(args: argparse.Namespace) -> int:
    """Runs the demo. Returns 0, or 1 if a call failed. Raises InputError, AuthenticationError."""
    if not 1 <= args.calls <= _MOST_CALLS:
        raise InputError(f"--calls is {args.calls}: ask for 1 to {_MOST_CALLS:,} calls.")
    with _endpoint(args.live) as base_url:
        rounds = signals.run(_rounds(args, base_url))
    # A model may call other tools, and more of them: only the script's figures mean something here.
    tools = None if args.live else signals.run(_with_spinner(args))
    if args.json:
        fields = {"live": args.live, "runs": [one.fields() for one in rounds], "answers": _answers(rounds)}
        streams.write_json(fields if tools is None else {**fields, "tools": tools.fields()})
    else:
        _show(rounds, args.live)
        if tools is not None:
            tools.show()
    results = [result for one in rounds for result in one.results]
    return 0 if all(result.success for result in (*results, *(tools.results if tools else ()))) else 1


async def _with_spinner(args: argparse.Namespace) -> ToolDemo:
    with render.Spinner(lambda: "agents use their tools", args.json):
        return await run_tools()


@contextmanager
def _endpoint(live: bool) -> Iterator[Optional[str]]:
    """Yields the address of the stand-in, which runs in its own process, or None for the real API."""
    if live:
        yield None
        return
    command = [sys.executable, "-I", "-c", _SERVER, json.dumps(sys.path)]
    command += ["--time-to-first-token", str(FIRST_TOKEN_SECONDS)]
    command += ["--tokens-per-second", str(TOKENS_PER_SECOND)]
    # In its own session: Ctrl-C is for this process, which ends the server.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
        start_new_session=True,
    ) as server:
        try:
            line = server.stdout.readline() if server.stdout is not None else ""
            if "http://" not in line:
                raise InputError(
                    "The stand-in server did not start; `python -m claude_force.testing` shows why."
                )
            yield line.split()[-1]
        finally:
            server.terminate()


async def _rounds(args: argparse.Namespace, base_url: Optional[str]) -> List[Round]:
    three = rows(len(REVIEWED))
    many = rows(args.calls)
    key = None if args.live else "demo"
    # A separate cache: what is shown as new is new, and nothing is left behind.
    with tempfile.TemporaryDirectory() as folder, ResponseCache(cache_dir=Path(folder) / "cache") as cache:
        async with AsyncAgentOrchestrator(
            project(),
            api_key=key,
            base_url=base_url,
            max_concurrent=max(args.calls, 3),
            response_cache=cache,
            # The ledger would be written into the package.
            enable_tracking=False,
        ) as orchestrator:
            if args.live:
                await orchestrator.check_credentials()
            with render.Spinner(lambda: "the agents are working", args.json):
                # The first import and connection belong to no round.
                ready = "Say that you are ready."
                await orchestrator.execute_agent(TEAM[0], ready, max_tokens=400, tools=NO_TOOLS)
                return [
                    await _one_by_one(orchestrator, three),
                    await _at_once(orchestrator, f"{len(three)} at once", three, "off"),
                    await _at_once(orchestrator, f"{args.calls} at once", many, "refresh"),
                    await _at_once(orchestrator, f"{args.calls} again", many, "use"),
                ]


async def _one_by_one(orchestrator: AsyncAgentOrchestrator, tasks: Rows) -> Round:
    started = time.perf_counter()
    results = [
        await orchestrator.execute_agent(agent, task, cache="off", tools=NO_TOOLS) for agent, task in tasks
    ]
    return Round(f"{len(tasks)} one by one", time.perf_counter() - started, tuple(results))


async def _at_once(orchestrator: AsyncAgentOrchestrator, name: str, tasks: Rows, cache: str) -> Round:
    started = time.perf_counter()
    results = await orchestrator.execute_multiple(tasks, cache=cache, tools=NO_TOOLS)
    return Round(name, time.perf_counter() - started, tuple(results))


def rows(count: int) -> Rows:
    """Returns tasks for the agents in turn, each time with another file; no two are the same."""
    files = [f"{name}\n\n{(PACKAGE / name).read_text(encoding='utf-8')}" for name in REVIEWED]
    found = []
    for number in range(count):
        turn, again = number // len(TEAM), number // (len(TEAM) * len(files))
        file = files[(number + turn) % len(files)]
        found.append((TEAM[number % len(TEAM)], f"Reading {again + 1} of {file}" if again else file))
    return found


def project() -> Path:
    """Returns the example project: beside the package in a checkout, inside it once installed."""
    for folder in (PACKAGE.parent / "examples" / "review-team", PACKAGE / "cli" / "review-team"):
        if (folder / ".claude").is_dir():
            return folder / ".claude"
    raise InputError("The example project examples/review-team is missing: install the package again.")


def _answers(rounds: Sequence[Round]) -> List[Dict[str, Any]]:
    return [
        {"agent": result.agent_name, "file": file, "success": result.success, "output": result.output}
        for result, file in zip(rounds[0].results, REVIEWED)
    ]


def _show(rounds: Sequence[Round], live: bool) -> None:
    streams.write_line(LIVE if live else STAND_IN)
    heads = (
        *("run", "wall s", "slowest call s", "all calls s", "speed-up"),
        *("cached", "tokens", "cost", "saved"),
    )
    render.show_table(heads, [_cells(one.fields()) for one in rounds])
    for result, file in zip(rounds[0].results, REVIEWED):
        streams.write_line(f"\n== {result.agent_name} on {file}")
        streams.write_data(result.output if result.success else f"failed: {result.error}")


def _cells(fields: Dict[str, Any]) -> Sequence[str]:
    return (
        fields["run"],
        f"{fields['wall_seconds']:.3f}",
        f"{fields['slowest_call_seconds']:.3f}",
        f"{fields['all_calls_seconds']:.3f}",
        f"{fields['speed_up']:.1f}x",
        f"{fields['cached']} of {fields['calls']}",
        f"{fields['tokens']:,}",
        render.format_cost(fields["cost_usd"]),
        render.format_cost(fields["saved_usd"]),
    )
