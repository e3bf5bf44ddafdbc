"""A fleet that is told to come later comes later, all of it, and not in one moment."""

import pytest
from fleet import FakeClock, fleet, write_project
from hypothesis import given
from hypothesis import strategies as st

from claude_force.calling.window import Window
from claude_force.errors import (
    AuthenticationError,
    ConnectionFailedError,
    OverloadedError,
    RateLimitError,
    ServerError,
)
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


class TestWindow:
    """Pure: time is handed in."""

    def window(self, ceiling=10, adaptive=False):
        return Window(ceiling, adaptive, uniform=lambda low, high: low)

    def test_a_failure_that_names_no_time_holds_back_nobody(self):
        window = self.window()
        window.succeeded(0.0, 1, True)
        assert window.failed(OverloadedError("busy"), 1.0, 1.0) == 0
        assert window.failed(ServerError("failed", retry_after=5.0), 1.0, 1.0) == 0
        assert window.wait(1.0) == 0
        assert window.size == 10

    def test_the_longest_time_that_was_named_counts(self):
        window = self.window()
        assert window.failed(RateLimitError("later", retry_after=9.0), 0.0, 0.0) == 9
        assert window.failed(RateLimitError("later", retry_after=2.0), 0.0, 0.0) == 0
        assert window.wait(4.0) == 5

    def test_a_429_that_names_no_time_holds_all_back_for_ever_longer_until_answers_come(self):
        window, now, pauses = self.window(), 0.0, []
        for _ in range(6):
            pauses.append(window.failed(RateLimitError("no"), now, now))
            assert window.failed(RateLimitError("of the same burst"), now - 1.0, now) == 0
            now += window.wait(now)
            window.succeeded(now, 1, True)
        assert pauses == [pytest.approx(seconds, rel=0.2) for seconds in (1, 2, 4, 7, 10, 10)]
        for _ in range(50):
            window.succeeded(now, 1, True)
        assert window.failed(RateLimitError("no"), now, now) == 1

    def test_after_a_pause_it_begins_with_one_and_each_success_makes_room_for_one_more(self):
        window = self.window()
        window.failed(RateLimitError("later", retry_after=9.0), 0.0, 0.0)
        sizes = [window.size]
        for _ in range(20):
            window.succeeded(9.0, 1, True)
            sizes.append(window.size)
        assert sizes == [*range(1, 11), *[10] * 11]

    def test_failures_of_a_final_kind_change_nothing(self):
        window = self.window()
        for _ in range(100):
            assert window.failed(AuthenticationError("bad key"), 0.0, 0.0) == 0
        assert (window.size, window.wait(0.0)) == (10, 0)

    def test_an_address_where_nobody_ever_answered_is_no_storm(self):
        window = self.window()
        for _ in range(100):
            assert window.failed(ConnectionFailedError("refused"), 0.0, 0.0) == 0

    def test_a_row_of_failures_leaves_one_probe_at_a_time_ever_more_rarely(self):
        window, now, pauses = self.window(), 0.0, []
        for _ in range(20):
            pause = window.failed(OverloadedError("busy"), now, now)
            now += window.wait(now)
            pauses.append(pause)
        assert pauses[:9] == [0] * 9
        assert pauses[9:16] == [0.5, 1, 2, 4, 8, 10, 10]
        assert window.size == 1
        window.succeeded(now, 1, True)
        assert window.failed(OverloadedError("busy"), now, now) == 0

    def test_one_burst_is_one_cut(self):
        window = self.window(100, adaptive=True)
        for beside in range(90):
            window.succeeded(0.0, beside, True)
        assert window.size == 100
        for _ in range(10):
            window.failed(OverloadedError("no"), 1.0, 2.0)
        assert window.size == 50
        window.succeeded(1.5, 50, True)
        assert window.size == 50
        window.succeeded(2.5, 50, True)
        window.failed(OverloadedError("no"), 2.5, 3.0)
        assert window.size == pytest.approx(25, abs=0.1)

    def test_it_grows_by_one_for_each_window_after_a_cut(self):
        window = self.window(100, adaptive=True)
        window.failed(OverloadedError("busy"), 0.0, 0.0)
        size = window.size
        for _ in range(int(size)):
            window.succeeded(1.0, int(size), True)
        assert size < window.size <= size + 1
        window.succeeded(1.0, 1, False)
        assert window.size <= size + 1

    @given(
        st.lists(st.tuples(st.sampled_from(["ok", "busy", "later", "gone"]), st.floats(0, 30)), max_size=80)
    )
    def test_it_is_never_empty_nor_above_its_ceiling_and_never_shut_for_good(self, events):
        for adaptive in (True, False):
            window, now = Window(20, adaptive), 0.0
            for kind, passed in events:
                now += passed
                if kind == "ok":
                    window.succeeded(now, 20, True)
                else:
                    error = {
                        "busy": OverloadedError("busy"),
                        "later": RateLimitError("later", retry_after=3.0),
                        "gone": ConnectionFailedError("gone"),
                    }[kind]
                    window.failed(error, now, now)
                assert 1 <= int(window.size) <= 20
                assert window.wait(now) <= 20.5
