"""A fleet that is told to come later comes later, all of it, and not in one moment."""

import pytest
from fleet import FakeClock, fleet, write_project
from hypothesis import given
from hypothesis import strategies as st

from claude_force.errors import (
    AuthenticationError,
    ConnectionFailedError,
    OverloadedError,
    RateLimitError,
    ServerError,
)
from claude_force.limits.aimd import AdaptiveConcurrencyLimit
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

    def window(self, ceiling=10, adaptive=False, uniform=lambda low, high: low):
        return AdaptiveConcurrencyLimit(ceiling, adaptive, uniform)

    def busy(self, window, times, now):
        """The pauses that so many 529 in a row start, the next of them always at the end of the last."""
        pauses = []
        for _ in range(times):
            pauses.append(window.record_failure(OverloadedError("busy"), now, now))
            now += window.wait(now)
        return pauses

    @pytest.mark.parametrize(
        ("ceiling", "adaptive", "size"), [(100, False, 100), (100, True, 10), (4, True, 4)]
    )
    def test_it_begins_with_all_that_is_asked_for_or_modestly_where_it_finds_out(
        self, ceiling, adaptive, size
    ):
        window = self.window(ceiling, adaptive)
        assert window.size == size
        assert window.has_room(size - 1)
        assert not window.has_room(size)
        assert window.wait(0.0) == 0

    def test_room_is_counted_in_whole_attempts(self):
        window = self.window(100, adaptive=True)
        window.record_failure(OverloadedError("busy"), 0.0, 0.0)
        window.record_success(0.0, 5, True)
        assert window.size == pytest.approx(5.2)
        assert window.has_room(4)
        assert not window.has_room(5)

    def test_no_window_grows_above_its_ceiling(self):
        for adaptive in (True, False):
            window = self.window(5, adaptive)
            window.record_success(0.0, 5, True)
            assert window.size == 5

    @pytest.mark.parametrize("adaptive", [True, False])
    def test_a_lowered_ceiling_stays_for_half_a_minute_and_rises_again(self, adaptive):
        window = self.window(8, adaptive)
        window.reduce_ceiling(3, 100.0)
        for _ in range(100):
            window.record_success(129.9, 3, True)
        assert (int(window.size), window.has_room(3)) == (3, False)
        window.record_success(130.0, 3, False)
        assert window.size == 3
        for _ in range(4):
            window.record_success(130.0, 3, True)
        assert int(window.size) == 4
        for _ in range(100):
            window.record_success(130.0, 4, True)
        assert window.size == 8

    def test_a_lowered_ceiling_holds_after_a_storm_too(self):
        window = self.window(40, adaptive=True)
        window.record_success(0.0, 30, True)
        window.reduce_ceiling(3, 0.0)
        self.busy(window, 5, 0.0)
        for _ in range(20):
            window.record_success(29.0, 3, True)
        assert window.size == 3

    def test_a_ceiling_that_is_lowered_again_waits_again(self):
        window = self.window(8)
        window.reduce_ceiling(3, 0.0)
        window.reduce_ceiling(0, 30.0)
        window.record_success(59.0, 1, True)
        assert window.size == 1
        window.record_success(60.0, 1, True)
        assert window.size == 2

    def test_the_spread_of_a_pause_is_half_a_second(self):
        latest = self.window(uniform=lambda low, high: high)
        assert latest.record_failure(RateLimitError("later", retry_after=9.0), 0.0, 0.0) == 9.5
        pauses = {
            AdaptiveConcurrencyLimit(10, False).record_failure(
                RateLimitError("later", retry_after=9.0), 0.0, 0.0
            )
            for _ in "1234"
        }
        assert len(pauses) > 1
        assert 9 <= min(pauses) < max(pauses) <= 9.5

    def test_a_busy_server_that_names_a_time_is_left_alone_until_then(self):
        window = self.window()
        assert window.record_failure(OverloadedError("busy", retry_after=3.0), 0.0, 1.0) == 3
        assert window.wait(1.0) == 3
        assert window.size == 1

    def test_a_429_that_names_a_shorter_time_than_is_guessed_holds_back_as_long_as_that(self):
        assert self.window().record_failure(RateLimitError("later", retry_after=0.25), 0.0, 0.0) == 1

    @pytest.mark.parametrize(("ceiling", "failures"), [(1, 5), (10, 10), (100, 20)])
    @pytest.mark.parametrize("adaptive", [True, False])
    def test_as_many_failures_in_a_row_as_were_under_way_are_a_storm_but_5_to_20(
        self, ceiling, adaptive, failures
    ):
        window = self.window(ceiling, adaptive)
        failures = min(failures, 10) if adaptive else failures
        pauses = self.busy(window, failures, 1.0)
        assert pauses == [0] * (failures - 1) + [0.5]
        assert window.size == 1

    def test_a_success_among_them_makes_failures_no_storm(self):
        window = self.window()
        for _ in range(3):
            assert self.busy(window, 9, 1.0) == [0] * 9
            window.record_success(1.0, 1, True)

    def test_a_connection_that_is_lost_after_answers_came_is_a_storm_too(self):
        window = self.window()
        window.record_success(0.0, 1, True)
        pauses = [window.record_failure(ConnectionFailedError("gone"), 1.0, 1.0) for _ in range(10)]
        assert pauses == [0] * 9 + [0.5]

    def test_probes_come_after_at_most_1_2_4_and_so_on_to_20_seconds_and_after_a_success_from_the_start(self):
        window = self.window(uniform=lambda low, high: high)
        assert self.busy(window, 16, 0.0)[9:] == [1, 2, 4, 8, 16, 20, 20]
        window.record_success(100.0, 1, False)
        assert self.busy(window, 7, 100.0)[3:] == [0, 1, 2, 4]

    def test_what_was_sent_before_a_silence_does_not_make_it_longer(self):
        window = self.window()
        self.busy(window, 10, 1.0)
        assert window.record_failure(OverloadedError("busy"), 0.5, 1.2) == 0
        assert window.wait(1.2) == pytest.approx(0.3)
        window.record_success(0.5, 10, True)
        assert window.size == 1

    def test_a_storm_never_ends_before_the_time_that_the_server_named(self):
        window = self.window(5)
        for _ in range(4):
            window.record_failure(OverloadedError("busy"), 0.0, 0.0)
        assert window.record_failure(OverloadedError("busy", retry_after=30.0), 0.0, 0.0) == 30
        assert window.record_failure(OverloadedError("busy"), 30.0, 30.0) == 1

    def test_after_a_storm_it_grows_fast_to_what_was_proven_and_after_a_second_one_to_half_of_that(self):
        window, sizes = self.window(100, adaptive=True), []
        window.record_success(0.0, 8, False)
        for now in (100.0, 200.0, 300.0):
            while not window.record_failure(OverloadedError("busy"), now, now):
                pass
            window.record_success(now + 50.0, 1, False)
            for _ in range(8):
                window.record_success(now + 50.0, 1, True)
            sizes.append(int(window.size))
        # 7, 3 and 1 by whole ones, and the rest by one for each window.
        assert sizes == [8, 5, 4]

    @pytest.mark.parametrize(("adaptive", "size"), [(False, 10), (True, 8)])
    def test_however_many_probes_a_storm_takes_it_grows_to_the_same_again(self, adaptive, size):
        window = self.window(10, adaptive)
        window.record_success(0.0, 8, False)
        assert any(self.busy(window, 14, 1.0)[-2:])
        window.record_success(1000.0, 1, False)
        for _ in range(size - 1):
            window.record_success(1000.0, 1, True)
        assert window.size == size

    def test_failures_with_no_success_among_them_are_one_cut_whenever_they_began(self):
        window = self.window(100, adaptive=True)
        window.record_failure(OverloadedError("busy"), 0.0, 0.0)
        window.record_failure(OverloadedError("busy"), 1.0, 1.0)
        assert window.size == 5

    def test_what_begins_in_the_moment_of_a_cut_begins_after_it(self):
        window = self.window()
        window.record_failure(OverloadedError("busy"), 0.0, 1.0)
        assert window.record_failure(RateLimitError("before it"), 0.9, 1.0) == 0
        assert window.record_failure(RateLimitError("after it"), 1.0, 1.0) == 1

    def test_no_cut_leaves_less_than_one(self):
        window = self.window(1, adaptive=True)
        window.record_failure(OverloadedError("busy"), 0.0, 0.0)
        assert window.size == 1

    def test_a_failure_that_names_no_time_holds_back_nobody(self):
        window = self.window()
        window.record_success(0.0, 1, True)
        assert window.record_failure(OverloadedError("busy"), 1.0, 1.0) == 0
        assert window.record_failure(ServerError("failed", retry_after=5.0), 1.0, 1.0) == 0
        assert window.wait(1.0) == 0
        assert window.size == 10

    def test_the_longest_time_that_was_named_counts(self):
        window = self.window()
        assert window.record_failure(RateLimitError("later", retry_after=9.0), 0.0, 0.0) == 9
        assert window.record_failure(RateLimitError("later", retry_after=2.0), 0.0, 0.0) == 0
        assert window.wait(4.0) == 5

    def test_a_429_that_names_no_time_holds_all_back_for_ever_longer_until_answers_come(self):
        window, now, pauses = self.window(), 0.0, []
        for _ in range(6):
            pauses.append(window.record_failure(RateLimitError("no"), now, now))
            assert window.record_failure(RateLimitError("of the same burst"), now - 1.0, now) == 0
            now += window.wait(now)
            window.record_success(now, 1, True)
        # Each success takes a tenth off.
        assert pauses == pytest.approx([1, 1.8, 3.24, 5.832, 10, 10])
        for _ in range(50):
            window.record_success(now, 1, True)
        assert window.record_failure(RateLimitError("no"), now, now) == 1

    def test_after_a_pause_it_begins_with_one_and_each_success_makes_room_for_one_more(self):
        window = self.window()
        window.record_failure(RateLimitError("later", retry_after=9.0), 0.0, 0.0)
        sizes = [window.size]
        for _ in range(20):
            window.record_success(9.0, 1, True)
            sizes.append(window.size)
        assert sizes == [*range(1, 11), *[10] * 11]

    def test_failures_of_a_final_kind_change_nothing(self):
        window = self.window()
        window.record_success(0.0, 1, True)
        for _ in range(100):
            assert window.record_failure(AuthenticationError("bad key"), 0.0, 0.0) == 0
        assert (window.size, window.wait(0.0)) == (10, 0)

    def test_an_address_where_nobody_ever_answered_is_no_storm(self):
        window = self.window()
        for _ in range(100):
            assert window.record_failure(ConnectionFailedError("refused"), 0.0, 0.0) == 0

    def test_a_row_of_failures_leaves_one_probe_at_a_time_ever_more_rarely(self):
        window, now, pauses = self.window(), 0.0, []
        for _ in range(20):
            pause = window.record_failure(OverloadedError("busy"), now, now)
            now += window.wait(now)
            pauses.append(pause)
        assert pauses[:9] == [0] * 9
        assert pauses[9:16] == [0.5, 1, 2, 4, 8, 10, 10]
        assert window.size == 1
        window.record_success(now, 1, True)
        assert window.record_failure(OverloadedError("busy"), now, now) == 0

    def test_one_burst_is_one_cut(self):
        window = self.window(100, adaptive=True)
        for beside in range(90):
            window.record_success(0.0, beside, True)
        assert window.size == 100
        for _ in range(10):
            window.record_failure(OverloadedError("no"), 1.0, 2.0)
        assert window.size == 50
        window.record_success(1.5, 50, True)
        assert window.size == 50
        window.record_success(2.5, 50, True)
        window.record_failure(OverloadedError("no"), 2.5, 3.0)
        assert window.size == pytest.approx(25, abs=0.1)

    def test_it_grows_by_one_for_each_window_after_a_cut(self):
        window = self.window(100, adaptive=True)
        window.record_failure(OverloadedError("busy"), 0.0, 0.0)
        size = window.size
        for _ in range(int(size)):
            window.record_success(1.0, int(size), True)
        assert size < window.size <= size + 1
        window.record_success(1.0, 1, False)
        assert window.size <= size + 1

    @given(
        st.lists(st.tuples(st.sampled_from(["ok", "busy", "later", "gone"]), st.floats(0, 30)), max_size=80)
    )
    def test_it_is_never_empty_nor_above_its_ceiling_and_never_shut_for_good(self, events):
        for adaptive in (True, False):
            window, now = AdaptiveConcurrencyLimit(20, adaptive), 0.0
            for kind, passed in events:
                now += passed
                if kind == "ok":
                    window.record_success(now, 20, True)
                else:
                    error = {
                        "busy": OverloadedError("busy"),
                        "later": RateLimitError("later", retry_after=3.0),
                        "gone": ConnectionFailedError("gone"),
                    }[kind]
                    window.record_failure(error, now, now)
                assert 1 <= int(window.size) <= 20
                assert window.wait(now) <= 20.5
