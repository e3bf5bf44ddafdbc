"""Of rows that share a system prompt, one is sent first, and the rest read the prompt cache."""

import asyncio

import pytest
from fleet import FakeClock, fleet, settled, write_project

from claude_force.conversation import Conversation
from claude_force.errors import InvalidOptionError
from claude_force.limits.call_context import CallContext
from claude_force.limits.prompt_cache_primer import PromptCachePrimer
from claude_force.testing import faults
from claude_force.transport.transport import AttemptRecord
from claude_force.types import Call, Usage

MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": 1.0, "output": 5.0}}
ROWS = [("python-expert", f"Task {number}") for number in range(200)]


@pytest.fixture
def project(tmp_path):
    """Its first agent has a system prompt of 3,000 tokens."""
    config = write_project(tmp_path)
    (config.parent / "python.md").write_text("You explain Python. " * 600, encoding="utf-8")
    return config


def billed(results):
    """Input tokens at the price of a fresh one: a write costs 1.25, for an hour 2, a read 0.1."""
    total = 0.0
    for result in results:
        usage = result.usage
        hour = usage.cache_creation_1h_input_tokens
        total += usage.input_tokens + 0.1 * usage.cache_read_input_tokens
        total += 1.25 * (usage.cache_creation_input_tokens - hour) + 2 * hour
    return total


async def run(project, rows=ROWS, server=None, **options):
    plan = {"time_to_first_token": 0.05, **(server or {})}
    async with fleet(project, plan, max_concurrent=200, prices=PRICES, clock=None) as (orchestrator, running):
        results = [one async for one in orchestrator.stream_multiple(rows, model=MODEL, **options)]
    assert all(result.success for result in results)
    return results, running


async def test_one_request_writes_cache_for_200(project):
    # So long that all 200 are sent before the first answer begins, as it is with a model.
    slow = {"time_to_first_token": 1.0}
    with_it, _ = await run(project, server=slow, cache="off")
    without, _ = await run(project, server=slow, cache="off", first_of_many=False)
    assert sum(result.usage.cache_creation_input_tokens > 0 for result in with_it) == 1
    assert billed(with_it) <= 0.35 * billed(without)


async def test_reports_prompt_cache_saving(project):
    events = []
    results, _ = await run(project, rows=ROWS[:3], cache="off", on_event=events.append)
    (first,) = [one for one in results if one.usage.cache_creation_input_tokens]
    written = first.usage.cache_creation_input_tokens
    assert first.prompt_cache_saving == pytest.approx(-0.25 * written / 1e6)
    others = [one.prompt_cache_saving for one in results if one is not first]
    assert others == [pytest.approx(0.9 * written / 1e6)] * 2
    assert events[-1].progress.prompt_cache_saving == pytest.approx(1.55 * written / 1e6)


async def test_one_hour_cache(project):
    results, server = await run(project, rows=ROWS[:2], cache="off", cache_ttl="1h")
    assert server.requests[0].body["system"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    (first,) = [one for one in results if one.usage.cache_creation_input_tokens]
    usage = first.usage
    assert first.cost == pytest.approx(
        (usage.input_tokens + 2 * usage.cache_creation_1h_input_tokens + 5 * usage.output_tokens) / 1e6
    )


async def test_refuses_unknown_cache_ttl(project):
    async with fleet(project) as (orchestrator, _):
        with pytest.raises(InvalidOptionError, match="1h"):
            await orchestrator.execute_agent("python-expert", "x", cache_ttl="1 day")


async def test_failed_first_is_replaced(project):
    results, server = await run(project, rows=ROWS[:20], server={"faults": [faults.status(500)]}, cache="off")
    assert sum(result.usage.cache_creation_input_tokens > 0 for result in results) == 1
    assert len(server.requests) == 21


async def test_short_prompt_is_not_primed(project):
    rows = [("code-reviewer", f"Task {number}") for number in range(20)]
    _, server = await run(project, rows=rows, server={"time_to_first_token": 1.0}, cache="off")
    assert server.max_in_flight == 20


class TestPrimer:
    call = Call("a", ("s" * 2000,), "x", MODEL, 100)

    async def turn(self, primer, order, name, usage, begin=None):
        record = AttemptRecord()
        async with primer.turn(self.call, CallContext(first_of_many=True), record):
            order.append(name)
            if begin is not None:
                await begin.wait()
                record.on_begin()
            await asyncio.sleep(0)
            record.usage = usage

    async def test_others_start_when_first_answer_begins(self):
        primer, order, begin = PromptCachePrimer(FakeClock()), [], asyncio.Event()
        usage = Usage(10, 10, 500)
        first = asyncio.ensure_future(self.turn(primer, order, "first", usage, begin))
        await asyncio.sleep(0)
        rest = [asyncio.ensure_future(self.turn(primer, order, "other", usage)) for _ in range(3)]
        await settled()
        assert order == ["first"]
        begin.set()
        await asyncio.gather(first, *rest)
        assert order == ["first", "other", "other", "other"]

    async def test_expired_entry_is_primed_again(self):
        clock, order = FakeClock(), []
        primer = PromptCachePrimer(clock)
        await self.turn(primer, order, "first", Usage(10, 10, 500))
        clock.time += 299
        await asyncio.gather(*(self.turn(primer, order, "warm", Usage(10, 10, 0, 500)) for _ in range(2)))
        clock.time += 301
        begin = asyncio.Event()
        jobs = [asyncio.ensure_future(self.turn(primer, order, "again", Usage(1), begin)) for _ in range(2)]
        await settled()
        assert order.count("again") == 1
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def test_no_prompt_cache_is_waited_for_once(self):
        clock, order = FakeClock(), []
        primer = PromptCachePrimer(clock)
        await self.turn(primer, order, "first", Usage(500, 10))
        clock.time += 1e6
        begin = asyncio.Event()
        jobs = [asyncio.ensure_future(self.turn(primer, order, "next", Usage(1), begin)) for _ in range(3)]
        await settled()
        assert order.count("next") == 3
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def test_cancelled_first_is_replaced(self):
        primer, order, never = PromptCachePrimer(FakeClock()), [], asyncio.Event()
        first = asyncio.ensure_future(self.turn(primer, order, "first", Usage(1), never))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(self.turn(primer, order, "second", Usage(10, 10, 500)))
        await settled()
        first.cancel()
        await second
        assert order == ["first", "second"]

    async def test_tools_are_part_of_the_prompt(self):
        primer, order, never = PromptCachePrimer(FakeClock()), [], asyncio.Event()
        tools = ["[" + letter * 2000 + "]" for letter in "ab"]
        jobs = []
        for text in (tools[0], tools[0], tools[1], "[]"):
            self.call = Call("a", ("s",), "x", MODEL, 100, conversation=Conversation.start(text, ["x"]))
            jobs.append(asyncio.ensure_future(self.turn(primer, order, text[1], Usage(1), never)))
            await settled()
        assert order == ["a", "b", "]"]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
