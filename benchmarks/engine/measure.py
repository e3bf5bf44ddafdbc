"""One subject in a process of its own: `python measure.py NAME BASE_URL REQUESTS CONCURRENT HOME`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
import time
from typing import List

from subjects import SUBJECTS

TASK_CHARACTERS = 4096


def tasks_of(count: int, mark: str) -> List[str]:
    """All different, so that no cache helps."""
    return [f"{mark} {number} ".ljust(TASK_CHARACTERS, "x") for number in range(count)]


async def measure(name: str, base_url: str, requests: int, concurrent: int) -> None:
    run = SUBJECTS[name]
    # Imports, connections and first calls are not what is measured.
    await run(base_url, tasks_of(2 * concurrent, "warm"), concurrent)
    before = resource.getrusage(resource.RUSAGE_SELF)
    tasks = tasks_of(requests, "task")
    began = time.perf_counter()
    characters = await run(base_url, tasks, concurrent)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    found = {
        "requests_per_second": requests / seconds,
        "cpu_ms": cpu / requests * 1000,
        "resident_mb": after.ru_maxrss / 1024,
        "characters": characters,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    os.environ["HOME"] = sys.argv[5]
    asyncio.run(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
