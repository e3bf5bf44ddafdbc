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
from claude_force.limits.run_gate import RunGate
from claude_force.types import Call


def highest(low, high):
    return high


def lowest(low, high):
    return low


@pytest.mark.parametrize("error", [AuthenticationError("x"), RequestRefusedError("x"), SpendLimitError("x")])
def test_final_error_gives_up(error):
    assert RetryPolicy(attempts=5).gives_up(1, error)


def test_retries_up_to_max_attempts():
    policy = RetryPolicy(attempts=3)
    assert [policy.gives_up(attempt, SilenceError("x")) for attempt in (1, 2, 3)] == [False, False, True]


def test_bug_is_not_retried():
    assert RetryPolicy(attempts=3).gives_up(1, KeyError("x"))


def test_jitter_doubles_up_to_cap():
    policy = RetryPolicy(base=0.5, cap=3.0, uniform=highest)
    assert [policy.delay(attempt, OverloadedError("x")) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 3.0]


def test_default_policy():
    policy, error = RetryPolicy(), OverloadedError("x")
    assert not policy.gives_up(settings.MAX_ATTEMPTS - 1, error)
    assert policy.gives_up(settings.MAX_ATTEMPTS, error)
    delays = {policy.delay(1, error) for _ in range(10)}
    assert len(delays) > 1
    assert max(delays) <= settings.BACKOFF_BASE_SECONDS


def test_other_error_has_jitter_only():
    assert RetryPolicy(base=0.5, uniform=highest).delay(1, ConnectionError("x")) == 0.5


def test_full_jitter_may_be_zero():
    assert RetryPolicy(uniform=lowest).delay(6, OverloadedError("x")) == 0.0


@given(
    attempt=st.integers(1, 10_000),
    asked=st.floats(0, 86_400),
    share=st.floats(0, 1),
)
def test_retry_after_is_a_floor(attempt, asked, share):
    policy = RetryPolicy(cap=30.0, uniform=lambda low, high: low + share * (high - low))
    delay = policy.delay(attempt, RateLimitError("x", retry_after=asked))
    assert asked <= delay <= asked + 30.0


class Listener(CallListener):
    def __init__(self):
        self.reported = []

    def retried(self, attempt, delay, error):
        self.reported.append((attempt, delay, error))


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

        def run(*outcomes, deadline=None, before=0.0, run_gate=None):
            policy, self.listener, numbers = RetryPolicy(5, 1.0, 60.0, highest), Listener(), []
            context = CallContext(listener=self.listener, run_gate=run_gate)
            call = Call("python-expert", (), "x", "m", 1)

            async def work():
                self.clock = clock = ListeningClock()
                await asyncio.sleep(7)
                self.made = Retrier(call, policy, clock, deadline, context)
                await asyncio.sleep(before)

                async def attempt(number):
                    numbers.append(number)
                    outcome = outcomes[number - 1]
                    outcome = outcome() if callable(outcome) else outcome
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

    def test_success_is_not_retried(self, attempts):
        assert attempts("reply", "another") == ("reply", 0, [1])
        assert (self.made.last_error, self.listener.reported) == (None, [])

    def test_retries_after_delay(self, attempts):
        first, second = OverloadedError("one"), RateLimitError("two", retry_after=10.0)
        assert attempts(first, second, "reply") == ("reply", 1 + 12, [1, 2, 3])
        assert self.made.last_error is second
        assert self.listener.reported == [(1, 1.0, first), (2, 12.0, second)]
        assert self.clock.slept == [1.0, 12.0]

    def test_last_attempt_raises_its_error(self, attempts):
        errors = [OverloadedError(str(number)) for number in range(6)]
        error, seconds, numbers = attempts(*errors)
        assert (error, seconds, numbers) == (errors[4], 1 + 2 + 4 + 8, [1, 2, 3, 4, 5])
        assert self.made.last_error is errors[3]

    @pytest.mark.parametrize("before", [[], [OverloadedError("x")]])
    def test_final_error_stops_retries(self, attempts, before):
        final = AuthenticationError("x")
        error, _, numbers = attempts(*before, final, "reply")
        assert error is final
        assert len(numbers) == len(before) + 1

    @pytest.mark.parametrize("before", [0.0, 3.0])
    def test_retry_after_beyond_deadline(self, attempts, before):
        asked = RateLimitError("x", retry_after=10.5)
        error, seconds, numbers = attempts(asked, "reply", deadline=before + 10.0, before=before)
        assert isinstance(error, DeadlineExceededError)
        assert str(error).startswith("The server asks to wait 10.5 s and the deadline leaves 10 s")
        assert error.__cause__ is asked
        assert (seconds, numbers) == (before, [1])

    def test_passed_deadline_leaves_zero(self, attempts):
        error, _, _ = attempts(RateLimitError("x", retry_after=5.0), deadline=2.0, before=3.0)
        assert "leaves 0 s" in str(error)

    def test_retry_after_within_deadline(self, attempts):
        assert attempts(RateLimitError("x", retry_after=10.0), "reply", deadline=10.0)[0] == "reply"
        assert attempts(OverloadedError("x"), "reply", deadline=0.5)[0] == "reply"
        assert attempts(RateLimitError("x", retry_after=1e6), "reply")[0] == "reply"

    @pytest.mark.parametrize(("model", "seconds"), [("m", 0.25), ("another", 1.0)])
    def test_shut_gate_ends_delay(self, attempts, model, seconds):
        gate = RunGate()

        def shut_later():
            asyncio.get_running_loop().call_later(0.25, gate.shut, AuthenticationError("x"), model)
            return OverloadedError("x")

        assert attempts(shut_later, "reply", run_gate=gate) == ("reply", seconds, [1, 2])
        assert self.clock.slept == [1.0]

    def test_logs_each_retry(self, attempts, caplog):
        with caplog.at_level(logging.WARNING):
            attempts(OverloadedError("too busy"), "reply")
        (record,) = caplog.records
        said = "attempt 1 for python-expert failed, the next follows in 1.00 s: too busy"
        assert record.getMessage().startswith(said)
        assert (record.levelname, record.name) == ("WARNING", "claude_force.engine.retry")
        figures = (record.agent, record.attempt, record.delay_seconds, record.error_type)
        assert figures == ("python-expert", 1, 1.0, "OverloadedError")
