"""Pacing: requests stay within the limits, also with other users of the limits and wrong estimates."""

import pytest
from fleet import FakeClock, fleet, write_project
from hypothesis import given
from hypothesis import strategies as st

from claude_force.conversation import ContentBlock, Conversation, ToolResult, tool_uses
from claude_force.errors import InvalidOptionError
from claude_force.limits.rate_limiter import RateLimiter, Rates, TokenBucket, TokenCost
from claude_force.limits.token_estimator import TokenEstimator, billable_usage
from claude_force.testing import RateLimit
from claude_force.types import Call, Usage

MODEL = "claude-sonnet-5-5"


def headers(kind="requests", limit=60, remaining=60):
    return {
        f"anthropic-ratelimit-{kind}-limit": str(limit),
        f"anthropic-ratelimit-{kind}-remaining": str(remaining),
    }


class TestBucket:
    def test_refills_up_to_capacity(self):
        bucket = TokenBucket(60, 60, 0.0, 0.0)
        assert bucket.wait(10, 0.0) == 10
        assert bucket.level(30.0) == 30
        assert bucket.level(1000.0) == 60

    def test_more_than_capacity_needs_full(self):
        bucket = TokenBucket(60, 60, 30.0, 0.0)
        assert bucket.wait(1_000, 0.0) == 30
        bucket.add(-1_000, 30.0)
        assert bucket.wait(1, 30.0) == pytest.approx(941)

    def test_spare_is_never_used(self):
        assert TokenBucket(60, 60, 60.0, 0.0).wait(60, 0.0) == 0
        spared = TokenBucket(60, 60, 60.0, 0.0, 6.0)
        assert spared.wait(54, 0.0) == 0
        spared.add(-54, 0.0)
        assert spared.wait(1, 0.0) == 1

    def test_zero_never_waits(self):
        assert TokenBucket(60, 60, -30.0, 0.0).wait(0, 0.0) == 0

    def test_past_time_changes_nothing(self):
        bucket = TokenBucket(60, 60, 0.0, 10.0)
        assert bucket.level(5.0) == 0
        assert bucket.level(20.0) == 10
        assert bucket.level(15.0) == 10
        assert bucket.level(21.0) == 11

    def test_add_stops_at_capacity(self):
        bucket = TokenBucket(60, 60, 50.0, 0.0)
        bucket.add(5, 5.0)
        assert bucket.level(5.0) == 60
        bucket.add(5, 5.0)
        assert bucket.level(5.0) == 60

    def test_it_is_lowered_and_never_raised(self):
        bucket = TokenBucket(60, 60, 10.0, 0.0)
        bucket.lower(30.0, 10.0)
        assert bucket.level(10.0) == 20
        bucket.lower(5.0, 10.0)
        assert bucket.level(10.0) == 5

    def test_ignores_float_noise(self):
        assert TokenBucket(60, 60, 1.0, 0.0).wait(1.0 + 0.9e-6, 0.0) == 0
        assert TokenBucket(60, 60, 1.0, 0.0).wait(1.0 + 1.1e-6, 0.0) > 0

    @given(
        st.floats(1, 1e6),
        st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2e6)), max_size=50),
        st.floats(0, 0.5),
    )
    def test_whoever_waits_as_told_can_take(self, limit, takes, spare):
        bucket, now = TokenBucket(limit, limit, limit, 0.0, spare * limit), 0.0
        for passed, amount in takes:
            now += passed
            now += bucket.wait(amount, now) + 1e-6
            assert bucket.wait(amount, now) < 1e-3
            bucket.add(-amount, now)

    @given(st.floats(1, 1e5), st.lists(st.floats(0.1, 200), min_size=2, max_size=60))
    def test_never_overdrawn(self, limit, amounts):
        bucket, now, taken = TokenBucket(limit, limit, limit, 0.0), 0.0, 0.0
        for amount in amounts:
            now += bucket.wait(amount, now)
            bucket.add(-amount, now)
            taken += amount
            assert taken <= limit + now * limit / 60 + max(0.0, amount - limit) + 1e-3 * limit


class TestRateLimiter:
    def test_unknown_before_first_answer(self):
        limiter = RateLimiter(Rates(), 0.0)
        assert limiter.rates() == Rates()
        assert limiter.wait(TokenCost(1, 1e9, 1e9), 0.0) == 0

    def test_defaults(self):
        assert TokenCost() == (1, 0, 0)
        assert Rates() == (None, None, None)

    @pytest.mark.parametrize("kind", range(3))
    def test_each_limit_has_its_headers(self, kind):
        name = ("requests", "input-tokens", "output-tokens")[kind]
        limiter, only = RateLimiter(Rates(), 0.0), TokenCost(*(float(at == kind) for at in range(3)))
        limiter.update_from_headers(headers(name, 600, 30), 0.0, 0.0)
        assert limiter.rates() == Rates(*(600 if at == kind else None for at in range(3)))
        assert limiter.wait(only, 0.0) == pytest.approx(0.1)
        assert limiter.wait(TokenCost(*(100.0 * (at != kind) for at in range(3))), 0.0) == 0
        limiter.take(only, 0.0)
        assert limiter.wait(only, 0.0) == pytest.approx(0.2)

    def test_waits_for_scarcest_limit(self):
        limiter = RateLimiter(Rates(600, 600, 600), 0.0)
        limiter.take(TokenCost(60, 60, 60), 0.0)
        assert limiter.wait(TokenCost(1, 20, 3), 0.0) == pytest.approx(2)

    @pytest.mark.parametrize(("limit", "at_once"), [(600, 60), (5, 1)])
    def test_manual_limit_allows_small_burst(self, limit, at_once):
        limiter = RateLimiter(Rates(limit), 7.0)
        assert limiter.rates() != Rates()
        assert limiter.wait(TokenCost(at_once), 7.0) == 0
        limiter.take(TokenCost(at_once), 7.0)
        assert limiter.wait(TokenCost(1), 7.0) == pytest.approx(60 / limit)
        assert limiter.wait(TokenCost(at_once), 1000.0) == 0
        limiter.take(TokenCost(at_once), 1000.0)
        assert limiter.wait(TokenCost(1), 1000.0) == pytest.approx(60 / limit)

    def test_models_share_manual_limits(self):
        one = RateLimiter(Rates(60), 0.0)
        other = one.share_manual_limits()
        other.take(TokenCost(6), 0.0)
        assert one.wait(TokenCost(1), 0.0) == 1
        one.update_from_headers(headers("output-tokens", 1000, 1000), 0.0, 0.0)
        assert other.rates() == Rates(60, None, None)
        other.update_from_headers(headers("output-tokens", 500, 500), 0.0, 0.0)
        other.update_from_headers(headers("requests", 100, 100), 0.0, 0.0)
        assert one.rates(other) == other.rates(one) == Rates(60, None, 1500)
        assert one.rates() == Rates(60, None, 1000)
        assert RateLimiter(Rates(600), 0.0).rates(other).requests == 100

    def test_waits_for_model_limits_alone(self):
        limiter = RateLimiter(Rates(60), 0.0)
        limiter.take(TokenCost(12), 0.0)
        assert limiter.wait_for_model_limits(TokenCost(1), 0.0) == 0
        limiter.update_from_headers(
            {**headers("requests", 60, 1), **headers("output-tokens", 600, 60)}, 0.0, 0.0
        )
        # Twelve requests are under way, and a twentieth of each limit stays.
        assert limiter.wait_for_model_limits(TokenCost(1), 0.0) == 15
        assert limiter.wait_for_model_limits(TokenCost(0, 0, 200), 0.0) == 17
        assert limiter.wait_for_model_limits(TokenCost(1, 0, 200), 0.0) == 17
        assert limiter.wait_for_model_limits(TokenCost(1), 15.0) == 0

    def test_new_limit_subtracts_output_tokens(self):
        limiter = RateLimiter(Rates(), 0.0)
        reported = {**headers("output-tokens", 600, 600), **headers("requests", 600, 600)}
        limiter.update_from_headers(reported, 0.0, 0.0, output_tokens=100.0)
        assert limiter.wait(TokenCost(0, 0, 470), 0.0) == 0
        assert limiter.wait(TokenCost(0, 0, 471), 0.0) == pytest.approx(0.1)
        assert limiter.wait(TokenCost(570, 0, 0), 0.0) == 0

    def test_settled_is_not_in_flight(self):
        limiter, need = RateLimiter(Rates(), 0.0), TokenCost(1, 100, 10)
        for _ in range(3):
            limiter.take(need, 0.0)
        limiter.settle(need, need, 0.0)
        limiter.update_from_headers(headers("input-tokens", 1000, 800), 0.0, 0.0)
        # Two are under way, and a twentieth of the limit stays.
        assert limiter.wait(TokenCost(1, 550), 0.0) == 0
        assert limiter.wait(TokenCost(1, 551), 0.0) > 0

    def test_a_limit_of_nothing_is_none(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers(headers(limit=0, remaining=0), 0.0, 0.0)
        assert limiter.rates() == Rates()

    def test_limit_without_remaining(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers({"anthropic-ratelimit-requests-limit": "60"}, 0.0, 0.0)
        assert limiter.rates() == Rates()
        limiter.update_from_headers(headers(remaining=0), 0.0, 0.0)
        assert limiter.wait(TokenCost(1), 0.0) == pytest.approx(4)

    def test_new_limit_subtracts_in_flight(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.take(TokenCost(1, 100, 100), 0.0)
        limiter.take(TokenCost(1, 100, 100), 0.0)
        limiter.update_from_headers(headers(remaining=58), 0.0, 0.0)
        assert limiter.rates().requests == 60
        # Of 58, two may be those under way, and a twentieth of the limit stays.
        assert limiter.wait(TokenCost(53), 0.0) == 0
        assert limiter.wait(TokenCost(54), 0.0) == pytest.approx(1)

    def test_sees_other_clients(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers(headers(remaining=60), 0.0, 0.0)
        limiter.update_from_headers(headers(remaining=5), 10.0, 10.0)
        assert limiter.wait(TokenCost(3), 10.0) == pytest.approx(1)

    def test_higher_remainder_is_ignored(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers(headers(remaining=5), 0.0, 0.0)
        limiter.update_from_headers(headers(remaining=60), 0.0, 0.0)
        assert limiter.wait(TokenCost(3), 0.0) == pytest.approx(1)

    def test_adds_refill_since_sent(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers(headers(remaining=60), 0.0, 0.0)
        limiter.update_from_headers(headers(remaining=0), 10.0, 40.0)
        assert limiter.wait(TokenCost(27), 40.0) == pytest.approx(0)
        assert limiter.wait(TokenCost(28), 40.0) == pytest.approx(1)

    def test_refill_stops_at_limit(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers(headers(remaining=60), 0.0, 600.0)
        assert limiter.wait(TokenCost(57), 600.0) == 0
        limiter.take(TokenCost(57), 600.0)
        assert limiter.wait(TokenCost(1), 600.0) == pytest.approx(1)

    def test_settles_on_real_usage(self):
        limiter = RateLimiter(Rates(None, 6_000, None), 0.0)
        limiter.take(TokenCost(1, 600, 0), 0.0)
        limiter.settle(TokenCost(1, 600, 0), TokenCost(1, 100, 0), 0.0)
        assert limiter.wait(TokenCost(1, 500, 0), 0.0) == 0
        limiter.take(TokenCost(1, 100, 0), 0.0)
        limiter.settle(TokenCost(1, 100, 0), TokenCost(1, 1_100, 0), 0.0)
        assert limiter.wait(TokenCost(1, 400, 0), 0.0) == pytest.approx(10)

    @pytest.mark.parametrize("text", ["", "many", "nan", "-1", "inf"])
    def test_ignores_malformed_headers(self, text):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers(headers(limit=text), 0.0, 0.0)
        limiter.update_from_headers(headers(remaining=text), 0.0, 0.0)
        assert limiter.rates() == Rates()

    def test_follows_changed_limit(self):
        limiter = RateLimiter(Rates(), 0.0)
        limiter.update_from_headers(headers(), 0.0, 0.0)
        limiter.update_from_headers(headers(limit=600, remaining=600), 0.0, 0.0)
        assert limiter.wait(TokenCost(570), 0.0) == 0
        limiter.take(TokenCost(570), 0.0)
        assert limiter.wait(TokenCost(1), 0.0) == pytest.approx(0.1)

    def test_tighter_limit_holds(self):
        limiter = RateLimiter(Rates(30, None, None), 0.0)
        limiter.update_from_headers(headers(), 0.0, 0.0)
        assert limiter.rates() == Rates(30, None, None)
        assert limiter.wait(TokenCost(4), 0.0) == pytest.approx(0)
        limiter.take(TokenCost(4), 0.0)
        assert limiter.wait(TokenCost(1), 0.0) == pytest.approx(4)


class TestForecast:
    def call(self, task="x" * 350, agent="a", system=("s" * 700,)):
        return Call(agent, system, task, MODEL, 4096)

    def test_learns_tokens_per_byte(self):
        estimator = TokenEstimator()
        first = estimator.estimate(self.call())
        assert first.input_tokens == pytest.approx(300)
        estimator.observe(self.call(), Usage(525, 40))
        assert estimator.estimate(self.call()).input_tokens == pytest.approx(525)
        assert estimator.estimate(self.call()).output_tokens == 40

    def test_cache_reads_do_not_count(self):
        estimator = TokenEstimator()
        estimator.observe(self.call(), Usage(100, 40, 0, 200))
        assert estimator.estimate(self.call()).input_tokens == pytest.approx(100)
        assert billable_usage(Usage(100, 40, 50, 200)) == TokenCost(1, 150, 40)

    def test_answer_is_at_most_max_tokens(self):
        estimator = TokenEstimator()
        assert estimator.estimate(Call("a", (), "x", MODEL, 16)).output_tokens == 16

    @given(st.lists(st.integers(1, 4000), min_size=1, max_size=200))
    def test_mean_stays_in_range(self, answers):
        estimator = TokenEstimator()
        for tokens in answers:
            estimator.observe(self.call(), Usage(300, tokens))
        assert min(answers) - 1e-6 <= estimator.answer_tokens(self.call()) <= max(answers) + 1e-6


class TestForecastOfConversations:
    """A turn of an agent with tools reads what the turn before wrote to the prompt cache."""

    CALL = ContentBlock("tool_use", '{"type":"tool_use","id":"t","name":"Read","input":{}}')
    IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/x", "data": "A" * 40_000}}

    def call(self, turns, content="x" * 7000, tools="[" + " " * 3498 + "]"):
        conversation = Conversation.start(tools, ["task"])
        for _ in range(turns):
            (use,) = tool_uses([self.CALL])
            conversation = conversation.with_answer([self.CALL])
            conversation = conversation.with_results([(use, ToolResult(content))])
        return Call("a", ("s" * 700,), "task", MODEL, 4096, conversation=conversation)

    def tokens(self, estimator, call):
        return estimator.estimate(call).input_tokens

    def test_without_a_prompt_cache_all_counts(self):
        estimator = TokenEstimator()
        size = self.call(5).conversation.size.text + 700
        assert self.tokens(estimator, self.call(5)) == pytest.approx(size / 3.5)
        estimator.observe(self.call(5), Usage(size // 4, 40))
        assert self.tokens(estimator, self.call(5)) == pytest.approx(size / 4, rel=0.01)

    def test_only_new_messages_count(self):
        estimator = TokenEstimator()
        size = self.call(5).conversation.size.text + 700
        # The first of all requests writes.
        estimator.observe(self.call(5), Usage(10, 40, size // 4 - 10))
        added = self.call(6).conversation.added.text
        assert 7000 < added < 7300
        assert self.tokens(estimator, self.call(6)) == pytest.approx(added / 4, rel=0.01)

    def test_first_turn_reads_tools_and_system(self):
        estimator = TokenEstimator()
        estimator.observe(self.call(0), Usage(20, 40, 0, 1050))
        assert self.tokens(estimator, self.call(0)) < 40
        assert estimator.prompt_tokens(self.call(0)) == pytest.approx(1070)

    def test_images_count_by_their_pixels(self):
        estimator = TokenEstimator()
        with_image = self.call(1, (self.IMAGE,))
        text = with_image.conversation.size.text + 700
        assert text < 6000
        assert self.tokens(estimator, with_image) == pytest.approx(text / 3.5 + 1600)
        estimator.observe(with_image, Usage(text // 4 + 1600, 40))
        assert estimator.tokens_per_byte(MODEL) == pytest.approx(0.25, rel=0.01)


class TestFleet:
    @pytest.fixture
    def project(self, tmp_path):
        return write_project(tmp_path)

    async def test_keeps_limits_of_headers(self, project):
        clock = FakeClock()
        plan = {"rate_limit": RateLimit(60, 6_000, 6_000), "clock": clock.now}
        tasks = [("python-expert", f"Task {number}") for number in range(200)]
        async with fleet(project, plan, clock=clock, max_concurrent=20) as (orchestrator, server):
            results = await orchestrator.execute_multiple(tasks, cache="off")
            assert all(result.success for result in results)
            assert len(server.requests) == 200
            assert orchestrator.load().limits == Rates(60, 6_000, 6_000)

    async def test_keeps_manual_limit(self, project):
        clock = FakeClock()
        tasks = [("python-expert", f"Task {number}") for number in range(40)]
        async with fleet(project, {"clock": clock.now}, clock=clock, rpm=60) as (orchestrator, server):
            await orchestrator.execute_multiple(tasks, cache="off")
            # Six at once, then one in each second.
            assert server.requests[-1].at >= 33

    async def test_deadline_bounds_wait(self, project):
        async with fleet(project, rpm=1, deadline_seconds=0.2, clock=None) as (orchestrator, server):
            tasks = [("python-expert", "a"), ("python-expert", "b")]
            results = await orchestrator.execute_multiple(tasks, cache="off")
            assert sorted(result.success for result in results) == [False, True]
            assert len(server.requests) == 1

    @pytest.mark.parametrize("name", ["rpm", "input_tpm", "output_tpm"])
    @pytest.mark.parametrize("value", [0, -1, "many", True])
    async def test_refuses_bad_limit(self, project, name, value):
        with pytest.raises(InvalidOptionError, match=name):
            async with fleet(project, **{name: value}):
                pass

    async def test_refuses_other_words_than_auto(self, project):
        with pytest.raises(InvalidOptionError, match="auto"):
            async with fleet(project, max_concurrent="many"):
                pass
        async with fleet(project, max_concurrent="auto") as (orchestrator, _):
            assert (await orchestrator.execute_agent("python-expert", "x")).success
            assert orchestrator.load().window == 10
