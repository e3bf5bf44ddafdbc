"""Single flight: identical work is done once, and each caller pays its own share."""

import asyncio

import anyio
import pytest

from claude_force.engine.executor import SingleFlight
from claude_force.errors import (
    AuthenticationError,
    BudgetExceededError,
    ClosedError,
    DeadlineExceededError,
    OverloadedError,
)
from claude_force.limits.call_context import CallbackError
from claude_force.limits.call_cost import CallCost
from claude_force.types import Attempt, Reply, Usage


class Work:
    """Work that counts its runs, and ends when and as the test wants."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.runs = 0
        self.cancelled = 0
        self.left = []
        self.release = asyncio.Event()

    async def __call__(self, left, cost):
        self.runs += 1
        self.left.append(left)
        outcome = self.outcomes.pop(0)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def start(flights, work, count, key="key", **options):
    return [asyncio.ensure_future(flights.run(key, work, **options)) for _ in range(count)]


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_50_callers_share_one_run():
    flights, work = SingleFlight(), Work("answer")
    waiting = start(flights, work, 50)
    await settle()
    work.release.set()
    outcomes = await asyncio.gather(*waiting)
    assert work.runs == 1
    assert [led for _, led in outcomes].count(True) == 1
    assert {value for value, _ in outcomes} == {"answer"}


async def test_other_keys_are_not_shared():
    flights, work = SingleFlight(), Work("one", "two")
    work.release.set()
    assert await flights.run("a", work) == ("one", True)
    assert await flights.run("b", work) == ("two", True)


async def test_ended_work_is_started_again():
    flights, work = SingleFlight(), Work("one", "two")
    work.release.set()
    assert (await flights.run("a", work))[0] == "one"
    assert (await flights.run("a", work))[0] == "two"


async def test_cancels_only_the_caller():
    flights, work = SingleFlight(), Work("answer")
    leader, *others = start(flights, work, 3)
    await settle()
    leader.cancel()
    await settle()
    work.release.set()
    assert [value for value, _ in await asyncio.gather(*others)] == ["answer"] * 2
    assert work.cancelled == 0
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_last_cancellation_ends_work():
    flights, work = SingleFlight(), Work("answer")
    waiting = start(flights, work, 3)
    await settle()
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert work.cancelled == 1


async def test_new_caller_joins_no_cancelled_work():
    flights, work = SingleFlight(), Work("old", "new")
    (one,) = start(flights, work, 1)
    await settle()
    one.cancel()
    (other,) = start(flights, work, 1)
    await settle()
    work.release.set()
    assert await other == ("new", True)


async def test_transient_failure_is_retried_once():
    flights, work = SingleFlight(), Work(OverloadedError("busy"), "answer")
    work.release.set()
    leader, *others = await asyncio.gather(*start(flights, work, 4), return_exceptions=True)
    assert isinstance(leader, OverloadedError)
    assert [value for value, _ in others] == ["answer"] * 3
    assert [led for _, led in others].count(True) == 1
    assert work.runs == 2


async def test_second_failure_fails_all():
    flights, work = SingleFlight(), Work(*[OverloadedError("busy") for _ in range(50)])
    work.release.set()
    outcomes = await asyncio.gather(*start(flights, work, 50), return_exceptions=True)
    assert all(isinstance(one, OverloadedError) for one in outcomes)
    assert work.runs == 2


@pytest.mark.parametrize(("keys", "runs"), [("aaaa", 1), ("aabb", 2), (None, 4)])
async def test_an_exhausted_budget_is_tried_once(keys, runs):
    flights, work = SingleFlight(), Work(*[BudgetExceededError("spent") for _ in range(4)])
    work.release.set()
    asked = [flights.run("key", work, budget_key=key) for key in keys or [None] * 4]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(one) for one in outcomes} == {BudgetExceededError}
    assert work.runs == runs


async def test_final_failure_counts_once():
    error = AuthenticationError("no")
    error.attempts = 1
    flights, work = SingleFlight(), Work(error)
    work.release.set()
    outcomes = await asyncio.gather(*start(flights, work, 5), return_exceptions=True)
    assert work.runs == 1
    assert sorted(one.attempts for one in outcomes) == [0, 0, 0, 0, 1]


async def test_work_that_cancels_itself_is_started_again():
    flights, work = SingleFlight(), Work(asyncio.CancelledError(), "answer")
    work.release.set()
    leader, *others = await asyncio.gather(*start(flights, work, 3), return_exceptions=True)
    assert isinstance(leader, asyncio.CancelledError)
    assert [value for value, _ in others] == ["answer"] * 2


async def test_error_of_leaders_callback_is_its_own():
    flights, cost = SingleFlight(), CallCost()
    work = Paid(CallbackError(ValueError("a callback's")), "answer")
    leader = start(flights, work, 1, call_cost=cost)[0]
    others = start(flights, work, 3)
    await settle()
    work.release.set()
    outcomes = await asyncio.gather(leader, *others, return_exceptions=True)
    assert [type(one) for one in outcomes] == [CallbackError, tuple, tuple, tuple]
    assert (work.runs, cost.usd) == (2, pytest.approx(0.01))


class Paid(Work):
    """Work that costs a cent at its beginning and a dollar at its end."""

    async def __call__(self, left, cost):
        self.attempt(cost, 0.01)
        try:
            return await super().__call__(left, cost)
        except OverloadedError as error:
            self.attempt(cost, 1.0)
            cost.copy_to(error)
            raise
        except asyncio.CancelledError:
            self.attempt(cost, 1.0)
            raise

    def attempt(self, cost, usd):
        self.ended = usd == 1.0
        cost.timeline += (Attempt(0.0, 1.0, 1, "OverloadedError"),)
        cost.add_failed_cost(usd)


class TestCostWhenTheLeaderLeaves:
    """A leader who is cancelled pays what was spent by then, and one of those who wait pays the rest."""

    def begin(self, callers, *outcomes, **options):
        self.costs = [CallCost() for _ in range(callers)]
        self.work, self.flights = Paid(*outcomes), SingleFlight()
        return [
            asyncio.ensure_future(self.flights.run("key", self.work, call_cost=call_cost, **options))
            for call_cost in self.costs
        ]

    async def without_leader(self, callers, *outcomes, **options):
        first, *others = self.begin(callers, *outcomes, **options)
        await settle()
        first.cancel()
        await settle()
        assert self.costs[0].usd == pytest.approx(0.01)
        return others

    async def test_one_pays_if_it_fails(self):
        outcomes = [OverloadedError("busy") for _ in range(2)]
        others = await self.without_leader(4, *outcomes)
        self.work.release.set()
        errors = await asyncio.gather(*others, return_exceptions=True)
        assert {type(one) for one in errors} == {OverloadedError}
        # One pays the rest of the first run, and all of the second.
        assert sorted(one.cost or 0.0 for one in errors) == [0.0, 0.0, pytest.approx(2.01)]
        assert sorted(one.attempts for one in errors) == [0, 0, 3]
        assert sorted(len(one.timeline) for one in errors) == [0, 0, 3]

    async def test_one_pays_if_a_retry_succeeds(self):
        reply = Reply("x", "m", Usage(1, 1), "end_turn", attempts=1, cost=0.25)
        others = await self.without_leader(3, OverloadedError("busy"), reply)
        self.work.release.set()
        await asyncio.gather(*others)
        replies = [call_cost.added_to(reply) for call_cost in self.costs[1:]]
        assert sorted(one.wasted_cost for one in replies) == [0.0, pytest.approx(1.0)]
        assert sorted(one.attempts for one in replies) == [1, 2]

    async def test_last_to_be_cancelled_pays(self):
        one, other = await self.without_leader(3, "never")
        one.cancel()
        await settle()
        other.cancel()
        await settle()
        assert [call_cost.usd for call_cost in self.costs[1:]] == [None, pytest.approx(1.0)]
        assert self.work.cancelled == 1

    async def test_last_to_time_out_pays(self):
        (other,) = await self.without_leader(2, "never", deadline_seconds=0.05)
        with pytest.raises(DeadlineExceededError, match=r"deadline of 0\.0\d* s") as caught:
            await other
        assert (caught.value.cost, caught.value.attempts) == (pytest.approx(1.0), 1)
        assert self.work.runs == 1

    async def test_a_retry_with_another_budget_pays_for_itself(self):
        (other,) = await self.without_leader(2, BudgetExceededError("the starter's"), "answer")
        self.work.release.set()
        assert await other == ("answer", True)
        assert self.costs[1].is_empty

    async def test_another_pays_if_the_leader_leaves_at_its_end(self):
        first, other = self.begin(2, OverloadedError("busy"), "answer")
        await settle()
        self.work.release.set()
        while not self.work.ended:
            await asyncio.sleep(0)
        # It has ended, and none of those who wait for it has had its turn.
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await other == ("answer", True)
        assert [call_cost.usd for call_cost in self.costs] == [None, pytest.approx(1.01)]


async def test_abandoned_work_ends_with_scope():
    class Slow(Work):
        async def __call__(self, left, cost):
            try:
                return await super().__call__(left, cost)
            finally:
                await asyncio.sleep(0.05)
                self.over = True

    work = Slow("never")
    with anyio.move_on_after(0.01):
        await SingleFlight().run("key", work)
    assert work.over


async def test_second_cancellation_keeps_cost():
    call_cost = CallCost()

    async def work(left, cost):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cost.add_failed_cost(1.0)

    (one,) = start(SingleFlight(), work, 1, call_cost=call_cost)
    for _ in range(2):
        await settle()
        one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert call_cost.usd == 1.0


async def test_callers_keep_their_deadlines():
    flights, work = SingleFlight(), Work("answer")
    (patient,) = start(flights, work, 1)
    await settle()
    with pytest.raises(DeadlineExceededError):
        await flights.run("key", work, deadline_seconds=0.01)
    work.release.set()
    assert await patient == ("answer", True)
    assert work.left == [None]


async def test_retry_has_rest_of_deadline():
    flights, work = SingleFlight(), Work(DeadlineExceededError("the leader's"), "answer")
    leader = start(flights, work, 1)[0]
    await settle()
    (follower,) = start(flights, work, 1, deadline_seconds=60.0)
    await settle()
    work.release.set()
    assert await follower == ("answer", True)
    assert work.left[0] is None
    assert 0 < work.left[1] < 60
    with pytest.raises(DeadlineExceededError):
        await leader


async def test_close_ends_the_work():
    flights, work, cost = SingleFlight(), Work("never"), CallCost()
    (caller,) = start(flights, work, 1, call_cost=cost)
    await settle()
    await flights.close()
    assert work.cancelled == 1
    with pytest.raises(ClosedError):
        await caller


def test_serves_two_event_loops():
    flights = SingleFlight()

    async def once():
        work = Work("answer")
        work.release.set()
        return await flights.run("key", work)

    assert asyncio.run(once()) == asyncio.run(once()) == ("answer", True)
