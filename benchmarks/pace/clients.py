"""One client in a process of its own: `python -m
benchmarks.pace.clients NAME URL WORKLOAD ROWS SCALE CONCURRENT`.

Prints a line of JSON. Times are simulated seconds, which pass `scale` times as fast as real ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, List, Tuple, Union

from claude_force import AsyncAgentOrchestrator
from claude_force.types import Clock

from ..used import cpu_seconds, project
from .rows import MAX_TOKENS, REQUESTS, Row, rows

MODEL = "claude-sonnet-5-5"
SYSTEM = "You help."
LOOK_SECONDS = 0.05
# Whether each row succeeded, and the seconds from when it was taken on until it ended.
Ended = List[Tuple[bool, float]]


class Fast(Clock):
    """Runs `scale` times as fast as the real one."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def now(self) -> float:
        return time.monotonic() * self._scale

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._scale)


async def claude_force(
    base_url: str, given: List[Row], clock: Fast, scale: float, concurrent: Union[int, str]
) -> Ended:
    """As it comes: nothing is set by hand but how many at a time."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncAgentOrchestrator(
            project(Path(folder), MODEL, SYSTEM),
            api_key="none",
            base_url=base_url,
            max_concurrent=concurrent,
            stream=False,
            clock=clock,
        ) as running:
            tasks = (("expert", row.task) for row in given)
            results = running.stream_multiple(tasks, cache="off", max_tokens=MAX_TOKENS)
            return [(result.success, result.duration) async for result in results]


async def naive(
    base_url: str,
    given: List[Row],
    clock: Fast,
    scale: float,
    concurrent: int,
    wait: Callable[[], Awaitable[None]],
) -> Ended:
    """A semaphore around the official SDK, on its faster transport, with its own retries."""
    import anthropic

    free = asyncio.Semaphore(concurrent)
    limits = type(anthropic.DEFAULT_CONNECTION_LIMITS)(
        max_connections=concurrent, max_keepalive_connections=concurrent
    )

    class Scaled(anthropic.AsyncAnthropic):
        """The time that the SDK waits before it tries again passes as fast as all else."""

        def _calculate_retry_timeout(self, *arguments: Any, **named: Any) -> float:
            return float(super()._calculate_retry_timeout(*arguments, **named)) / scale

    client = Scaled(
        api_key="none", base_url=base_url, http_client=anthropic.DefaultAioHttpClient(limits=limits)
    )

    async def one(row: Row) -> Tuple[bool, float]:
        async with free:
            began = clock.now()
            await wait()
            try:
                await client.messages.create(
                    model=MODEL,
                    max_tokens=MAX_TOKENS,
                    system=SYSTEM,
                    messages=[{"role": "user", "content": row.task}],
                )
            except anthropic.APIError:
                return False, clock.now() - began
            return True, clock.now() - began

    async with client:
        return list(await asyncio.gather(*(one(row) for row in given)))


def by_requests(clock: Fast) -> Callable[[], Awaitable[None]]:
    """Spaces rows out evenly over the minute, by the limit of requests alone."""
    due = clock.now()

    async def wait() -> None:
        nonlocal due
        due = max(due, clock.now()) + 60 / REQUESTS
        await clock.sleep(max(0.0, due - clock.now()))

    return wait


async def at_once() -> None:
    """No pacing."""


async def run(name: str, base_url: str, given: List[Row], scale: float, concurrent: str) -> Ended:
    clock = Fast(scale)
    if name == "claude-force":
        most = int(concurrent) if concurrent.isdigit() else concurrent
        return await claude_force(base_url, given, clock, scale, most)
    wait = by_requests(clock) if name == "SDK, paced by requests" else at_once
    return await naive(base_url, given, clock, scale, int(concurrent), wait)


async def watched(work: Awaitable[Ended]) -> Tuple[Ended, float]:
    """What `work` returns, and how late the loop woke up at the worst of a hundred times, in real seconds."""
    late: List[float] = []

    async def watch() -> None:
        while True:
            due = time.perf_counter() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            late.append(time.perf_counter() - due)

    watching = asyncio.ensure_future(watch())
    ended = await work
    watching.cancel()
    return ended, sorted(late)[len(late) * 99 // 100]


def main() -> None:
    name, base_url, workload, count, scale, concurrent = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    given, began = rows(workload, int(count)), time.perf_counter()
    work = run(name, base_url, given, float(scale), concurrent)
    ended, late = asyncio.run(watched(work))
    found: Dict[str, float] = {
        "rows": len(ended),
        "succeeded": sum(success for success, _ in ended),
        "longest": max(seconds for _, seconds in ended),
        "real_seconds": time.perf_counter() - began,
        "late_seconds": late,
        "cpu_seconds": cpu_seconds(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
