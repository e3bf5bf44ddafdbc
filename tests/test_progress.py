"""The events of a bulk run and their progress."""

import asyncio
import dataclasses

import pytest
from fleet import FakeClock, ended, fleet, write_project

from claude_force.bulk import Cached, Finished, Paused, Progress, ProgressTracker, Queued, Retried, Started
from claude_force.errors import ClosedError
from claude_force.testing import faults
from claude_force.types import AgentResult, Usage

MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": 1.0, "output": 5.0}}


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


async def events_of(project, rows, server=None, **options):
    seen = []
    async with fleet(project, server, prices=PRICES) as (orchestrator, _):
        results = await orchestrator.execute_multiple(rows, on_event=seen.append, model=MODEL, **options)
    return seen, results


async def test_reports_events_of_a_row(project):
    seen, (result,) = await events_of(project, [("python-expert", "x")])
    assert [type(event) for event in seen] == [Queued, Started, Finished]
    assert [event.progress.in_flight for event in seen] == [0, 1, 0]
    last = seen[-1]
    assert last.result is result
    assert (last.index, last.agent_name) == (0, "python-expert")
    assert last.progress.cost == result.cost > 0
    assert last.progress.cost_expected == pytest.approx(result.cost)
    assert last.progress.output_tokens == result.usage.output_tokens
    with pytest.raises(dataclasses.FrozenInstanceError):
        last.index = 3


async def test_reports_retries_and_pauses(project):
    plan = {"faults": [faults.status(429, retry_after=2)]}
    seen, _ = await events_of(project, [("python-expert", "x")], plan)
    assert [type(event) for event in seen] == [Queued, Started, Paused, Retried, Started, Finished]
    assert 2 <= seen[2].seconds <= 2.5
    assert "429" in str(seen[2].error)
    assert seen[3].attempt == 1
    assert seen[4].attempt == 2
    assert seen[-1].progress.attempts == 2


async def test_reports_cached_and_shared_rows(project):
    rows = [("python-expert", "x")] * 3
    seen, _ = await events_of(project, rows)
    assert sum(isinstance(event, Cached) for event in seen) == 2
    assert sum(isinstance(event, Started) for event in seen) == 1
    progress = seen[-1].progress
    assert (progress.done, progress.cached, progress.total) == (3, 2, 3)
    assert progress.saved > 0


async def test_counts_failed_rows(project):
    seen, _ = await events_of(
        project, [("nobody", "x"), ("python-expert", ""), "what", ("python-expert", "y")]
    )
    progress = seen[-1].progress
    assert (progress.done, progress.failed, progress.queued, progress.in_flight) == (4, 3, 0, 0)
    failed, _ = await events_of(project, [("python-expert", "z")], {"faults": [faults.status(400)]})
    assert failed[-1].progress.failed == 1


async def test_counts_add_up(project):
    rows = [("python-expert", f"Task {number}") for number in range(60)]
    plan = {"faults": lambda received: faults.status(500) if len(received.raw) % 3 == 0 else None}
    seen, _ = await events_of(project, rows, plan)
    for event in seen:
        now = event.progress
        assert now.done + now.queued + now.in_flight <= now.total == 60
        assert min(now.done, now.queued, now.in_flight, now.failed, now.cached) >= 0
    assert seen[-1].progress.done == 60


def test_rate_is_of_the_last_minute():
    clock, events = FakeClock(), []
    tracker = ProgressTracker(events.append, 200, clock.now)
    for number in range(100):
        clock.time += 10 if number < 20 else 1
        tracker.row(number, "a").finished(AgentResult("a", True, usage=Usage(1, 1)))
    progress = events[-1].progress
    assert progress.rate == pytest.approx(1, rel=0.05)
    assert progress.seconds_left == pytest.approx(100, rel=0.05)
    assert progress.elapsed == 280


def test_rate_forgets_pauses():
    clock, events = FakeClock(), []
    tracker = ProgressTracker(events.append, 200, clock.now)
    for number in range(70):
        clock.time += 600 if number == 30 else 2
        tracker.row(number, "a").finished(AgentResult("a", True, usage=Usage(1, 1)))
        if number == 30:
            assert events[-1].progress.rate < 0.01
    assert events[-1].progress.rate == pytest.approx(0.5, rel=0.05)


def test_what_is_not_known_is_none():
    events = []
    tracker = ProgressTracker(events.append, None, FakeClock().now)
    tracker.row(0, "a").finished(AgentResult("a", True, cost=None))
    assert events[0].progress == Progress(queued=1)
    progress = events[-1].progress
    assert (progress.total, progress.cost_expected, progress.seconds_left) == (None, None, None)
    assert progress.unpriced == 1


class TestDrain:
    async def test_drain_finishes_requests(self, project):
        rows = [("python-expert", f"Task {number}") for number in range(30)]
        plan = {"time_to_first_token": 0.2}
        async with fleet(project, plan, max_concurrent=5, clock=None) as (orchestrator, server):
            running = asyncio.ensure_future(orchestrator.execute_multiple(rows))
            assert await ended(lambda: len(server.requests) >= 5)
            await orchestrator.drain(5)
            results = await running
        assert sum(result.success for result in results) == 5
        assert len(server.requests) == 5
        assert all(isinstance(result.error, ClosedError) for result in results if not result.success)

    async def test_drain_records_sent_calls_only(self, project):
        plan, reported = {"time_to_first_token": 30}, []
        async with fleet(project, plan, max_concurrent=2, clock=None) as (orchestrator, server):
            orchestrator.observers.append(reported.append)
            rows = [("python-expert", f"Task {number}") for number in range(6)]
            running = asyncio.ensure_future(orchestrator.execute_multiple(rows))
            assert await ended(lambda: len(server.requests) >= 2)
            await orchestrator.drain(0.05)
            await orchestrator.close()
            assert len(await running) == 6
            assert orchestrator.get_performance_summary()["errors_by_type"] == {"ClosedError": 2}
        assert [one.result.attempts for one in reported] == [1, 1]

    async def test_drain_stops_at_its_limit(self, project):
        async with fleet(project, {"time_to_first_token": 30}, clock=None) as (orchestrator, server):
            running = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "x"))
            assert await ended(lambda: server.requests)
            await orchestrator.drain(0.05)
            assert not running.done()
            await orchestrator.close()
            assert isinstance((await running).error, ClosedError)

    async def test_reopens_after_drain_and_close(self, project):
        async with fleet(project) as (orchestrator, _):
            await orchestrator.execute_agent("python-expert", "x")
            await orchestrator.drain(1)
            assert not (await orchestrator.execute_agent("python-expert", "y")).success
            await orchestrator.close()
            assert (await orchestrator.execute_agent("python-expert", "y")).success


def test_cached_rows_leave_the_rate():
    clock, events = FakeClock(), []
    tracker = ProgressTracker(events.append, 1_100, clock.now)
    clock.time += 20
    for number in range(1_000):
        clock.time += 0.01
        tracker.row(number, "a").finished(AgentResult("a", True, cached=True))
    assert events[-1].progress.seconds_left is None
    for number in range(1_000, 1_020):
        row = tracker.row(number, "a")
        row.started(1)
        clock.time += 2
        row.finished(AgentResult("a", True, usage=Usage(1, 1), attempts=1))
    progress = events[-1].progress
    assert progress.rate == pytest.approx(0.5, rel=0.06)
    assert progress.seconds_left == pytest.approx(160, rel=0.06)


def test_unrunnable_rows_leave_the_rate():
    clock, events = FakeClock(), []
    tracker = ProgressTracker(events.append, 1_100, clock.now)
    for number in range(1_000):
        tracker.row(number, "a").finished(AgentResult("a", False))
    assert events[-1].progress.seconds_left is None
