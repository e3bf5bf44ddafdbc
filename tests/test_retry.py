"""The retry policy: pure, so every statement about it is a plain assertion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_force import settings
from claude_force.calling.retry import RetryPolicy
from claude_force.errors import (
    AuthenticationError,
    OverloadedError,
    RateLimitError,
    RequestRefusedError,
    SilenceError,
    SpendLimitError,
)


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
