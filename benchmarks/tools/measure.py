"""One subject in a process of its own: `python -m benchmarks.tools.measure NAME BASE_URL COUNT FORM HOME`.

Runs COUNT agents at once, some few before that, and prints what that took as a line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Dict, List

from ..used import cpu_seconds, resident_bytes
from .files import write_project
from .subjects import MODEL, SUBJECTS, SYSTEM

WARM = 10
_KB = 1024


def tasks_of(count: int, mark: str) -> List[str]:
    """All different, so that no cache helps."""
    return [f"{mark} {number}: read the notes." for number in range(count)]


def peak_bytes() -> int:
    """The highest resident size since `reset_peak` (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * _KB for line in lines if line.startswith("VmHWM:"))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


async def measure(name: str, base_url: str, count: int, streamed: bool, root: Path) -> Dict[str, float]:
    async with SUBJECTS[name](base_url, root, count, streamed) as run_agents:
        # Imports, connections and first calls are not what is measured.
        await run_agents(tasks_of(WARM, "warm"))
        gc.collect()
        reset_peak()
        before, cpu, began = resident_bytes(), cpu_seconds(), time.perf_counter()
        ended = await run_agents(tasks_of(count, "task"))
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
        grown = peak_bytes() - before
    return {
        "ended": ended,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "grown_mb": grown / 2**20,
        "resident_mb": (before + grown) / 2**20,
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    name, base_url, count, form, home = sys.argv[1:]
    os.environ["HOME"] = home
    root = write_project(Path(home, "project"), MODEL, SYSTEM)
    print(json.dumps(asyncio.run(measure(name, base_url, int(count), form == "streamed", root))), flush=True)
