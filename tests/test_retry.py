"""The retry policy: pure, so every statement about it is a plain assertion; and the attempts under it."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import LoopClock, run_virtually

from claude_force import settings
from claude_force.engine.retry import Retrier, RetryPolicy
from claude_force.errors import (
    AuthenticationError,
    CallError,
    DeadlineExceededError,
    OverloadedError,
    RateLimitError,
    RequestRefusedError,
    SilenceError,
    SpendLimitError,
)
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.types import Call


def highest(low, high):
    return high


def lowest(low, high):
    return low


@pytest.mark.parametrize("error", [AuthenticationError("x"), RequestRefusedError("x"), SpendLimitError("x")])
def test_an_error_that_another_attempt_meets_again_is_final_at_once(error):
    assert RetryPolicy(attempts=5).gives_up(1, error)


def test_transient_errors_are_tried_again_up_to_the_number_of_attempts():
    policy = RetryPolicy(attempts=3)
    assert [policy.gives_up(attempt, SilenceError("x")) for attempt in (1, 2, 3)] == [False, False, True]


def test_a_fault_of_the_program_itself_is_never_retried():
    assert RetryPolicy(attempts=3).gives_up(1, KeyError("x"))


def test_the_ceiling_of_the_jitter_doubles_with_each_attempt_up_to_the_cap():
    policy = RetryPolicy(base=0.5, cap=3.0, uniform=highest)
    assert [policy.delay(attempt, OverloadedError("x")) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 3.0]


def test_with_nothing_said_it_has_the_named_defaults_and_a_jitter_of_its_own():
    policy, error = RetryPolicy(), OverloadedError("x")
    assert not policy.gives_up(settings.MAX_ATTEMPTS - 1, error)
    assert policy.gives_up(settings.MAX_ATTEMPTS, error)
    delays = {policy.delay(1, error) for _ in range(10)}
    assert len(delays) > 1
    assert max(delays) <= settings.BACKOFF_BASE_SECONDS


def test_an_error_that_can_name_no_time_is_waited_for_as_the_jitter_says():
    assert RetryPolicy(base=0.5, uniform=highest).delay(1, ConnectionError("x")) == 0.5


def test_full_jitter_may_wait_no_time_at_all():
    assert RetryPolicy(uniform=lowest).delay(6, OverloadedError("x")) == 0.0


@given(
    attempt=st.integers(1, 10_000),
    asked=st.floats(0, 86_400),
    share=st.floats(0, 1),
)
def test_retry_after_is_a_floor_and_the_cap_bounds_what_comes_on_top(attempt, asked, share):
    policy = RetryPolicy(cap=30.0, uniform=lambda low, high: low + share * (high - low))
    delay = policy.delay(attempt, RateLimitError("x", retry_after=asked))
    assert asked <= delay <= asked + 30.0


class Listener(CallListener):
    def __init__(self):
        self.told = []

    def retried(self, attempt, delay, error):
        self.told.append((attempt, delay, error))


class ListeningClock(LoopClock):
    def __init__(self):
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await super().sleep(seconds)


class TestAttempts:
    """In virtual time: 1, 2, 4 ... seconds between attempts of no time at all, 5 of them at most."""

    @pytest.fixture
    def attempts(self):
        """Makes them as `outcomes` says; returns the reply or the error, the seconds and the numbers."""

        def run(*outcomes, deadline=None, before=0.0):
            policy, self.listener, numbers = RetryPolicy(5, 1.0, 60.0, highest), Listener(), []
            call = Call("python-expert", (), "x", "m", 1)

            async def work():
                self.clock = clock = ListeningClock()
                await asyncio.sleep(7)
                self.made = Retrier(call, policy, clock, deadline, CallContext(listener=self.listener))
                await asyncio.sleep(before)

                async def attempt(number):
                    numbers.append(number)
                    outcome = outcomes[number - 1]
                    if isinstance(outcome, BaseException):
                        raise outcome
                    return outcome

                try:
                    try:
                        reply = await attempt(1)
                    except CallError as error:
                        reply = await self.made.retry(attempt, error)
                    return reply, clock.now() - 7, numbers
                except Exception as error:
                    return error, clock.now() - 7, numbers

            return run_virtually(work())

        return run

    def test_the_first_that_succeeds_is_the_only_one(self, attempts):
        assert attempts("reply", "another") == ("reply", 0, [1])
        assert (self.made.last_error, self.listener.told) == (None, [])

    def test_each_that_may_pass_is_followed_by_another_after_its_time(self, attempts):
        first, second = OverloadedError("one"), RateLimitError("two", retry_after=10.0)
        assert attempts(first, second, "reply") == ("reply", 1 + 12, [1, 2, 3])
        assert self.made.last_error is second
        assert self.listener.told == [(1, 1.0, first), (2, 12.0, second)]
        assert self.clock.slept == [1.0, 12.0]

    def test_the_last_that_the_policy_allows_fails_the_call_with_its_own_error(self, attempts):
        errors = [OverloadedError(str(number)) for number in range(6)]
        error, seconds, numbers = attempts(*errors)
        assert (error, seconds, numbers) == (errors[4], 1 + 2 + 4 + 8, [1, 2, 3, 4, 5])
        assert self.made.last_error is errors[3]

    @pytest.mark.parametrize("before", [[], [OverloadedError("x")]])
    def test_a_final_error_ends_them_whenever_it_comes(self, attempts, before):
        final = AuthenticationError("x")
        error, _, numbers = attempts(*before, final, "reply")
        assert error is final
        assert len(numbers) == len(before) + 1

    @pytest.mark.parametrize("before", [0.0, 3.0])
    def test_a_server_that_asks_for_more_time_than_is_left_fails_the_call_at_once(self, attempts, before):
        asked = RateLimitError("x", retry_after=10.5)
        error, seconds, numbers = attempts(asked, "reply", deadline=before + 10.0, before=before)
        assert isinstance(error, DeadlineExceededError)
        assert str(error).startswith("The server asks to wait 10.5 s and the deadline leaves 10 s")
        assert error.__cause__ is asked
        assert (seconds, numbers) == (before, [1])

    def test_what_is_left_of_a_deadline_that_is_over_is_nothing(self, attempts):
        error, _, _ = attempts(RateLimitError("x", retry_after=5.0), deadline=2.0, before=3.0)
        assert "leaves 0 s" in str(error)

    def test_a_server_that_asks_for_what_is_left_or_for_no_time_is_waited_for(self, attempts):
        assert attempts(RateLimitError("x", retry_after=10.0), "reply", deadline=10.0)[0] == "reply"
        assert attempts(OverloadedError("x"), "reply", deadline=0.5)[0] == "reply"
        assert attempts(RateLimitError("x", retry_after=1e6), "reply")[0] == "reply"

    def test_each_that_fails_is_in_the_log_with_its_figures(self, attempts, caplog):
        with caplog.at_level(logging.WARNING):
            attempts(OverloadedError("too busy"), "reply")
        (record,) = caplog.records
        said = "attempt 1 for python-expert failed, the next follows in 1.00 s: too busy"
        assert record.getMessage().startswith(said)
        assert (record.levelname, record.name) == ("WARNING", "claude_force.engine.retry")
        figures = (record.agent, record.attempt, record.delay_seconds, record.error_type)
        assert figures == ("python-expert", 1, 1.0, "OverloadedError")
