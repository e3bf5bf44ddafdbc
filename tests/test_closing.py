"""Closing an orchestrator during calls, and the first call: nothing hangs, nothing stays open."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import asynccontextmanager

import pytest
from fleet import ended, fleet

from claude_force import AgentOrchestrator, ResponseCache
from claude_force.errors import ClosedError, DeadlineExceededError
from claude_force.storage.batch_worker import BatchWorker
from claude_force.testing import MessagesServer
from claude_force.types import Clock


class TestClose:
    """Amid a run: what is finished is kept, what is not sent is not sent, and nothing is open after it."""

    async def test_close_ends_bulk_run_with_results(self, project):
        async with fleet(project, {"time_to_first_token": 0.02}, max_concurrent=3) as (orchestrator, server):
            tasks = [("python-expert", f"Task {number}") for number in range(60)]
            run = asyncio.ensure_future(orchestrator.execute_multiple(tasks))
            assert await ended(lambda: len(server.requests) >= 10)
            await orchestrator.close()
            sent = len(server.requests)
            results = await run
            assert len(results) == 60
            assert {type(result.error) for result in results if not result.success} == {ClosedError}
            assert sum(result.success for result in results) >= 6
            assert len(server.requests) == sent
            assert await ended(lambda: server.open_connections == 0)

    async def test_close_leaves_no_thread_or_file(self, project):
        async with fleet(project, {"time_to_first_token": 0.02}, max_concurrent=3) as (orchestrator, server):
            tasks = [("python-expert", f"Task {number}") for number in range(60)]
            run = asyncio.ensure_future(orchestrator.execute_multiple(tasks))
            assert await ended(lambda: len(server.requests) >= 10)
            await orchestrator.close()
            await run
            names = {thread.name for thread in threading.enumerate()}
            assert not [name for name in names if name.startswith("claude-force")]

    async def test_it_ends_a_workflow(self, project):
        async with fleet(project, {"time_to_first_token": 0.1}) as (orchestrator, server):
            run = asyncio.ensure_future(orchestrator.execute_workflow("review", "x"))
            assert await ended(lambda: server.requests)
            await orchestrator.close()
            assert isinstance((await run)[0].error, ClosedError)
            assert len(server.requests) == 1

    async def test_close_ends_call_waiting_for_lease(self, project, tmp_path):
        async with held_elsewhere(project, tmp_path) as (orchestrator, server, wanted):
            call = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "x"))
            assert await ended(lambda: wanted)
            await orchestrator.close()
            assert isinstance((await call).error, ClosedError)
            assert not server.requests


@asynccontextmanager
async def held_elsewhere(project, tmp_path, **limits):
    """A fleet with a cache in which somebody else is about to find every answer; what was wanted is told."""
    wanted = []
    with ResponseCache(cache_dir=tmp_path / "cache") as cache:
        cache.acquire_lease = lambda *asked: bool(wanted.append(asked))
        limits = {"clock": Clock(), "response_cache": cache, **limits}
        async with fleet(project, **limits) as (orchestrator, server):
            yield orchestrator, server, wanted


async def test_deadline_holds_while_waiting_for_lease(project, tmp_path):
    async with held_elsewhere(project, tmp_path, deadline_seconds=0.2) as (orchestrator, server, _):
        result = await orchestrator.execute_agent("python-expert", "x")
        assert isinstance(result.error, DeadlineExceededError)
        assert not server.requests


def test_first_call_does_not_block_loop(project, unmeasured):
    source = """
        import asyncio, sys, time
        from claude_force import AsyncAgentOrchestrator
        longest, original = 0.0, asyncio.events.Handle._run
        def run(handle):
            global longest
            began = time.thread_time()
            original(handle)
            longest = max(longest, time.thread_time() - began)
        async def main():
            asyncio.events.Handle._run = run
            async with AsyncAgentOrchestrator(sys.argv[1], max_concurrent=20) as orchestrator:
                tasks = [("python-expert", f"x {number}") for number in range(20)]
                assert all(result.success for result in await orchestrator.execute_multiple(tasks))
        asyncio.run(main())
        print(longest)
        """
    with MessagesServer() as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(source), str(project)],
            env={**os.environ, **server.environment()},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    # Of processor time: making the client and reading the prices took twice that.
    assert float(done.stdout) < 0.05


def test_sync_close_closes_cache(project):
    with MessagesServer() as server:
        orchestrator = AgentOrchestrator(project, api_key="test-key", base_url=server.base_url)
        assert orchestrator.run_agent("python-expert", "x").success
        orchestrator.close()
        names = {thread.name for thread in threading.enumerate()}
        assert not [name for name in names if name.startswith("claude-force")]


async def test_failed_batch_fails_its_waiters_only():
    def work(jobs):
        if "bad" in jobs:
            raise ZeroDivisionError("the job's own fault")
        return jobs

    worker = BatchWorker(work, "claude-force-test")
    with pytest.raises(ZeroDivisionError, match="own fault"):
        await asyncio.wait_for(worker.submit("bad"), 10)
    assert await asyncio.wait_for(worker.submit("good"), 10) == "good"
    worker.close()


def test_sync_stream_ends_with_close(project):
    with MessagesServer() as server:
        orchestrator = AgentOrchestrator(project, api_key="test-key", base_url=server.base_url)
        results = orchestrator.stream_multiple([("python-expert", f"x {number}") for number in range(50)])
        assert next(results).success
        orchestrator.close()
        with pytest.raises(ClosedError):
            next(results)
        left = orchestrator.stream_multiple([("python-expert", f"y {number}") for number in range(50)])
        next(left)
        orchestrator.close()
        left.close()
        names = {thread.name for thread in threading.enumerate()}
        assert not [name for name in names if name.startswith("claude-force")]
