"""What the prompt cache saves an agent of many turns: `python -m benchmarks.tools.money HOME`.

20 turns of a prompt of 5,000 tokens, to which each adds 2,000, against the stand-in, which models the cache.
Prints, as a line of JSON, the price of the input with and without the breakpoints, in USD.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, Dict, List

from claude_force import AsyncAgentOrchestrator
from claude_force.testing import MessagesServer, Script, tool_calls
from claude_force.testing.tokens import CHARACTERS_PER_TOKEN

from .files import write_project
from .subjects import MODEL

TURNS, SYSTEM_TOKENS, TURN_TOKENS = 20, 5_000, 2_000
# USD per token, and what writing to and reading from the cache cost of it.
_PRICE, _WRITE, _READ = 3e-6, 1.25, 0.1


def prices(usages: List[Dict[str, Any]]) -> Dict[str, float]:
    plain = sum(one["input_tokens"] for one in usages)
    written = sum(one["cache_creation_input_tokens"] for one in usages)
    read = sum(one["cache_read_input_tokens"] for one in usages)
    return {
        "with": _PRICE * (plain + _WRITE * written + _READ * read),
        "without": _PRICE * (plain + written + read),
        "turns": len(usages),
    }


async def measure(root: Path) -> Dict[str, float]:
    names = [f"long/{number}.txt" for number in range(TURNS - 1)]
    (root / "long").mkdir()
    for name in names:
        (root / name).write_text("x" * TURN_TOKENS * CHARACTERS_PER_TOKEN, encoding="utf-8")
    answers = [tool_calls(("Read", {"file_path": name})) for name in names]
    with MessagesServer(answer=Script([*answers, "All is read."])) as server:
        async with AsyncAgentOrchestrator(
            root / ".claude", api_key="none", base_url=server.base_url
        ) as running:
            result = await running.execute_agent("reader", "Read all.", tools="read", cache="off")
        assert result.success, result.error
        return prices([one.usage for one in server.bills])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    os.environ["HOME"] = sys.argv[1]
    system = "x" * SYSTEM_TOKENS * CHARACTERS_PER_TOKEN
    print(json.dumps(asyncio.run(measure(write_project(Path(sys.argv[1], "project"), MODEL, system)))))
