"""Estimates of tokens and cost before anything is sent, with ranges that hold."""

import json

import pytest
from fleet import fleet, write_project

from claude_force.conversation import Conversation
from claude_force.engine.estimate import Estimator
from claude_force.limits.prices import NO_OPTIONS, price_lookup
from claude_force.limits.token_estimator import TokenEstimator
from claude_force.types import Call

MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": 3.0, "output": 15.0}}
ROWS = [("python-expert", f"Explain the number {number}, in words of one syllable.") for number in range(50)]


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


async def test_range_holds_spent_cost(project):
    async with fleet(project, {"output_tokens": 120}, prices=PRICES) as (orchestrator, server):
        before = await orchestrator.estimate(ROWS, model=MODEL, max_tokens=1000)
        assert not server.requests
        results = await orchestrator.execute_multiple(ROWS, model=MODEL, max_tokens=1000)
        for used, judged in (
            (sum(result.usage.prompt_tokens for result in results), before.input_tokens),
            (sum(result.usage.output_tokens for result in results), before.output_tokens),
            (sum(result.cost for result in results), before.cost),
        ):
            assert judged.low <= used <= judged.high
            assert judged.low <= judged.expected <= judged.high


async def test_repeated_row_costs_nothing(project):
    async with fleet(project, {"output_tokens": 120}, prices=PRICES) as (orchestrator, server):
        judged = await orchestrator.estimate(ROWS[:1] * 50, model=MODEL, max_tokens=1000)
        results = await orchestrator.execute_multiple(ROWS[:1] * 50, model=MODEL, max_tokens=1000)
        assert len(server.requests) == 1
        assert (judged.rows, judged.cached) == (50, 49)
        assert judged.cost.low <= sum(result.cost for result in results) <= judged.cost.high
        anew = await orchestrator.estimate(ROWS[:1] * 50, model=MODEL, max_tokens=1000, cache="off")
        assert anew.cached == 0


async def test_learns_from_answers(project):
    async with fleet(project, {"output_tokens": 120}, prices=PRICES) as (orchestrator, _):
        await orchestrator.execute_multiple(ROWS[:10], model=MODEL, cache="off")
        judged = await orchestrator.estimate(ROWS, model=MODEL, cache="off")
        results = await orchestrator.execute_multiple(ROWS, model=MODEL, cache="off")
        used = sum(result.usage.prompt_tokens for result in results)
        assert judged.input_tokens.expected == pytest.approx(used, rel=0.1)
        assert judged.output_tokens.expected == pytest.approx(120 * 50)
        assert judged.cost.expected == pytest.approx(sum(result.cost for result in results), rel=0.1)


async def test_counts_cached_and_unrunnable_rows(project):
    async with fleet(project, prices=PRICES) as (orchestrator, server):
        await orchestrator.execute_multiple(ROWS[:10], model=MODEL)
        judged = await orchestrator.estimate([*ROWS[:12], ("nobody", "x"), None], model=MODEL)
        assert (judged.rows, judged.cached, judged.unrunnable) == (14, 10, 2)
        anew = await orchestrator.estimate(ROWS[:12], model=MODEL, cache="off")
        assert anew.cached == 0
        assert anew.cost.expected == pytest.approx(6 * judged.cost.expected, rel=0.05)
        assert len(server.requests) == 10


async def test_unknown_price_is_reported(project):
    async with fleet(project) as (orchestrator, _):
        judged = await orchestrator.estimate(ROWS, model="my-own-model")
        assert judged.cost is None
        assert judged.unpriced == ("my-own-model",)
        assert judged.input_tokens.expected > 0


async def test_shared_prompt_is_read_from_cache(project):
    (project.parent / "python.md").write_text("You explain Python. " * 600, encoding="utf-8")
    async with fleet(project, prices=PRICES, clock=None) as (orchestrator, _):
        judged = await orchestrator.estimate(ROWS, model=MODEL, max_tokens=100)
        results = await orchestrator.execute_multiple(ROWS, model=MODEL, max_tokens=100)
        spent = sum(result.cost for result in results)
        assert judged.cost.low <= spent <= judged.cost.high
        assert judged.cost.expected < judged.cost.high / 4


async def test_takes_async_iterable(project):
    async def tasks():
        for row in ROWS:
            yield row

    async with fleet(project, prices=PRICES) as (orchestrator, _):
        assert (await orchestrator.estimate(tasks(), model=MODEL)).rows == 50


async def test_shared_tools_are_read_from_cache():
    conversations = [Conversation.start("[" + " " * 20_000 + "]", [f"Task {number}"]) for number in range(2)]
    calls = [Call("a", ("s",), "x", MODEL, 100, conversation=one) for one in conversations]
    price, usages = price_lookup(PRICES, lambda *_: None), []

    def noted(model, usage, options=NO_OPTIONS, answered=""):
        usages.append(usage)
        return price(model, usage, options)

    async def rows():
        for call in calls:
            yield call

    async def is_cached(_):
        return False

    judged = await Estimator(TokenEstimator(), noted).estimate(rows(), lambda call: call, is_cached)
    assert judged.input_tokens.expected == pytest.approx(2 * 20_000 / 3.5, rel=0.02)
    first, second = usages[1], usages[4]
    assert first.cache_read_input_tokens == 0
    assert second.cache_read_input_tokens == pytest.approx(20_000 / 3.5, rel=0.01)
    assert second.input_tokens < 50


async def test_searches_of_a_conversation_are_estimated():
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]
    conversation = Conversation.start(json.dumps(tools), ["x"])
    call = Call("a", (), "x", MODEL, 100, conversation=conversation)

    async def rows():
        yield call

    async def is_cached(_):
        return False

    price = price_lookup(PRICES, lambda *_: None)
    judged = await Estimator(TokenEstimator(), price).estimate(rows(), lambda call: call, is_cached)
    assert judged.cost.high > 0.05 > judged.cost.expected
