"""Agents under a rate limit: `python -m benchmarks.tools.pace server|client ...`.

Simulated time passes faster than real time for both, so that minutes take seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict

from claude_force import AsyncAgentOrchestrator
from claude_force.testing import MessagesServer, RateLimit, Script, tool_calls

from ..pace.clients import Fast
from ..processes import ROOT, answered
from .files import FINAL, NAMES, write_project
from .subjects import MAX_TOKENS, MODEL, SYSTEM

AGENTS, REQUESTS_OF_EACH, A_MINUTE, SCALE = 500, 8, 1_000, 5.0
_FIRST_TOKEN_SECONDS = 2.0


def measure(home: Path) -> Dict[str, float]:
    """The share of the limit from the second minute on, and of requests that were answered 429."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tools.pace", "server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=str(ROOT),
    ) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().strip()
        try:
            client = answered("-m", "benchmarks.tools.pace", "client", base_url, str(home))
        finally:
            seen = json.loads(server.communicate()[0].strip().splitlines()[-1])
    minutes = (seen["taken"][-1] - 60) / 60
    later = sum(at >= 60 for at in seen["taken"])
    return {
        "ended": client["ended"],
        "share": later / A_MINUTE / minutes,
        "refused": 1 - len(seen["taken"]) / seen["requests"],
        "minutes": seen["taken"][-1] / 60,
    }


def serve() -> Dict[str, Any]:
    """Serves until the standard input ends; returns when requests were taken, in simulated seconds."""

    def clock() -> float:
        return time.monotonic() * SCALE

    names = [NAMES[number % len(NAMES)] for number in range(REQUESTS_OF_EACH - 1)]
    answers = [tool_calls(("Read", {"file_path": name})) for name in names]
    with MessagesServer(
        time_to_first_token=_FIRST_TOKEN_SECONDS / SCALE,
        answer=Script([*answers, FINAL]),
        rate_limit=RateLimit(A_MINUTE),
        clock=clock,
    ) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()
        began = server.requests[0].at
        return {
            "requests": len(server.requests),
            "taken": sorted(one.received.at - began for one in server.bills),
        }


async def run(base_url: str, root: Path) -> Dict[str, int]:
    async with AsyncAgentOrchestrator(
        root / ".claude", api_key="none", base_url=base_url, max_concurrent=AGENTS, clock=Fast(SCALE)
    ) as running:
        tasks = (("reader", f"Read the notes, {number}.") for number in range(AGENTS))
        results = running.stream_multiple(tasks, tools="read", cache="off", max_tokens=MAX_TOKENS)
        return {"ended": sum([result.success async for result in results])}


def main() -> None:
    logging.disable(logging.CRITICAL)
    if sys.argv[1] == "server":
        print(json.dumps(serve()), flush=True)
        return
    base_url, home = sys.argv[2:]
    os.environ["HOME"] = home
    print(json.dumps(asyncio.run(run(base_url, write_project(Path(home, "project"), MODEL, SYSTEM)))))


if __name__ == "__main__":
    main()
