"""What the turns of a long loop take of the processor: `python -m benchmarks.tools.turns BASE_URL HOME`.

Prints, as a line of JSON, the milliseconds of a turn around the 10th and the 100th, by agent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import sys
from pathlib import Path
from typing import Any, List

from claude_force import AsyncAgentOrchestrator
from claude_force.bulk import TurnBegan

from ..used import cpu_seconds
from .files import write_project
from .subjects import MAX_TOKENS, MODEL, MOST_TURNS, SYSTEM

AGENTS = 6
# The 10th and the 100th turn, each with its neighbours.
AROUND = (slice(5, 15), slice(95, 105))


async def measure(base_url: str, root: Path) -> List[List[float]]:
    """Runs one agent after another, so that each turn is of one of them alone."""
    found = []
    async with AsyncAgentOrchestrator(root / ".claude", api_key="none", base_url=base_url) as running:
        for number in range(AGENTS):
            began: List[float] = []

            def note(event: Any, began: List[float] = began) -> None:
                if isinstance(event, TurnBegan):
                    began.append(cpu_seconds())

            await running.execute_agent(
                "reader",
                f"Read the notes, {number}.",
                tools="read",
                max_tokens=MAX_TOKENS,
                max_turns=MOST_TURNS,
                on_event=note,
            )
            turns = [1000 * (after - before) for before, after in zip(began, began[1:])]
            found.append([statistics.median(turns[around]) for around in AROUND])
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    base_url, home = sys.argv[1:]
    os.environ["HOME"] = home
    root = write_project(Path(home, "project"), MODEL, SYSTEM)
    print(json.dumps(asyncio.run(measure(base_url, root))), flush=True)
