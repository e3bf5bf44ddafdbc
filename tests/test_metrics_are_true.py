"""The ledger's metrics against the fault server's request log and known prices."""

import asyncio
import json
import time

import pytest
from fleet import fleet, write_project
from ledgers import written

from claude_force import AgentOrchestrator
from claude_force.limits.prices import cost
from claude_force.testing import faults
from claude_force.types import Clock, Usage

# USD per million tokens: fresh, answer, written to the prompt cache, read from it.
PRICES = {"claude-sonnet-5-5": (2.0, 10.0, 2.5, 0.1), "claude-haiku-5-5": (0.1, 0.5, 0.125, 0.01)}
ANSWER_TOKENS = 40
SERVER = {"output_tokens": ANSWER_TOKENS}

pytestmark = pytest.mark.skipif(
    any(cost(model, Usage(1, 1)) is None for model in PRICES), reason="an older price list, or none"
)


@pytest.fixture
def project(tmp_path):
    """One agent's system prompt is long enough for the prompt cache."""
    config = write_project(tmp_path)
    (tmp_path / ".claude" / "python.md").write_text("You explain Python.\n" * 300, encoding="utf-8")
    return config


class Record:
    """Usage and cost of one answer of the fault server, from the request that it received."""

    def __init__(self, received, known):
        body = received.body
        system = [block["text"] for block in body["system"]]
        task = body["messages"][0]["content"]
        size = sum(map(len, system)) + sum(
            len(one if isinstance(one, str) else one["text"]) for one in [task]
        )
        prefix = sum(map(len, system)) // 4
        self.model, self.prompt = body["model"], size // 4
        key = (self.model, *system)
        self.read = prefix if key in known else 0
        self.written = prefix if prefix >= 1024 and not self.read else 0
        if prefix >= 1024:
            known.add(key)

    def usd(self, answer_tokens=ANSWER_TOKENS):
        fresh, answer, write, read = PRICES[self.model]
        plain = self.prompt - self.read - self.written
        return (plain * fresh + answer_tokens * answer + self.written * write + self.read * read) / 1e6

    def saved_by_prompt_cache(self):
        fresh, _, write, read = PRICES[self.model]
        return (self.read * (fresh - read) - self.written * (write - fresh)) / 1e6


def records(server, began):
    """Records of the requests whose answer began, as `began` says for each."""
    known = set()
    assert len(server.requests) == len(began)
    return [Record(received, known) for received, one in zip(server.requests, began) if one]


def to_the_cent(metrics, usd):
    """Compares to 1e-9 USD."""
    return metrics == pytest.approx(usd, abs=1e-9)


async def test_tokens_and_cost_match_requests(project):
    plan = [None, None, faults.status(529), None, None, None]
    async with fleet(project, {**SERVER, "faults": plan}) as (orchestrator, server):
        run = orchestrator.execute_agent
        await run("python-expert", "first")
        await run("python-expert", "first")
        await asyncio.gather(*(run("python-expert", "together") for _ in range(5)))
        await run("python-expert", "overloaded at first")
        await orchestrator.execute_workflow("review", "all of it")
        metrics = orchestrator.get_performance_summary()
    first, together, retried, expert, reviewer = paid = records(server, [True, True, False, True, True, True])

    assert (metrics["executions"], metrics["errors"], metrics["skipped_lines"]) == (10, 0, 0)
    assert (metrics["cached"], metrics["shared"]) == (1, 4)
    assert (metrics["attempts"], metrics["retries"]) == (6, 1)
    assert metrics["tokens"] == {
        "input": sum(one.prompt for one in paid),
        "output": 5 * ANSWER_TOKENS,
        "cache_read": sum(one.read for one in paid),
        "cache_write": first.written,
        "total": sum(one.prompt for one in paid) + 5 * ANSWER_TOKENS,
    }
    assert first.written > 1024 and all(one.read == first.written for one in (together, retried, expert))
    assert to_the_cent(metrics["cost_usd"], sum(one.usd() for one in paid))
    assert to_the_cent(metrics["saved_usd"], first.usd() + 4 * together.usd())
    assert to_the_cent(metrics["prompt_cache_saving_usd"], sum(one.saved_by_prompt_cache() for one in paid))
    assert (metrics["unknown_price"], metrics["unknown_saving"]) == (0, 0)
    by_agent = metrics["by_agent"]
    assert to_the_cent(by_agent["code-reviewer"]["cost_usd"], reviewer.usd())
    assert list(metrics["by_model"]) == ["claude-haiku-5-5", "claude-sonnet-5-5"]
    assert to_the_cent(metrics["by_workflow"]["review"]["cost_usd"], expert.usd() + reviewer.usd())
    assert metrics["by_workflow"]["review"]["executions"] == 2


async def test_broken_stream_is_paid(project):
    plan = [faults.truncated_stream(after_events=3), None, faults.status(400)]
    async with fleet(project, {**SERVER, "faults": plan}) as (orchestrator, server):
        broken = await orchestrator.execute_agent("python-expert", "breaks at first")
        refused = await orchestrator.execute_agent("python-expert", "refused")
        metrics = orchestrator.get_performance_summary()
        money = orchestrator.get_cost_breakdown()
    lost, whole = records(server, [True, True, False])
    assert (broken.success, refused.success) == (True, False)
    # The broken stream ended after its first events, which count one token.
    assert to_the_cent(metrics["cost_usd"], lost.usd(answer_tokens=1) + whole.usd())
    assert metrics["tokens"]["total"] == whole.prompt + ANSWER_TOKENS
    assert metrics["errors_by_type"] == {"RequestRefusedError": 1}
    assert (metrics["error_rate"], metrics["unknown_price"]) == (0.5, 0)
    assert to_the_cent(money["total"]["cost_usd"], metrics["cost_usd"])
    assert [line["attempts"] for line in written(project.parent / "metrics")] == [2, 1]


async def test_two_spellings_are_one_agent(project):
    (project.parent / "agents" / "mine.md").write_text(
        "---\nname: My Agent\n---\nYou help.\n", encoding="utf-8"
    )
    async with fleet(project, SERVER) as (orchestrator, _):
        for name in ("My Agent", "my-agent"):
            assert (await orchestrator.execute_agent(name, "x", cache="off")).success
        assert list(orchestrator.get_agent_performance()) == ["my-agent"]
        assert orchestrator.get_agent_performance("My Agent")["executions"] == 2
        assert orchestrator.get_agent_performance("gone")["executions"] == 0


async def test_silence_counts_as_timeout(project):
    plan = [faults.silence_before_first_byte()] * 2
    limits = {"timeout_seconds": 0.2, "max_retries": 2, "deadline_seconds": 20, "clock": Clock()}
    async with fleet(project, {**SERVER, "faults": plan}, **limits) as (orchestrator, server):
        result = await orchestrator.execute_agent("python-expert", "silent")
        metrics = orchestrator.get_agent_performance("python-expert")
    assert not result.success and len(server.requests) == 2
    assert (metrics["timeouts"], metrics["timeout_rate"]) == (1, 1.0)
    assert metrics["errors_by_type"] == {"SilenceError": 1}
    assert metrics["service_ms"]["max"] >= 2 * 200


async def test_latency_is_within_bounds(project):
    pace, calls = 0.05, 6
    limits = {"clock": Clock(), "max_concurrent": 2}
    async with fleet(project, {**SERVER, "time_to_first_token": pace}, **limits) as (orchestrator, _):
        before = time.perf_counter()
        tasks = [("python-expert", f"task {number}") for number in range(calls)]
        results = await orchestrator.execute_multiple(tasks, cache="off", first_of_many=False)
        outside = 1000 * (time.perf_counter() - before)
        metrics = orchestrator.get_performance_summary()
    wall, service, wait = metrics["wall_ms"], metrics["service_ms"], metrics["wait_ms"]
    assert wall["max"] == pytest.approx(1000 * max(result.duration for result in results), abs=0.001)
    assert 1000 * pace <= service["p50"] <= wall["max"] <= outside
    assert wall["mean"] == pytest.approx(service["mean"] + wait["mean"], abs=0.01)
    # Two at a time: the last call waits while two pairs are on the wire.
    assert wait["max"] >= 2 * 1000 * pace
    assert 0.5 < metrics["time_at_concurrency_limit"] <= 1.0
    assert 3 * pace <= calls / metrics["executions_per_second"] <= 1.1 * outside / 1000


async def test_unknown_price_is_not_added(project):
    async with fleet(project, SERVER) as (orchestrator, _):
        for task in ("a", "b", "a"):
            await orchestrator.execute_agent("python-expert", task, model="my-own-model")
        metrics = orchestrator.get_performance_summary()
    assert (metrics["cost_usd"], metrics["unknown_price"]) == (0.0, 2)
    assert (metrics["saved_usd"], metrics["unknown_saving"]) == (0.0, 1)


def test_second_process_sees_the_same(project, messages_server):
    with AgentOrchestrator(str(project)) as orchestrator:
        for task in ("a", "b", "a"):
            assert orchestrator.run_agent("python-expert", task).success
        metrics = orchestrator.get_performance_summary()
        orchestrator.export_performance_metrics(project.parent / "out.json")
    assert (metrics["executions"], metrics["cached"]) == (3, 1)
    exported = json.loads((project.parent / "out.json").read_text(encoding="utf-8"))
    assert sum(one["total_tokens"] for one in exported) == metrics["tokens"]["total"]


async def test_tracking_off_writes_nothing(project):
    async with fleet(project, SERVER, enable_tracking=False) as (orchestrator, _):
        await orchestrator.execute_agent("python-expert", "x")
    assert not (project.parent / "metrics").exists()
