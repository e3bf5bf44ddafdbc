"""The budget: a hard cap, whatever runs at the same time and however it ends."""

import asyncio

import pytest
from fleet import FakeClock, fleet, write_project
from hypothesis import given
from hypothesis import strategies as st

from claude_force.calling.budget import Budget, price_by, worst_cost
from claude_force.errors import BudgetExceededError, InvalidOptionError, UnknownPriceError
from claude_force.testing import faults
from claude_force.types import Call, Usage

MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": 3.0, "output": 15.0}}


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


class TestBudget:
    @given(st.integers(1, 10**6), st.lists(st.tuples(st.integers(0, 10**5), st.floats(0, 1)), max_size=50))
    def test_what_is_spent_and_reserved_is_never_above_the_limit(self, limit, calls):
        budget, held = Budget(limit / 1e6), []
        for worst, share in calls:
            try:
                if budget.reserve(worst / 1e6):
                    held.append((worst / 1e6, share))
                else:
                    given_back, used = held.pop(0)
                    budget.settle(given_back, given_back * used)
            except BudgetExceededError:
                assert budget.spent + worst / 1e6 > budget.usd - 1e-9
            assert budget.spent + budget.reserved <= budget.usd + 1e-12

    def test_what_is_not_needed_comes_back(self):
        budget = Budget(1.0)
        assert budget.reserve(0.8)
        assert not budget.reserve(0.8)
        budget.settle(0.8, 0.1)
        assert budget.reserve(0.8)
        assert budget.spent == pytest.approx(0.1)

    def test_what_can_never_fit_says_so(self):
        budget = Budget(1.0)
        with pytest.raises(BudgetExceededError, match=r"budget of \$1"):
            budget.reserve(1.1)

    @pytest.mark.parametrize("usd", [0, -1, float("nan"), float("inf")])
    def test_an_amount_that_makes_no_sense_is_refused(self, usd):
        with pytest.raises(InvalidOptionError):
            Budget(usd)

    @given(st.text(max_size=200), st.text(max_size=200), st.integers(1, 5000))
    def test_the_worst_is_above_anything_that_can_be_billed(self, system, task, max_tokens):
        price = price_by(PRICES, lambda *_: None)
        call = Call("a", (system,), task, MODEL, max_tokens)
        size = len((system + task).encode("utf-8", "surrogatepass"))
        for usage in (
            Usage(input_tokens=size, output_tokens=max_tokens),
            Usage(cache_creation_input_tokens=size, output_tokens=max_tokens),
        ):
            assert worst_cost(call, price) >= price(MODEL, usage)

    def test_prices_of_the_callers_own(self):
        price = price_by({"m": {"input": 1.0, "output": 2.0, "cache_read": 0.5}}, lambda *_: 7.0)
        assert price("m", Usage(1_000_000, 1_000_000, 1_000_000, 1_000_000)) == 1 + 2 + 1.25 + 0.5
        assert price("other", Usage()) == 7.0
        with pytest.raises(InvalidOptionError, match="input and output"):
            price_by({"m": {"input": 1.0}}, lambda *_: None)


class TestFleet:
    async def test_200_calls_at_once_never_spend_more_than_the_budget(self, project):
        tasks = [("python-expert", f"Task {number}") for number in range(200)]
        async with fleet(
            project, {"output_tokens": 200}, budget_usd=0.5, prices=PRICES, max_concurrent=200
        ) as (orchestrator, server):
            results = await orchestrator.execute_multiple(tasks, model=MODEL, max_tokens=1000)
            paid = [result for result in results if result.success]
            refused = [result for result in results if not result.success]
            assert paid
            assert all(isinstance(result.error, BudgetExceededError) for result in refused)
            assert len(server.requests) == len(paid)
            assert sum(result.cost for result in paid) == pytest.approx(orchestrator.spent_usd, abs=1e-6)
            assert orchestrator.spent_usd <= 0.5
            # What is left is less than the worst of one more call.
            assert bool(refused) == (orchestrator.spent_usd > 0.5 - 0.03)

    async def test_a_bulk_call_has_a_budget_of_its_own(self, project):
        tasks = [("python-expert", f"Task {number}") for number in range(20)]
        async with fleet(project, prices=PRICES) as (orchestrator, server):
            results = await orchestrator.execute_multiple(
                tasks, model=MODEL, max_tokens=1000, budget_usd=0.02
            )
            spent = sum(result.cost for result in results if result.success)
            assert 0 < spent <= 0.02
            assert 0 < len(server.requests) < 20
            assert (await orchestrator.execute_agent("python-expert", "Another", model=MODEL)).success

    async def test_a_kept_answer_needs_no_budget(self, project):
        async with fleet(project, prices=PRICES) as (orchestrator, _):
            await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            orchestrator.budget_usd = 0.000001
            assert (await orchestrator.execute_agent("python-expert", "x", model=MODEL)).cached
            refused = await orchestrator.execute_agent("python-expert", "y", model=MODEL)
            assert isinstance(refused.error, BudgetExceededError)
            assert refused.attempts <= 1

    async def test_an_attempt_that_failed_before_an_answer_costs_nothing(self, project):
        async with fleet(project, {"faults": [faults.status(529)]}, budget_usd=1.0, prices=PRICES) as (
            orchestrator,
            server,
        ):
            result = await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            assert len(server.requests) == 2
            assert orchestrator.spent_usd == pytest.approx(result.cost, abs=1e-6)

    async def test_an_attempt_that_broke_off_in_its_answer_is_counted(self, project):
        async with fleet(project, {"faults": [faults.truncated_stream()]}, budget_usd=1.0, prices=PRICES) as (
            orchestrator,
            server,
        ):
            result = await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            assert len(server.requests) == 2
            usage = result.usage
            answer = (usage.input_tokens * 3 + usage.output_tokens * 15) / 1e6
            assert result.cost > answer
            assert result.cost == pytest.approx(orchestrator.spent_usd)

    async def test_a_cancelled_call_gives_back_what_it_held(self, project):
        async with fleet(
            project, {"faults": [faults.silence_before_first_byte()]}, budget_usd=0.1, prices=PRICES
        ) as (orchestrator, server):
            call = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "x", model=MODEL))
            while not server.in_flight:
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert orchestrator._budget.reserved == 0

    async def test_an_unknown_price_is_an_error_before_anything_is_sent(self, project):
        async with fleet(project, budget_usd=1.0) as (orchestrator, server):
            with pytest.raises(UnknownPriceError, match="prices="):
                await orchestrator.execute_agent("python-expert", "x", model="my-own-model")
            orchestrator.prices = {"my-own-model": {"input": 0.0, "output": 0.0}}
            assert (await orchestrator.execute_agent("python-expert", "x", model="my-own-model")).cost == 0.0
            assert len(server.requests) == 1

    async def test_a_call_waits_for_what_others_may_give_back(self, project):
        # Each may cost up to 0.016 USD, so that two of them never fit at the same time.
        async with fleet(project, budget_usd=0.02, prices=PRICES, clock=FakeClock()) as (
            orchestrator,
            server,
        ):
            tasks = [("python-expert", f"Task {number}") for number in range(3)]
            results = await orchestrator.execute_multiple(tasks, model=MODEL, max_tokens=1000)
            assert results[0].success
            assert server.max_in_flight == 1
