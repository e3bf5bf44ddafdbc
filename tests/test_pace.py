"""Pacing: what is sent fits into the limits, whoever else uses them and however wrong the estimates were."""

import pytest
from fleet import FakeClock, fleet, write_project
from hypothesis import given
from hypothesis import strategies as st

from claude_force.calling.forecast import Forecast, counted
from claude_force.calling.pace import Bucket, Need, Pace, Rates
from claude_force.errors import InvalidOptionError
from claude_force.testing import RateLimit
from claude_force.types import Call, Usage

MODEL = "claude-sonnet-5-5"


def headers(kind="requests", limit=60, remaining=60):
    return {
        f"anthropic-ratelimit-{kind}-limit": str(limit),
        f"anthropic-ratelimit-{kind}-remaining": str(remaining),
    }


class TestBucket:
    def test_it_gains_a_minutes_worth_in_a_minute_and_not_more_than_it_holds(self):
        bucket = Bucket(60, 60, 0.0, 0.0)
        assert bucket.wait(10, 0.0) == 10
        assert bucket.level(30.0) == 30
        assert bucket.level(1000.0) == 60

    def test_more_than_it_holds_needs_a_full_one(self):
        bucket = Bucket(60, 60, 30.0, 0.0)
        assert bucket.wait(1_000, 0.0) == 30
        bucket.add(-1_000, 30.0)
        assert bucket.wait(1, 30.0) == pytest.approx(941)

    @given(
        st.floats(1, 1e6),
        st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2e6)), max_size=50),
        st.floats(0, 0.5),
    )
    def test_whoever_waits_as_told_can_take(self, limit, takes, spare):
        bucket, now = Bucket(limit, limit, limit, 0.0, spare * limit), 0.0
        for passed, amount in takes:
            now += passed
            now += bucket.wait(amount, now) + 1e-6
            assert bucket.wait(amount, now) < 1e-3
            bucket.add(-amount, now)

    @given(st.floats(1, 1e5), st.lists(st.floats(0.1, 200), min_size=2, max_size=60))
    def test_in_no_time_more_is_taken_than_it_held_and_gained(self, limit, amounts):
        bucket, now, taken = Bucket(limit, limit, limit, 0.0), 0.0, 0.0
        for amount in amounts:
            now += bucket.wait(amount, now)
            bucket.add(-amount, now)
            taken += amount
            assert taken <= limit + now * limit / 60 + max(0.0, amount - limit) + 1e-3 * limit


class TestPace:
    def test_nothing_is_known_before_the_first_answer(self):
        pace = Pace(Rates(), 0.0)
        assert not pace.knows
        assert pace.wait(Need(1, 1e9, 1e9), 0.0) == 0

    def test_it_learns_from_headers_and_leaves_room_for_what_is_under_way(self):
        pace = Pace(Rates(), 0.0)
        pace.take(Need(1, 100, 100), 0.0)
        pace.take(Need(1, 100, 100), 0.0)
        pace.learn(headers(remaining=58), 0.0, 0.0)
        assert pace.rates().requests == 60
        # Of 58, two may be those under way, and a twentieth of the limit stays.
        assert pace.wait(Need(53), 0.0) == 0
        assert pace.wait(Need(54), 0.0) == pytest.approx(1)

    def test_others_who_use_the_same_limit_are_seen(self):
        pace = Pace(Rates(), 0.0)
        pace.learn(headers(remaining=60), 0.0, 0.0)
        pace.learn(headers(remaining=5), 10.0, 10.0)
        assert pace.wait(Need(3), 10.0) == pytest.approx(1)

    def test_what_came_in_since_the_request_was_sent_counts(self):
        pace = Pace(Rates(), 0.0)
        pace.learn(headers(remaining=60), 0.0, 0.0)
        pace.learn(headers(remaining=0), 0.0, 30.0)
        assert pace.wait(Need(27), 30.0) == pytest.approx(0)

    def test_what_was_not_used_comes_back_and_what_was_used_beyond_is_owed(self):
        pace = Pace(Rates(None, 6_000, None), 0.0)
        pace.take(Need(1, 600, 0), 0.0)
        pace.settle(Need(1, 600, 0), Need(1, 100, 0), 0.0)
        assert pace.wait(Need(1, 500, 0), 0.0) == 0
        pace.take(Need(1, 100, 0), 0.0)
        pace.settle(Need(1, 100, 0), Need(1, 1_100, 0), 0.0)
        assert pace.wait(Need(1, 400, 0), 0.0) == pytest.approx(10)

    @pytest.mark.parametrize("text", ["", "many", "nan", "-1", "inf"])
    def test_headers_that_make_no_sense_are_left_alone(self, text):
        pace = Pace(Rates(), 0.0)
        pace.learn(headers(limit=text), 0.0, 0.0)
        pace.learn(headers(remaining=text), 0.0, 0.0)
        assert not pace.knows

    def test_a_limit_that_changes_is_followed(self):
        pace = Pace(Rates(), 0.0)
        pace.learn(headers(), 0.0, 0.0)
        pace.learn(headers(limit=600, remaining=600), 0.0, 0.0)
        assert pace.wait(Need(500), 0.0) == 0

    def test_the_tighter_of_two_limits_counts(self):
        pace = Pace(Rates(30, None, None), 0.0)
        pace.learn(headers(), 0.0, 0.0)
        assert pace.rates() == Rates(30, None, None)
        assert pace.wait(Need(4), 0.0) == pytest.approx(0)
        pace.take(Need(4), 0.0)
        assert pace.wait(Need(1), 0.0) == pytest.approx(4)


class TestForecast:
    def call(self, task="x" * 350, agent="a", system=("s" * 700,)):
        return Call(agent, system, task, MODEL, 4096)

    def test_a_model_is_judged_by_its_own_counts(self):
        forecast = Forecast()
        first = forecast.need(self.call())
        assert first.input_tokens == pytest.approx(300)
        forecast.observe(self.call(), Usage(525, 40))
        assert forecast.need(self.call()).input_tokens == pytest.approx(525)
        assert forecast.need(self.call()).output_tokens == 40

    def test_what_the_prompt_cache_has_is_not_counted(self):
        forecast = Forecast()
        forecast.observe(self.call(), Usage(100, 40, 0, 200))
        assert forecast.need(self.call()).input_tokens == pytest.approx(100)
        assert counted(Usage(100, 40, 50, 200)) == Need(1, 150, 40)

    def test_an_answer_is_never_longer_than_it_may_be(self):
        forecast = Forecast()
        assert forecast.need(Call("a", (), "x", MODEL, 16)).output_tokens == 16

    @given(st.lists(st.integers(1, 4000), min_size=1, max_size=200))
    def test_the_mean_stays_within_what_was_seen(self, answers):
        forecast = Forecast()
        for tokens in answers:
            forecast.observe(self.call(), Usage(300, tokens))
        assert min(answers) - 1e-6 <= forecast.answer_tokens(self.call()) <= max(answers) + 1e-6


class TestFleet:
    @pytest.fixture
    def project(self, tmp_path):
        return write_project(tmp_path)

    async def test_limits_that_the_headers_tell_of_are_kept_without_a_refusal(self, project):
        clock = FakeClock()
        plan = {"rate_limit": RateLimit(60, 6_000, 6_000), "clock": clock.now}
        tasks = [("python-expert", f"Task {number}") for number in range(200)]
        async with fleet(project, plan, clock=clock, max_concurrent=20) as (orchestrator, server):
            results = await orchestrator.execute_multiple(tasks, cache="off")
            assert all(result.success for result in results)
            assert len(server.requests) == 200
            assert orchestrator.load().limits == Rates(60, 6_000, 6_000)

    async def test_limits_set_by_hand(self, project):
        clock = FakeClock()
        tasks = [("python-expert", f"Task {number}") for number in range(40)]
        async with fleet(project, {"clock": clock.now}, clock=clock, rpm=60) as (orchestrator, server):
            await orchestrator.execute_multiple(tasks, cache="off")
            # Six at once, then one in each second.
            assert server.requests[-1].at >= 33

    async def test_waiting_is_bounded_by_the_deadline(self, project):
        async with fleet(project, rpm=1, deadline_seconds=0.2, clock=None) as (orchestrator, server):
            tasks = [("python-expert", "a"), ("python-expert", "b")]
            results = await orchestrator.execute_multiple(tasks, cache="off")
            assert sorted(result.success for result in results) == [False, True]
            assert len(server.requests) == 1

    @pytest.mark.parametrize("name", ["rpm", "input_tpm", "output_tpm"])
    @pytest.mark.parametrize("value", [0, -1, "many", True])
    async def test_a_limit_that_makes_no_sense_is_refused(self, project, name, value):
        with pytest.raises(InvalidOptionError, match=name):
            async with fleet(project, **{name: value}):
                pass

    async def test_auto_is_the_only_word_for_a_number(self, project):
        with pytest.raises(InvalidOptionError, match="auto"):
            async with fleet(project, max_concurrent="many"):
                pass
        async with fleet(project, max_concurrent="auto") as (orchestrator, _):
            assert (await orchestrator.execute_agent("python-expert", "x")).success
            assert orchestrator.load().window == 10
