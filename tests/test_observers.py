"""What observers learn of each call, how its time was spent, and that no observer can fail a call."""

import asyncio
import time

import pytest
from fleet import FakeClock, ended, fleet, write_project

from claude_force import AgentOrchestrator
from claude_force.errors import (
    BudgetExceededError,
    CancelledCallError,
    DeadlineExceededError,
    InputError,
)
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.testing import MessagesServer, faults
from claude_force.types import Clock

MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": 3.0, "output": 15.0}}


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


async def test_observer_gets_call_result_and_start(project):
    seen, before = [], time.time()
    async with fleet(project, observers=[seen.append]) as (orchestrator, _):
        result = await orchestrator.execute_agent("python-expert", "Explain", workflow_name="w")
    (reported,) = seen
    assert reported.result is result
    assert (reported.call.agent_name, reported.call.task) == ("python-expert", "Explain")
    assert before <= reported.started <= time.time()
    assert (reported.workflow_name, reported.workflow_position) == ("w", None)


async def test_observer_gets_failures_and_cache_hits(project):
    seen = []
    async with fleet(project, {"faults": [None, faults.status(400)]}, observers=[seen.append]) as (
        orchestrator,
        _,
    ):
        for task in ("a", "a", "b"):
            await orchestrator.execute_agent("python-expert", task)
        with pytest.raises(InputError):
            await orchestrator.execute_agent("nobody", "x")
    assert [(one.result.success, one.result.cached) for one in seen] == [
        (True, False),
        (True, True),
        (False, False),
    ]


async def test_unsent_call_logs_no_error(project, caplog):
    caplog.set_level("INFO", logger="claude_force")
    async with fleet(project, prices=PRICES, budget_usd=1e-6) as (orchestrator, _):
        await orchestrator.execute_agent("python-expert", "x", model=MODEL)
    assert [one.levelname for one in caplog.records if "failed" in one.message] == ["INFO"]


class TestCancelled:
    async def test_cancelled_call_has_cost_bound(self, project):
        seen = []
        plan = {"time_to_first_token": 0.0, "tokens_per_second": 20, "output_tokens": 2_000}
        async with fleet(project, plan, prices=PRICES, clock=Clock(), observers=[seen.append]) as (
            orchestrator,
            _,
        ):
            texts = []

            class Reader(CallListener):
                def wrote(self, text):
                    texts.append(text)

            call = asyncio.ensure_future(
                orchestrator._calls.execute(CallContext(listener=Reader()), "python-expert", "x", model=MODEL)
            )
            assert await ended(lambda: texts)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert call.cancelled()
            (reported,) = seen
            assert isinstance(reported.result.error, CancelledCallError)
            assert reported.result.attempts == 1
            # The prompt is billed, and of the answer what had come.
            assert reported.result.cost > 0
            summary = orchestrator.get_performance_summary()
            assert summary["errors_by_type"] == {"CancelledCallError": 1}
            assert summary["cost_usd"] == pytest.approx(reported.result.cost)

    async def test_observer_skips_unsent_call(self, project):
        seen = []
        plan = {"faults": [faults.silence_before_first_byte()] * 2}
        async with fleet(project, plan, clock=Clock(), max_concurrent=1, observers=[seen.append]) as (
            orchestrator,
            server,
        ):
            first = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "first"))
            assert await ended(lambda: server.in_flight)
            second = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "second"))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            assert seen == []
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert [one.call.task for one in seen] == ["first"]

    async def test_follower_inherits_cost_of_cancelled_leader(self, project):
        plan = {"time_to_first_token": 0.3}
        async with fleet(project, plan, prices=PRICES, clock=Clock()) as (orchestrator, server):

            def ask():
                return asyncio.ensure_future(orchestrator.execute_agent("python-expert", "x", model=MODEL))

            first = ask()
            assert await ended(lambda: server.in_flight)
            others = [ask(), ask()]
            await asyncio.sleep(0)
            first.cancel()
            results = await asyncio.gather(*others)
            assert len(server.requests) == 1
            assert sorted((one.shared, one.attempts) for one in results) == [(False, 1), (True, 0)]
            assert sum(one.cost for one in results) == pytest.approx(max(one.cost for one in results))
            assert max(one.cost for one in results) > 0


async def test_observer_error_is_logged(project, caplog):
    def broken(executed):
        raise ValueError("no room")

    seen = []
    async with fleet(project, observers=[broken, seen.append]) as (orchestrator, _):
        assert (await orchestrator.execute_agent("python-expert", "x")).success
    assert len(seen) == 1
    assert "an observer of calls failed" in caplog.text


def test_the_sync_face_has_observers_too(project):
    seen = []
    with MessagesServer() as server, AgentOrchestrator(
        project, api_key="k", base_url=server.base_url, observers=[seen.append]
    ) as orchestrator:
        orchestrator.run_agent("python-expert", "x")
        orchestrator.observers.append(seen.append)
        orchestrator.run_agent("python-expert", "y")
    assert [one.call.task for one in seen] == ["x", "y", "y"]


class TestTimeline:
    async def test_attempts_have_times_and_errors(self, project):
        clock = FakeClock()
        plan = {"faults": [faults.status(529), faults.status(500)]}
        async with fleet(project, plan, clock=clock, max_concurrent=7) as (orchestrator, _):
            result = await orchestrator.execute_agent("python-expert", "x")
        assert [one.error for one in result.timeline] == ["OverloadedError", "ServerError", None]
        assert result.attempts == 3
        assert result.timeline[0].window == 7
        # Between attempts time passes only in the backoff.
        gaps = [after.began - before.ended for before, after in zip(result.timeline, result.timeline[1:])]
        assert sum(gaps) == pytest.approx(sum(clock.slept))
        assert result.wait == pytest.approx(sum(clock.slept))

    async def test_service_plus_wait_is_duration(self, project):
        async with fleet(project, {"time_to_first_token": 0.02}, clock=Clock(), max_concurrent=1) as (
            orchestrator,
            _,
        ):
            results = await orchestrator.execute_multiple([("python-expert", str(n)) for n in range(3)])
        for result in results:
            assert result.service + result.wait == pytest.approx(result.duration)
            assert 0 <= result.timeline[0].began <= result.timeline[0].ended <= result.duration
        # One at a time: each waits for those before it.
        assert results[2].wait >= results[1].service + results[0].service

    async def test_cached_and_shared_answers_have_no_attempt(self, project):
        async with fleet(project) as (orchestrator, _):
            both = await orchestrator.execute_multiple([("python-expert", "x")] * 2)
            kept = await orchestrator.execute_agent("python-expert", "x")
        assert sorted((one.shared, one.attempts, len(one.timeline)) for one in both) == [
            (False, 1, 1),
            (True, 0, 0),
        ]
        assert (kept.cached, kept.attempts, kept.timeline, kept.service) == (True, 0, (), 0)

    async def test_what_was_not_sent_is_no_attempt(self, project):
        async with fleet(project, prices=PRICES, budget_usd=1e-6) as (orchestrator, server):
            result = await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            assert isinstance(result.error, BudgetExceededError)
            assert (result.attempts, result.timeline, server.requests) == (0, (), [])

    async def test_deadline_keeps_cut_off_attempt(self, project):
        plan = {"faults": [faults.silence_before_first_byte()]}
        async with fleet(project, plan, clock=Clock(), deadline_seconds=0.2) as (orchestrator, _):
            result = await orchestrator.execute_agent("python-expert", "x")
        assert isinstance(result.error, DeadlineExceededError)
        assert result.attempts == len(result.timeline) == 1
        assert result.timeline[0].ended <= result.duration

    async def test_it_is_plain_values_in_a_dict(self, project):
        async with fleet(project) as (orchestrator, _):
            (row,) = (await orchestrator.execute_agent("python-expert", "x")).to_dict()["timeline"]
        assert set(row) == {"began", "ended", "window", "error"}

    async def test_waiting_is_not_service_time(self, project):
        async with fleet(project, {"time_to_first_token": 0.05}, clock=Clock(), max_concurrent=2) as (
            orchestrator,
            _,
        ):
            began = asyncio.get_running_loop().time()
            results = await orchestrator.execute_multiple([("python-expert", str(n)) for n in range(6)])
            wall = asyncio.get_running_loop().time() - began
        assert sum(one.service for one in results) <= 2 * wall
