"""A fleet that is told to come later comes later, all of it, and not in one moment."""

import asyncio

import pytest
from fleet import FakeClock, fleet, write_project

from claude_force.calling.pause import Pause
from claude_force.errors import OverloadedError, RateLimitError, ServerError
from claude_force.testing import faults


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.mark.parametrize("status", [429, 529])
@pytest.mark.parametrize("max_concurrent", [1, 3])
async def test_nobody_is_sent_before_the_time_that_one_was_told(project, status, max_concurrent):
    clock = FakeClock()
    plan = {"faults": [faults.status(status, retry_after="7")], "clock": clock.now}
    tasks = [("python-expert", f"Task {number}") for number in range(10)]
    async with fleet(project, plan, clock=clock, max_concurrent=max_concurrent) as (orchestrator, server):
        first = await orchestrator.execute_agent("python-expert", "the one that is told")
        assert first.success
        results = await orchestrator.execute_multiple(tasks)
        assert all(result.success for result in results)
        early = [received for received in server.requests[1:] if received.at < 7]
        assert not early
        assert len(server.requests) == 12


async def test_those_that_wait_for_a_slot_are_held_back_too(project):
    clock = FakeClock()
    plan = {"faults": [faults.status(429, retry_after="7")], "clock": clock.now}
    tasks = [("python-expert", f"Task {number}") for number in range(6)]
    async with fleet(project, plan, clock=clock, max_concurrent=1) as (orchestrator, server):
        results = await orchestrator.execute_multiple(tasks)
        assert all(result.success for result in results)
        assert [received.at >= 7 for received in server.requests] == [False] + [True] * 6


async def test_a_failure_that_names_no_time_holds_back_nobody():
    clock = FakeClock()
    pause = Pause(clock)
    pause.after(OverloadedError("busy"))
    pause.after(ServerError("failed", retry_after=5.0))
    await pause.over()
    assert clock.slept == []


class SideBySide(FakeClock):
    """All who sleep at the same time do so side by side."""

    async def sleep(self, seconds):
        self.slept.append(seconds)
        end = self.time + seconds
        await asyncio.sleep(0)
        self.time = max(self.time, end)


async def test_the_longest_time_counts_and_they_begin_again_spread_out():
    clock = SideBySide()
    pause = Pause(clock)
    pause.after(RateLimitError("later", retry_after=9.0))
    pause.after(RateLimitError("later", retry_after=2.0))
    await asyncio.gather(*(pause.over() for _ in range(20)))
    assert clock.now() >= 9
    assert len(set(clock.slept)) > 10
