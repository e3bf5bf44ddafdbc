"""Streams of tasks: every row has a result, memory is bounded, and leaving early cancels the rest."""

import asyncio

import pytest
from fleet import ended, fleet, write_project

from claude_force import AgentOrchestrator
from claude_force.bulk import stream_results
from claude_force.errors import InvalidTaskError
from claude_force.types import AgentResult


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


class Runs:
    """Simulates the run of a row: ends at once, or, with `waits`, when its event is set."""

    def __init__(self, waits=False):
        self.waits = waits
        self.under_way = self.most = self.ended = self.cancelled = 0
        self.words = {}

    async def __call__(self, index, agent, task, watch):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.waits:
                self.words[task] = asyncio.Event()
                await self.words[task].wait()
            else:
                await asyncio.sleep(0)
            self.ended += 1
            return AgentResult(agent, True, output=task)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1


class Source:
    """An iterable of tasks that counts how many were taken."""

    def __init__(self, count, fails_at=None):
        self.count, self.taken, self.fails_at = count, 0, fails_at

    def __iter__(self):
        for number in range(self.count):
            if number == self.fails_at:
                raise OSError("the disk is gone")
            self.taken += 1
            yield ("agent", str(number))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_each_task_has_one_result():
    results = [result async for result in stream_results(Source(100), Runs(), 10)]
    assert sorted(result.index for result in results) == list(range(100))
    assert all(result.output == str(result.index) for result in results)


async def test_no_tasks_give_no_results():
    assert [result async for result in stream_results([], Runs(), 10)] == []


async def test_takes_async_iterables():
    async def tasks():
        for number in range(5):
            await asyncio.sleep(0)
            yield ("agent", str(number))

    assert len([result async for result in stream_results(tasks(), Runs(), 2)]) == 5


async def test_limits_unfinished_tasks():
    runs, source = Runs(waits=True), Source(1000)
    results = stream_results(source, runs, 7)
    first = asyncio.ensure_future(results.__anext__())
    await settle()
    assert (runs.under_way, source.taken) == (7, 7)
    runs.words["3"].set()
    assert (await first).index == 3
    await settle()
    assert source.taken == 7
    await results.aclose()


async def test_slow_reader_slows_the_run():
    runs, source = Runs(), Source(1000)
    results = stream_results(source, runs, 5)
    assert (await results.__anext__()).success
    await settle()
    assert source.taken <= 6
    await results.aclose()


async def test_orders_results():
    for in_order, expected in ((False, [2, 1, 0]), (True, [0, 1, 2])):
        runs = Runs(waits=True)
        results = stream_results(Source(3), runs, 3, in_order)
        reading = asyncio.ensure_future(collect(results))
        await settle()
        for task in "210":
            runs.words[task].set()
            await settle()
        assert [result.index for result in await reading] == expected


async def collect(results):
    return [result async for result in results]


async def test_in_order_bounds_memory():
    runs, source = Runs(waits=True), Source(1000)
    reading = asyncio.ensure_future(collect(stream_results(source, runs, 4, in_order=True)))
    await settle()
    for task in "123":
        runs.words[task].set()
    await settle()
    assert source.taken == 4
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert runs.cancelled == 1


async def test_leaving_early_cancels_rows():
    runs = Runs(waits=True)
    results = stream_results(Source(100), runs, 10)
    first = asyncio.ensure_future(results.__anext__())
    await settle()
    runs.words["0"].set()
    await first
    await results.aclose()
    assert (runs.under_way, runs.cancelled) == (0, 9)


async def test_failing_source_raises_at_the_end():
    results, seen = stream_results(Source(100, fails_at=20), Runs(), 10), []
    with pytest.raises(OSError, match="disk"):
        async for result in results:
            seen.append(result.index)
    assert sorted(seen) == list(range(20))


async def test_invalid_task_is_a_failed_result():
    tasks = [("agent", "x"), "agent", ("agent",), None, ("agent", "y", "z")]
    results = [result async for result in stream_results(tasks, Runs(), 2, in_order=True)]
    assert [result.success for result in results] == [True, False, False, False, False]
    assert "Task 3 is None" in results[3].errors[0]


async def test_streams_over_a_fleet(project):
    tasks = (("python-expert", f"Task {number}") if number % 10 else ("nobody", "x") for number in range(200))
    async with fleet(project, max_concurrent=8) as (orchestrator, server):
        results = {result.index: result async for result in orchestrator.stream_multiple(tasks)}
        assert len(results) == 200
        failed = sorted(index for index, result in results.items() if not result.success)
        assert failed == list(range(0, 200, 10))
        assert len(server.requests) == 180
        assert server.max_in_flight <= 8


async def test_leaving_early_closes_connections(project):
    tasks = (("python-expert", f"Task {number}") for number in range(10_000))
    async with fleet(project, {"time_to_first_token": 0.02}, max_concurrent=4) as (orchestrator, server):
        async for _ in orchestrator.stream_multiple(tasks):
            break
        assert await ended(lambda: server.in_flight == 0)
        assert len(server.requests) < 20


def test_the_sync_face_streams_too(project, messages_server):
    with AgentOrchestrator(project) as orchestrator:
        tasks = [("python-expert", f"Task {number}") for number in range(20)]
        results = list(orchestrator.stream_multiple(tasks, in_order=True))
        assert [result.index for result in results] == list(range(20))
        for result in orchestrator.stream_multiple(tasks, cache="off"):
            assert result.success
            break


async def test_call_options_apply_to_all_rows(project):
    async with fleet(project) as (orchestrator, _):
        tasks = [("python-expert", "a"), ("code-reviewer", "b")]
        results = [one async for one in orchestrator.stream_multiple(tasks, max_tokens=2)]
        assert [result.truncated for result in results] == [True, True]


async def test_invalid_task_has_typed_error(project):
    async with fleet(project) as (orchestrator, _):
        (result,) = [one async for one in orchestrator.stream_multiple([("python-expert", "")])]
        assert isinstance(result.error, InvalidTaskError)
