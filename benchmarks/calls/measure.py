"""One subject in a process of its own: `python -m benchmarks.calls.measure NAME HOME`.

Reads a cell as a line of JSON, measures it, and prints what it found as a line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from typing import Any, Dict, List

from ..used import cpu_seconds, resident_bytes
from .subjects import SUBJECTS

TASK_CHARACTERS = 4096


def tasks_of(count: int, mark: str) -> List[str]:
    """All different, so that no cache helps."""
    return [f"{mark} {number} ".ljust(TASK_CHARACTERS, "x") for number in range(count)]


async def measure(name: str, cell: Dict[str, Any]) -> Dict[str, float]:
    async with SUBJECTS[name](cell["base_url"], cell["concurrent"], cell["streamed"]) as ask:
        # Imports, connections and first calls are not what is measured.
        await ask(tasks_of(cell["warm"], "warm"))
        gc.collect()
        tasks = tasks_of(cell["requests"], "task")
        cpu, began = cpu_seconds(), time.perf_counter()
        characters = await ask(tasks)
        seconds = time.perf_counter() - began
        cpu = cpu_seconds() - cpu
    return {
        "requests_per_second": cell["requests"] / seconds,
        "cpu_ms": cpu / cell["requests"] * 1000,
        "resident_mb": resident_bytes() / 2**20,
        "characters": characters,
    }


async def main(name: str) -> None:
    loop, out = asyncio.get_running_loop(), sys.stdout
    # What a library prints is no figure.
    sys.stdout = sys.stderr
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            return
        print(json.dumps(await measure(name, json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    os.environ["HOME"] = sys.argv[2]
    asyncio.run(main(sys.argv[1]))
