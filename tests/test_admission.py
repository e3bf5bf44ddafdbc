"""Admission: the order in which attempts are sent, and what the limits learn from their ends."""

import asyncio

import pytest
from virtual_time import LoopClock, run_virtually

from claude_force.errors import (
    AuthenticationError,
    BudgetExceededError,
    ClosedError,
    OverloadedError,
    RateLimitError,
)
from claude_force.limits.admission import NO_WAIT, AdmissionController, Load
from claude_force.limits.aimd import AdaptiveConcurrencyLimit
from claude_force.limits.budget import Budget
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.limits.rate_limiter import RateLimiter, Rates, TokenCost
from claude_force.limits.run_gate import RunGate
from claude_force.transport.transport import AttemptRecord
from claude_force.types import Usage

ONE = TokenCost(1)

NO_RATES = Rates()


class Listener(CallListener):
    def __init__(self):
        self.reported = []

    def paused(self, seconds, error):
        self.reported.append((seconds, error))


class Wire:
    """Attempts of one AdmissionController with `room` for so many; `log` has (time, name) of each start."""

    def __init__(self, room=1, rates=NO_RATES, adaptive=False):
        self.clock = LoopClock()
        limiter = RateLimiter(rates, self.clock.now())
        self.admission = AdmissionController(
            AdaptiveConcurrencyLimit(room, adaptive, uniform=lambda low, high: low), limiter, self.clock
        )
        self.listener, self.log = Listener(), []

    async def send(
        self,
        name,
        takes=1.0,
        ends=None,
        model="m",
        need=ONE,
        reported=None,
        usage=None,
        run_gate=None,
        check=None,
    ):
        record = AttemptRecord(usage=usage, headers=reported or {})
        context = CallContext(listener=self.listener, run_gate=run_gate)
        async with self.admission.slot(model, need, record, context, check):
            self.log.append((self.clock.now(), name))
            await asyncio.sleep(takes)
            if ends is not None:
                raise ends
        return record

    async def all(self, *sent):
        return await asyncio.gather(*sent, return_exceptions=True)


def run(work):
    """Nobody waits for ever."""
    return run_virtually(asyncio.wait_for(work, 1000.0))


def headers(limit, left, kind="requests"):
    return {
        f"anthropic-ratelimit-{kind}-limit": str(limit),
        f"anthropic-ratelimit-{kind}-remaining": str(left),
    }


def test_admits_in_order_within_room():
    async def work():
        wire = Wire(room=2)
        await wire.all(*(wire.send(name) for name in "abcde"))
        assert wire.admission.in_flight == 0
        return wire.log

    assert run(work()) == [(0, "a"), (0, "b"), (1, "c"), (1, "d"), (2, "e")]


def test_models_share_slots_not_limits():
    async def work():
        wire = Wire(room=10)
        await wire.send("first", 0.0, reported=headers(60, 3))
        await wire.all(*(wire.send(name) for name in "ab"), wire.send("c", model="other"))
        assert wire.admission.load().limits == Rates(60, None, None)
        return wire.log

    # A twentieth of 60 stays.
    assert run(work()) == [(0, "first"), (0, "c"), (1, "a"), (2, "b")]


def test_tightened_limit_blocks_no_other_model():
    async def work():
        wire = Wire(room=2)
        # The answer tells that nothing is left, when the next of its model waits for room already.
        first = [wire.send("first", 1.0, reported=headers(60, 0)), wire.send("other", 1.0, model="other")]
        await wire.all(*first, wire.send("a"), wire.send("b"), wire.send("c", model="other"))
        return wire.log

    assert run(work()) == [(0, "first"), (0, "other"), (1, "c"), (4, "a"), (5, "b")]


def test_first_request_counts_once():
    async def work():
        wire = Wire(room=10)
        await wire.send("first", 0.0, reported=headers(60, 4))
        await wire.all(*(wire.send(name) for name in "ab"))
        return wire.log

    # Of the four that are left a twentieth of 60 stays.
    assert run(work()) == [(0, "first"), (0, "a"), (1, "b")]


def test_first_answer_counts():
    async def work():
        wire, reported = Wire(), headers(6_000, 6_000, "output-tokens")
        await wire.send("first", 0.0, need=TokenCost(1, 0, 500), reported=reported, usage=Usage(0, 400))
        limiter = wire.admission.queue_of("m").rate_limiter
        return limiter.wait(TokenCost(1, 0, 5_300), 0.0), limiter.wait(TokenCost(1, 0, 5_400), 0.0)

    # Of the 6,000, 400 are used and a twentieth stays.
    assert run(work()) == (0, pytest.approx(1))


def test_large_request_keeps_its_place():
    async def work():
        wire = Wire(room=10)
        await wire.send("first", 0.0, reported=headers(60, 3))
        await wire.all(wire.send("large", need=TokenCost(20)), *(wire.send(name) for name in "ab"))
        return wire.log

    assert run(work()) == [(0, "first"), (20, "large"), (21, "a"), (22, "b")]


def test_manual_limit_spans_models():
    async def work():
        wire = Wire(room=10, rates=Rates(5))
        assert wire.admission.load().limits == Rates(5)
        await wire.all(wire.send("a"), wire.send("b", model="other"))
        return wire.log

    assert run(work()) == [(0, "a"), (pytest.approx(12), "b")]


def test_small_requests_starve_no_large_one():
    async def small(wire):
        while True:
            await wire.send("small", 0.1, model="small", need=TokenCost(1, 60, 0))

    async def work():
        # A hundred a second, of which the small ones take all.
        wire = Wire(room=10, rates=Rates(None, 6_000, None))
        busy = [asyncio.ensure_future(small(wire)) for _ in range(8)]
        await asyncio.sleep(20)
        await wire.send("large", 0.0, model="large", need=TokenCost(1, 500, 0))
        for one in busy:
            one.cancel()
        return wire.clock.now()

    assert run(work()) < 30


def test_load():
    async def work():
        wire = Wire(room=3)
        sent = [asyncio.ensure_future(wire.send(name, takes=5.0)) for name in "ab"]
        await asyncio.sleep(1)
        assert wire.admission.load() == Load(2, 3, 0.0, Rates())
        assert wire.admission.load().window == 3
        await wire.all(wire.send("c", 1.0, RateLimitError("x", retry_after=9.0)))
        assert wire.admission.load() == Load(2, 1, 9.0, Rates())
        await wire.all(*sent)

    run(work())


def test_pause_is_reported_once():
    error = RateLimitError("x", retry_after=9.0)

    async def work():
        wire = Wire(room=3, rates=Rates(600))
        await wire.all(wire.send("a", 1.0, error), wire.send("b", 2.0, RateLimitError("x", retry_after=1.0)))
        await wire.all(wire.send("c"), wire.send("d"))
        return wire.log, wire.listener.reported

    log, reported = run(work())
    assert reported == [(9.0, error)]
    assert log == [(0, "a"), (0, "b"), (10, "c"), (11, "d")]


def test_record_has_times_and_window():
    async def work():
        wire = Wire(room=2)
        await asyncio.sleep(3)
        return await wire.send("a", takes=2.0)

    record = run(work())
    assert (record.began, record.ended, record.window) == (3, 5, 2)


@pytest.mark.parametrize(
    ("usage", "ends", "waits"),
    [
        (None, None, 10),
        (Usage(100), None, 1),
        (Usage(1_900), None, 19),
        (None, OverloadedError("x"), 10),
        (None, RateLimitError("x", retry_after=0.5), 1),
        (None, KeyError("x"), 10),
    ],
)
def test_usage_replaces_estimate(usage, ends, waits):
    """A refused one has used nothing; of one that failed otherwise nobody knows better."""

    async def work():
        wire = Wire(room=10, rates=Rates(None, 6_000, None))
        await wire.all(wire.send("a", 0.0, ends, need=TokenCost(1, 1_000, 0), usage=usage))
        return wire.admission.queue_of("m").rate_limiter.wait(TokenCost(1, 600, 0), 0.0) or 1

    assert run(work()) == pytest.approx(waits)


@pytest.mark.parametrize(
    ("ends", "waits"), [(RateLimitError("x"), 0), (OverloadedError("x"), 12), (KeyError("x"), 12)]
)
def test_429_gives_tokens_back(ends, waits):
    async def work():
        wire = Wire(rates=Rates(5))
        await wire.all(wire.send("a", 0.0, ends))
        return wire.admission.queue_of("m").rate_limiter.wait(ONE, 0.0)

    assert run(work()) == pytest.approx(waits)


def test_grows_only_when_full():
    async def work():
        wire = Wire(room=100, adaptive=True)
        await wire.all(*(wire.send(number) for number in range(10)))
        assert wire.admission.load().window == 10
        await wire.all(*(wire.send(number) for number in range(12)))
        return wire.admission.load().window

    assert run(work()) > 10


def test_a_final_error_closes_nothing():
    async def work():
        wire = Wire()
        await wire.all(wire.send("a", 1.0, AuthenticationError("x")), wire.send("b"))
        return wire.log, wire.listener.reported

    assert run(work()) == ([(0, "a"), (1, "b")], [])


def test_closed_admits_nothing():
    async def work():
        wire = Wire(rates=Rates(600))
        sent = [asyncio.ensure_future(wire.send(name, takes=5.0)) for name in "abc"]
        await asyncio.sleep(1)
        wire.admission.close()
        late = asyncio.ensure_future(wire.send("late"))
        await wire.admission.wait_until_idle()
        assert wire.clock.now() == 5
        ended = await wire.all(*sent, late)
        assert all(isinstance(one, ClosedError) for one in ended[1:])
        assert {one.message for one in ended[1:]} == {
            "The call had not been sent when the orchestrator was stopped"
        }
        await wire.admission.wait_until_idle()
        return wire.log

    assert run(work()) == [(0, "a")]


def test_close_wakes_waiting_for_room():
    async def work():
        wire = Wire()
        first, second = (asyncio.ensure_future(wire.send(name, takes=5.0)) for name in "ab")
        await asyncio.sleep(1)
        wire.admission.close()
        (reported,) = await wire.all(second)
        assert isinstance(reported, ClosedError) and not first.done()
        await first
        return wire.log

    assert run(work()) == [(0, "a")]


def test_close_wakes_waiting_for_limit():
    async def work():
        wire = Wire(room=10, rates=Rates(1))
        sent = [asyncio.ensure_future(wire.send(name, takes=0.0)) for name in "ab"]
        await asyncio.sleep(10.5)
        wire.admission.close()
        await wire.all(*sent)
        return wire.log, wire.clock.now()

    log, ended = run(work())
    assert log == [(0, "a")]
    assert ended <= 11.5


@pytest.mark.parametrize(("model", "sent"), [("m", False), ("another", True)])
def test_shut_gate_ends_wait_for_limit(model, sent):
    async def work():
        wire, gate = Wire(room=10), RunGate()
        await wire.send("first", 0.0, reported=headers(6, 0))
        waiting = asyncio.ensure_future(wire.send("a", run_gate=gate))
        await asyncio.sleep(2.5)
        gate.shut(AuthenticationError("x"), model)
        (ended,) = await wire.all(waiting)
        assert isinstance(ended, AuthenticationError) is not sent
        return wire.clock.now(), len(wire.log)

    assert run(work()) == ((14, 2) if sent else (3, 1))


@pytest.mark.parametrize(("model", "sent"), [("m", False), ("another", True)])
def test_shut_gate_admits_none_to_room(model, sent):
    async def work():
        wire, gate = Wire(), RunGate()
        first = asyncio.ensure_future(wire.send("first", 5.0))
        waiting = asyncio.ensure_future(wire.send("a", run_gate=gate))
        await asyncio.sleep(1)
        gate.shut(AuthenticationError("x"), model)
        _, ended = await wire.all(first, waiting)
        assert isinstance(ended, AuthenticationError) is not sent
        assert wire.admission.in_flight == 0
        return len(wire.log)

    assert run(work()) == 1 + sent


def test_refused_check_takes_nothing():
    async def work():
        wire, checked = Wire(rates=Rates(10)), []

        def check():
            checked.append(wire.clock.now())
            raise KeyError("x")

        first = asyncio.ensure_future(wire.send("first", 5.0))
        await asyncio.sleep(0)
        (ended,) = await wire.all(wire.send("a", check=check))
        await first
        assert isinstance(ended, KeyError)
        assert wire.admission.in_flight == 0
        assert wire.admission.queue_of("m").rate_limiter.wait(ONE, 6.0) == 0
        return wire.log, checked

    log, checked = run(work())
    # Once the slot is free and the limit of ten a minute allows another request.
    assert log == [(0, "first")]
    assert checked == [pytest.approx(6)]


def test_reduces_ceiling_to_in_flight():
    async def work():
        wire = Wire(room=10)
        sent = [asyncio.ensure_future(wire.send(name, 1.0)) for name in "ab"]
        await asyncio.sleep(0.5)
        wire.admission.reduce_ceiling()
        assert wire.admission.load().window == 2
        await wire.all(*sent, *(wire.send(name) for name in "cd"))
        return wire.log

    assert run(work()) == [(0, "a"), (0, "b"), (1, "c"), (1, "d")]


class TestReservation:
    def test_holds_worst_until_exit(self):
        async def work():
            budgets = [Budget(1.0), Budget(2.0)]
            async with Wire().admission.reserve(budgets, 0.5, lambda: 0.125):
                assert [(one.reserved, one.spent) for one in budgets] == [(0.5, 0.0)] * 2
            return [(one.reserved, one.spent) for one in budgets]

        assert run(work()) == [(0.0, 0.125)] * 2

    def test_waits_in_order_of_arrival(self):
        async def work():
            budget, log, admission = Budget(1.0), [], Wire().admission

            async def spend(name, worst, seconds):
                async with admission.reserve([budget], worst, lambda: 0.0):
                    log.append((asyncio.get_running_loop().time(), name))
                    await asyncio.sleep(seconds)

            sent = [("a", 0.5, 1.0), ("b", 0.25, 2.0), ("large", 0.75, 1.0), ("small", 0.125, 1.0)]
            await asyncio.gather(*(spend(*one) for one in sent))
            assert budget.reserved == 0
            return log

        assert run(work()) == [(0, "a"), (0, "b"), (1, "large"), (2, "small")]

    def test_what_can_never_fit_is_refused(self):
        async def work():
            large, small = Budget(1.0), Budget(0.25)
            with pytest.raises(BudgetExceededError):
                async with Wire().admission.reserve([large, small], 0.5, lambda: 0.125):
                    pytest.fail("entered")
            return (large.reserved, large.spent), (small.reserved, small.spent)

        assert run(work()) == ((0.0, 0.125), (0.0, 0.0))

    def test_cancelled_wait_holds_nothing(self):
        async def work():
            free, full, admission = Budget(1.0), Budget(1.0), Wire().admission
            assert full.reserve(1.0)
            waiting = asyncio.ensure_future(
                admission.reserve([free, full], 0.5, lambda: 0.0).__aenter__(),
            )
            await asyncio.sleep(1)
            assert free.reserved == 0.5
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            # The next one's turn: the one that was cancelled does not stay in the queue.
            async with admission.reserve([free], 1.0, lambda: 0.0):
                assert (free.reserved, full.reserved) == (1.0, 1.0)

        run(work())


def test_no_wait_is_entered_at_once():
    async def work():
        async with NO_WAIT:
            return asyncio.get_running_loop().time()

    assert run(work()) == 0
