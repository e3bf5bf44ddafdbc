"""The gate: the order in which attempts go onto the wire, and what their ends tell those that wait."""

import asyncio

import pytest
from virtual_time import LoopClock, run_virtually

from claude_force.errors import AuthenticationError, ClosedError, OverloadedError, RateLimitError
from claude_force.limits.admission import AdmissionController, Load
from claude_force.limits.aimd import AdaptiveConcurrencyLimit
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.limits.rate_limiter import NO_RATES, RateLimiter, Rates, TokenCost
from claude_force.transport.transport import AttemptRecord
from claude_force.types import Usage

ONE = TokenCost(1)


class Listener(CallListener):
    def __init__(self):
        self.told = []

    def paused(self, seconds, error):
        self.told.append((seconds, error))


class Wire:
    """Attempts through one gate, which has `room` for so many; `log` has (time, name) of each that began."""

    def __init__(self, room=1, rates=NO_RATES, adaptive=False):
        self.clock = LoopClock()
        limiter = RateLimiter(rates, self.clock.now())
        self.admission = AdmissionController(
            AdaptiveConcurrencyLimit(room, adaptive, uniform=lambda low, high: low), limiter, self.clock
        )
        self.listener, self.log = Listener(), []

    async def send(self, name, takes=1.0, ends=None, model="m", need=ONE, told=None, usage=None):
        record = AttemptRecord(usage=usage, headers=told or {})
        async with self.admission.slot(model, need, record, CallContext(listener=self.listener)):
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
        await wire.send("first", 0.0, told=headers(60, 3))
        await wire.all(*(wire.send(name) for name in "ab"), wire.send("c", model="other"))
        assert wire.admission.load().limits == Rates(60, None, None)
        return wire.log

    # A twentieth of 60 stays.
    assert run(work()) == [(0, "first"), (0, "c"), (1, "a"), (2, "b")]


def test_tightened_limit_blocks_no_other_model():
    async def work():
        wire = Wire(room=2)
        # The answer tells that nothing is left, when the next of its model waits for room already.
        first = [wire.send("first", 1.0, told=headers(60, 0)), wire.send("other", 1.0, model="other")]
        await wire.all(*first, wire.send("a"), wire.send("b"), wire.send("c", model="other"))
        return wire.log

    assert run(work()) == [(0, "first"), (0, "other"), (1, "c"), (4, "a"), (5, "b")]


def test_first_request_counts_once():
    async def work():
        wire = Wire(room=10)
        await wire.send("first", 0.0, told=headers(60, 4))
        await wire.all(*(wire.send(name) for name in "ab"))
        return wire.log

    # Of the four that are left a twentieth of 60 stays.
    assert run(work()) == [(0, "first"), (0, "a"), (1, "b")]


def test_first_answer_counts():
    async def work():
        wire, told = Wire(), headers(6_000, 6_000, "output-tokens")
        await wire.send("first", 0.0, need=TokenCost(1, 0, 500), told=told, usage=Usage(0, 400))
        limiter = wire.admission.queue_of("m").rate_limiter
        return limiter.wait(TokenCost(1, 0, 5_300), 0.0), limiter.wait(TokenCost(1, 0, 5_400), 0.0)

    # Of the 6,000, 400 are used and a twentieth stays.
    assert run(work()) == (0, pytest.approx(1))


def test_large_request_keeps_its_place():
    async def work():
        wire = Wire(room=10)
        await wire.send("first", 0.0, told=headers(60, 3))
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
        return wire.log, wire.listener.told

    log, told = run(work())
    assert told == [(9.0, error)]
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
        return wire.log, wire.listener.told

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
        (told,) = await wire.all(second)
        assert isinstance(told, ClosedError) and not first.done()
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
