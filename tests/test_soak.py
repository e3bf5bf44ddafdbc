"""A long run uses no more resources in each further hour. `make soak` runs it for ten minutes."""

import asyncio
import gc
import itertools
import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from anyio import to_thread
from pages import ROOT

from claude_force import AsyncAgentOrchestrator, ResponseCache

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="is measured as Linux tells it")

CONCURRENT = 50
MEGABYTES = 25


@asynccontextmanager
async def stand_in():
    command = [sys.executable, "-m", "claude_force.testing", "--output-tokens", "50"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield (await to_thread.run_sync(process.stdout.readline)).split()[-1]
    finally:
        process.terminate()
        await to_thread.run_sync(process.wait)
        process.stdout.close()


class Held:
    """What the process has at this moment, when nothing is under way."""

    def __init__(self):
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        self.descriptors = len(list(Path("/proc/self/fd").iterdir()))
        self.threads = threading.active_count()
        self.tasks = len(asyncio.all_tasks())


async def _leg(orchestrator, numbers, calls):
    """Half of the answers are kept, a tenth is asked for twice, and now and then somebody leaves early."""
    tasks = [
        ("python-expert", f"Task {number - number % 10 // 9}") for number in itertools.islice(numbers, calls)
    ]
    half = calls // 2
    for policy, some in (("use", tasks[:half]), ("off", tasks[half:])):
        succeeded = 0
        async for result in orchestrator.stream_multiple(some, cache=policy):
            succeeded += result.success
        assert succeeded == half
    stream = orchestrator.stream_multiple(tasks[:CONCURRENT], cache="off")
    async for _ in stream:
        break
    await stream.aclose()


async def _run(config, calls, leg, seconds, folder):
    held, numbers, until = [], itertools.count(), time.monotonic() + seconds
    with ResponseCache(cache_dir=folder, max_size_mb=5) as cache:
        orchestrator = AsyncAgentOrchestrator(
            config, api_key="test-key", max_concurrent=CONCURRENT, response_cache=cache
        )
        done = 0
        while done < calls or time.monotonic() < until:
            # Another process each time, since it remembers every request.
            async with stand_in() as orchestrator.base_url:
                await _leg(orchestrator, numbers, leg)
                await orchestrator.close()
            done += leg
            held.append(Held())
    return held


def test_memory_descriptors_and_threads_stay_where_they_are(project, tmp_path, soak):
    calls, leg, seconds = (200_000, 5_000, 600) if soak else (600, 200, 0)
    held = asyncio.run(_run(project, calls, leg, seconds, tmp_path / "cache"))
    # An idle helper thread of anyio's or asyncio's may be there at one look and not at the next.
    for what, slack in (("descriptors", 2), ("threads", 3), ("tasks", 0)):
        counts = [getattr(one, what) for one in held]
        assert max(counts[1:]) <= counts[0] + slack, (what, counts)
    third = max(1, len(held) // 3)
    middle, end = (
        statistics.median(one.megabytes for one in part) for part in (held[third : 2 * third], held[-third:])
    )
    print(f"{middle:.1f} MB, at the end {end:.1f}: {[round(one.megabytes) for one in held]}")  # noqa: T201
    assert end - middle <= (10 if soak else MEGABYTES)
