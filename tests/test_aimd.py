"""How 429s, 529s and storms of failures slow a whole fleet down, and how it speeds up again."""

import pytest
from fleet import FakeClock, fleet, write_project
from hypothesis import given
from hypothesis import strategies as st

from claude_force.errors import (
    AuthenticationError,
    ConnectionFailedError,
    OverloadedError,
    RateLimitError,
    RequestRefusedError,
    ServerError,
)
from claude_force.limits.aimd import AdaptiveConcurrencyLimit
from claude_force.testing import faults


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.mark.parametrize("status", [429, 529])
@pytest.mark.parametrize("max_concurrent", [1, 3])
async def test_sends_nothing_during_pause(project, status, max_concurrent):
    clock = FakeClock()
    plan = {"faults": [faults.status(status, retry_after="7")], "clock": clock.now}
    tasks = [("python-expert", f"Task {number}") for number in range(10)]
    async with fleet(project, plan, clock=clock, max_concurrent=max_concurrent) as (orchestrator, server):
        first = await orchestrator.execute_agent("python-expert", "the refused one")
        assert first.success
        results = await orchestrator.execute_multiple(tasks)
        assert all(result.success for result in results)
        early = [received for received in server.requests[1:] if received.at < 7]
        assert not early
        assert len(server.requests) == 12


async def test_pause_holds_waiting_calls(project):
    clock = FakeClock()
    plan = {"faults": [faults.status(429, retry_after="7")], "clock": clock.now}
    tasks = [("python-expert", f"Task {number}") for number in range(6)]
    async with fleet(project, plan, clock=clock, max_concurrent=1) as (orchestrator, server):
        results = await orchestrator.execute_multiple(tasks)
        assert all(result.success for result in results)
        assert [received.at >= 7 for received in server.requests] == [False] + [True] * 6


class TestConcurrencyLimit:
    """Pure: time is handed in."""

    def limit(self, ceiling=10, adaptive=False, uniform=lambda low, high: low):
        return AdaptiveConcurrencyLimit(ceiling, adaptive, uniform)

    def busy(self, limit, times, now):
        """The pauses that so many 529 in a row start, the next of them always at the end of the last."""
        pauses = []
        for _ in range(times):
            pauses.append(limit.record_failure(OverloadedError("busy"), now, now))
            now += limit.wait(now)
        return pauses

    @pytest.mark.parametrize(
        ("ceiling", "adaptive", "size"), [(100, False, 100), (100, True, 10), (4, True, 4)]
    )
    def test_initial_size(self, ceiling, adaptive, size):
        limit = self.limit(ceiling, adaptive)
        assert limit.size == size
        assert limit.has_room(size - 1)
        assert not limit.has_room(size)
        assert limit.wait(0.0) == 0

    def test_room_in_whole_attempts(self):
        limit = self.limit(100, adaptive=True)
        limit.record_failure(OverloadedError("busy"), 0.0, 0.0)
        limit.record_success(0.0, 5, True)
        assert limit.size == pytest.approx(5.2)
        assert limit.has_room(4)
        assert not limit.has_room(5)

    def test_never_above_ceiling(self):
        for adaptive in (True, False):
            limit = self.limit(5, adaptive)
            limit.record_success(0.0, 5, True)
            assert limit.size == 5

    @pytest.mark.parametrize("adaptive", [True, False])
    def test_reduced_ceiling_recovers(self, adaptive):
        limit = self.limit(8, adaptive)
        limit.reduce_ceiling(3, 100.0)
        for _ in range(100):
            limit.record_success(129.9, 3, True)
        assert (int(limit.size), limit.has_room(3)) == (3, False)
        limit.record_success(130.0, 3, False)
        assert limit.size == 3
        for _ in range(4):
            limit.record_success(130.0, 3, True)
        assert int(limit.size) == 4
        for _ in range(100):
            limit.record_success(130.0, 4, True)
        assert limit.size == 8

    def test_risen_ceiling_is_no_slow_start(self):
        limit = self.limit(8, adaptive=True)
        limit.record_failure(OverloadedError("busy"), 0.0, 0.0)
        limit.reduce_ceiling(6, 0.0)
        limit.record_success(30.0, 4, True)
        assert limit.size == 4.25
        assert limit.ceiling == pytest.approx(6 + 1 / 6)

    def test_reduced_ceiling_survives_storm(self):
        limit = self.limit(40, adaptive=True)
        limit.record_success(0.0, 30, True)
        limit.reduce_ceiling(3, 0.0)
        self.busy(limit, 5, 0.0)
        for _ in range(20):
            limit.record_success(29.0, 3, True)
        assert limit.size == 3

    def test_reduced_ceiling_restarts_timer(self):
        limit = self.limit(8)
        limit.reduce_ceiling(3, 0.0)
        limit.reduce_ceiling(0, 30.0)
        limit.record_success(59.0, 1, True)
        assert limit.size == 1
        limit.record_success(60.0, 1, True)
        assert limit.size == 2

    def test_pause_is_spread_by_half_a_second(self):
        latest = self.limit(uniform=lambda low, high: high)
        assert latest.record_failure(RateLimitError("later", retry_after=9.0), 0.0, 0.0) == 9.5
        pauses = {
            AdaptiveConcurrencyLimit(10, False).record_failure(
                RateLimitError("later", retry_after=9.0), 0.0, 0.0
            )
            for _ in "1234"
        }
        assert len(pauses) > 1
        assert 9 <= min(pauses) < max(pauses) <= 9.5

    def test_529_with_retry_after_pauses(self):
        limit = self.limit()
        assert limit.record_failure(OverloadedError("busy", retry_after=3.0), 0.0, 1.0) == 3
        assert limit.wait(1.0) == 3
        assert limit.size == 1

    def test_429_pauses_at_least_guess(self):
        assert self.limit().record_failure(RateLimitError("later", retry_after=0.25), 0.0, 0.0) == 1

    @pytest.mark.parametrize(("ceiling", "failures"), [(1, 5), (10, 10), (100, 20)])
    @pytest.mark.parametrize("adaptive", [True, False])
    def test_storm_threshold(self, ceiling, adaptive, failures):
        limit = self.limit(ceiling, adaptive)
        failures = min(failures, 10) if adaptive else failures
        pauses = self.busy(limit, failures, 1.0)
        assert pauses == [0] * (failures - 1) + [0.5]
        assert limit.size == 1

    def test_success_prevents_storm(self):
        limit = self.limit()
        for _ in range(3):
            assert self.busy(limit, 9, 1.0) == [0] * 9
            limit.record_success(1.0, 1, True)

    def test_lost_connection_is_storm(self):
        limit = self.limit()
        limit.record_success(0.0, 1, True)
        pauses = [limit.record_failure(ConnectionFailedError("gone"), 1.0, 1.0) for _ in range(10)]
        assert pauses == [0] * 9 + [0.5]

    def test_probe_delays_double(self):
        limit = self.limit(uniform=lambda low, high: high)
        assert self.busy(limit, 16, 0.0)[9:] == [1, 2, 4, 8, 16, 20, 20]
        limit.record_success(100.0, 1, False)
        assert self.busy(limit, 7, 100.0)[3:] == [0, 1, 2, 4]

    def test_old_failures_extend_no_pause(self):
        limit = self.limit()
        self.busy(limit, 10, 1.0)
        assert limit.record_failure(OverloadedError("busy"), 0.5, 1.2) == 0
        assert limit.wait(1.2) == pytest.approx(0.3)
        limit.record_success(0.5, 10, True)
        assert limit.size == 1

    def test_storm_respects_retry_after(self):
        limit = self.limit(5)
        for _ in range(4):
            limit.record_failure(OverloadedError("busy"), 0.0, 0.0)
        assert limit.record_failure(OverloadedError("busy", retry_after=30.0), 0.0, 0.0) == 30
        assert limit.record_failure(OverloadedError("busy"), 30.0, 30.0) == 1

    def test_slow_start_after_storm(self):
        limit, sizes = self.limit(100, adaptive=True), []
        limit.record_success(0.0, 8, False)
        for now in (100.0, 200.0, 300.0):
            while not limit.record_failure(OverloadedError("busy"), now, now):
                pass
            limit.record_success(now + 50.0, 1, False)
            for _ in range(8):
                limit.record_success(now + 50.0, 1, True)
            sizes.append(int(limit.size))
        # 7, 3 and 1 by whole ones, and the rest by one for each window.
        assert sizes == [8, 5, 4]

    @pytest.mark.parametrize(("adaptive", "size"), [(False, 10), (True, 8)])
    def test_recovers_after_any_number_of_probes(self, adaptive, size):
        limit = self.limit(10, adaptive)
        limit.record_success(0.0, 8, False)
        assert any(self.busy(limit, 14, 1.0)[-2:])
        limit.record_success(1000.0, 1, False)
        for _ in range(size - 1):
            limit.record_success(1000.0, 1, True)
        assert limit.size == size

    def test_burst_without_success_is_one_cut(self):
        limit = self.limit(100, adaptive=True)
        limit.record_failure(OverloadedError("busy"), 0.0, 0.0)
        limit.record_failure(OverloadedError("busy"), 1.0, 1.0)
        assert limit.size == 5

    def test_start_at_cut_counts_as_after(self):
        limit = self.limit()
        limit.record_failure(OverloadedError("busy"), 0.0, 1.0)
        assert limit.record_failure(RateLimitError("before it"), 0.9, 1.0) == 0
        assert limit.record_failure(RateLimitError("after it"), 1.0, 1.0) == 1

    def test_no_cut_leaves_less_than_one(self):
        limit = self.limit(1, adaptive=True)
        limit.record_failure(OverloadedError("busy"), 0.0, 0.0)
        assert limit.size == 1

    def test_529_without_retry_after(self):
        limit = self.limit()
        limit.record_success(0.0, 1, True)
        assert limit.record_failure(OverloadedError("busy"), 1.0, 1.0) == 0
        assert limit.record_failure(ServerError("failed", retry_after=5.0), 1.0, 1.0) == 0
        assert limit.wait(1.0) == 0
        assert limit.size == 10

    def test_longest_retry_after_holds(self):
        limit = self.limit()
        assert limit.record_failure(RateLimitError("later", retry_after=9.0), 0.0, 0.0) == 9
        assert limit.record_failure(RateLimitError("later", retry_after=2.0), 0.0, 0.0) == 0
        assert limit.wait(4.0) == 5

    def test_429_guess_doubles(self):
        limit, now, pauses = self.limit(), 0.0, []
        for _ in range(6):
            pauses.append(limit.record_failure(RateLimitError("no"), now, now))
            assert limit.record_failure(RateLimitError("of the same burst"), now - 1.0, now) == 0
            now += limit.wait(now)
            limit.record_success(now, 1, True)
        # Each success takes a tenth off.
        assert pauses == pytest.approx([1, 1.8, 3.24, 5.832, 10, 10])
        for _ in range(50):
            limit.record_success(now, 1, True)
        assert limit.record_failure(RateLimitError("no"), now, now) == 1

    def test_slow_start_after_pause(self):
        limit = self.limit()
        limit.record_failure(RateLimitError("later", retry_after=9.0), 0.0, 0.0)
        sizes = [limit.size]
        for _ in range(20):
            limit.record_success(9.0, 1, True)
            sizes.append(limit.size)
        assert sizes == [*range(1, 11), *[10] * 11]

    def test_final_errors_change_nothing(self):
        limit = self.limit()
        limit.record_success(0.0, 1, True)
        for _ in range(100):
            assert limit.record_failure(AuthenticationError("bad key"), 0.0, 0.0) == 0
        assert (limit.size, limit.wait(0.0)) == (10, 0)

    @pytest.mark.parametrize(
        ("kind", "retryable", "is_storm"),
        [(ServerError, False, True), (RequestRefusedError, True, True), (RequestRefusedError, False, False)],
    )
    def test_retryable_or_transient_counts(self, kind, retryable, is_storm):
        """The server's `x-should-retry` is about the one request."""
        limit, error = self.limit(), kind("x")
        error.retryable = retryable
        limit.record_success(0.0, 1, True)
        pauses = [limit.record_failure(error, 0.0, 0.0) for _ in range(10)]
        assert pauses == [0.0] * 9 + [0.5 * is_storm]

    def test_dead_address_is_no_storm(self):
        limit = self.limit()
        for _ in range(100):
            assert limit.record_failure(ConnectionFailedError("refused"), 0.0, 0.0) == 0

    def test_storm_leaves_single_probes(self):
        limit, now, pauses = self.limit(), 0.0, []
        for _ in range(20):
            pause = limit.record_failure(OverloadedError("busy"), now, now)
            now += limit.wait(now)
            pauses.append(pause)
        assert pauses[:9] == [0] * 9
        assert pauses[9:16] == [0.5, 1, 2, 4, 8, 10, 10]
        assert limit.size == 1
        limit.record_success(now, 1, True)
        assert limit.record_failure(OverloadedError("busy"), now, now) == 0

    def test_one_burst_is_one_cut(self):
        limit = self.limit(100, adaptive=True)
        for beside in range(90):
            limit.record_success(0.0, beside, True)
        assert limit.size == 100
        for _ in range(10):
            limit.record_failure(OverloadedError("no"), 1.0, 2.0)
        assert limit.size == 50
        limit.record_success(1.5, 50, True)
        assert limit.size == 50
        limit.record_success(2.5, 50, True)
        limit.record_failure(OverloadedError("no"), 2.5, 3.0)
        assert limit.size == pytest.approx(25, abs=0.1)

    def test_additive_increase_after_cut(self):
        limit = self.limit(100, adaptive=True)
        limit.record_failure(OverloadedError("busy"), 0.0, 0.0)
        size = limit.size
        for _ in range(int(size)):
            limit.record_success(1.0, int(size), True)
        assert size < limit.size <= size + 1
        limit.record_success(1.0, 1, False)
        assert limit.size <= size + 1

    @given(
        st.lists(st.tuples(st.sampled_from(["ok", "busy", "later", "gone"]), st.floats(0, 30)), max_size=80)
    )
    def test_size_stays_in_bounds(self, events):
        for adaptive in (True, False):
            limit, now = AdaptiveConcurrencyLimit(20, adaptive), 0.0
            for kind, passed in events:
                now += passed
                if kind == "ok":
                    limit.record_success(now, 20, True)
                else:
                    error = {
                        "busy": OverloadedError("busy"),
                        "later": RateLimitError("later", retry_after=3.0),
                        "gone": ConnectionFailedError("gone"),
                    }[kind]
                    limit.record_failure(error, now, now)
                assert 1 <= int(limit.size) <= 20
                assert limit.wait(now) <= 20.5
