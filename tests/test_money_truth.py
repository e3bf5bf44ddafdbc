"""Costs in results, ledger and budget equal what the server billed, or are unknown, and never less."""

import asyncio
import json
import os
import random
import sys

import pytest
from billing import INPUT, MODEL, OUTPUT, PRICES, Answer, Steps, billing
from extras import missing, require_prices
from fleet import FakeClock, write_project
from ledgers import written

from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.bulk import Queued, Retried, Started
from claude_force.costs import cost_or_bound
from claude_force.errors import (
    CallError,
    EmptyAnswerError,
    InputError,
    OverloadedError,
    RefusedError,
    UnknownPriceError,
)
from claude_force.testing import MessagesServer, faults
from claude_force.transport.protocol import AttemptRecord
from claude_force.transport.transport import Transport
from claude_force.types import Call

AGENT = "python-expert"
MOST = 500
WORST_ANSWER = MOST * OUTPUT / 1e6


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


def orchestrator(project, server, **more):
    usual = {"budget_usd": 50.0, "prices": PRICES, "enable_cache": False, "clock": FakeClock()}
    return AsyncAgentOrchestrator(project, "test-key", base_url=server.url, **{**usual, **more})


async def one(project, answers, **more):
    """The result of one call, what was spent, the server, and the ledger's line."""
    plan = iter(answers)
    options = more.pop("options", {})
    async with billing(lambda body: next(plan, Answer())) as server:
        async with orchestrator(project, server, **more) as fleet:
            result = await fleet.execute_agent(AGENT, "x", model=MODEL, max_tokens=MOST, **options)
            spent = fleet.spent_usd
    (line,) = written(project.parent / "metrics")
    return result, spent, server, line


NONSENSE = [
    None,
    {},
    "many",
    [20, 8],
    {"input_tokens": 20},
    {"output_tokens": 8},
    {"input_tokens": None, "output_tokens": 8},
    {"input_tokens": "20", "output_tokens": 8},
    {"input_tokens": 20.5, "output_tokens": 8},
    {"input_tokens": 20, "output_tokens": -1},
    {"input_tokens": 20, "output_tokens": True},
    {"input_tokens": 20, "output_tokens": 10**30},
    {"input_tokens": 20, "output_tokens": {"text": 8}},
    {"input_tokens": 20, "output_tokens": 8, "cache_read_input_tokens": "7"},
    {"input_tokens": 20, "output_tokens": 8, "cache_creation": [1]},
    {"input_tokens": 20, "output_tokens": 8, "server_tool_use": {"code_runs": 3}},
    {"input_tokens": 20, "output_tokens": 8, "service_tier": 7},
]


class TestUnknownUsage:
    @pytest.mark.parametrize("usage", NONSENSE, ids=lambda usage: json.dumps(usage)[:50])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_costs_none_and_holds_the_worst(self, project, usage, stream):
        result, spent, _, line = await one(project, [Answer(usage=usage)], stream=stream)
        assert (result.success, result.output, result.cost) == (True, "The answer.", None)
        assert spent >= WORST_ANSWER
        assert result.cost_at_most == line["cost_at_most"] == pytest.approx(spent)
        assert line["estimated_cost"] is None

    async def test_ends_the_run_within_the_budget(self, project):
        async with billing(lambda body: Answer(usage=None)) as server:
            async with orchestrator(project, server, budget_usd=0.10) as fleet:
                tasks = [(AGENT, str(number)) for number in range(40)]
                results = await fleet.execute_multiple(tasks, model=MODEL, max_tokens=MOST)
                assert 0.08 < fleet.spent_usd <= 0.10
        answered = [result for result in results if result.success]
        assert len(server.requests) == len(answered) < 14
        assert all(result.cost is None for result in answered)

    @pytest.mark.parametrize("final", [{"output_tokens": 8, "input_tokens": 0}, {"output_tokens": 8}])
    async def test_later_usage_never_decreases(self, project, final):
        result, spent, server, _ = await one(project, [Answer(final=final)])
        assert result.cost == pytest.approx(server.billed["x"]) == pytest.approx(spent)

    async def test_a_later_event_adds(self, project):
        final = {"output_tokens": 8, "input_tokens": 90, "cache_read_input_tokens": 1000}
        result, *_ = await one(project, [Answer(final=final)])
        assert (result.usage.prompt_tokens, result.usage.cache_read_input_tokens) == (1090, 1000)

    async def test_missing_output_tokens_is_unknown_cost(self, project):
        result, spent, *_ = await one(project, [Answer(final=None)])
        assert result.cost is None
        assert spent >= WORST_ANSWER

    async def test_costs_nothing_where_nothing_costs(self, project):
        free = {MODEL: {"input": 0, "output": 0}}
        result, spent, *_ = await one(project, [Answer(usage=None)], prices=free)
        assert (result.cost, spent) == (0.0, 0.0)


class TestWhoSetsThePrice:
    @pytest.mark.parametrize("answered", ["", "claude-sonnet-5-5-20261001", "claude-opus-5-5", "nobodys"])
    async def test_own_price_of_what_was_asked(self, project, answered):
        result, spent, server, line = await one(project, [Answer(model=answered)])
        assert result.cost == line["estimated_cost"] == pytest.approx(server.billed["x"])
        assert spent == pytest.approx(result.cost, abs=1e-9)

    @pytest.mark.parametrize("known_by", ["claude-sonnet-5-5-20261001", "sonnet"])
    async def test_custom_price_covers_alias(self, project, known_by):
        prices = {known_by: PRICES[MODEL]}
        result, _, server, _ = await one(
            project, [Answer(model="claude-sonnet-5-5-20261001")], prices=prices, budget_usd=None
        )
        assert result.cost == pytest.approx(server.billed["x"])

    async def test_never_another_models_price(self, project):
        require_prices(MODEL)
        answer = Answer(model="nobodys-model")
        result, spent, _, line = await one(project, [answer], prices=None, budget_usd=1.0)
        assert (result.cost, line["estimated_cost"]) == (None, None)
        assert spent == pytest.approx(result.cost_at_most) and spent > 0

    async def test_a_kept_answer_saves_its_own_price(self, project, clean_environment):
        async with billing(lambda body: Answer(model="claude-sonnet-5-5-20261001")) as server:
            async with orchestrator(
                project, server, enable_cache=True, prices=None, budget_usd=None
            ) as fleet:
                await fleet.execute_agent(AGENT, "x", model=MODEL)
                fleet.prices = PRICES
                kept = await fleet.execute_agent(AGENT, "x", model=MODEL)
        assert kept.cached and kept.saved_cost == pytest.approx(server.billed["x"])


class TestBrokenOff:
    @pytest.mark.parametrize("cut", ["thinking", "start"])
    async def test_hidden_thinking_counts_max_tokens(self, project, cut):
        result, spent, *_ = await one(project, [Answer(cut=cut)], max_retries=1)
        worst = 20 * INPUT / 1e6 + WORST_ANSWER
        assert not result.success
        assert result.cost == pytest.approx(worst) == pytest.approx(spent)

    @pytest.mark.parametrize("lost", ["billed", "free"])
    @pytest.mark.parametrize("stream", [True, False])
    async def test_a_lost_request_counts_at_its_worst(self, project, lost, stream):
        result, spent, server, line = await one(project, [Answer(lost=lost)], stream=stream)
        assert (result.success, result.attempts, result.cost) == (True, 2, None)
        assert spent == pytest.approx(result.cost_at_most) == pytest.approx(line["cost_at_most"])
        assert spent >= WORST_ANSWER + server.billed["x"] / 2

    async def test_a_refused_request_costs_nothing(self, project):
        result, spent, server, _ = await one(project, [Answer(status=529)])
        assert result.attempts == 2
        assert result.cost == pytest.approx(server.billed["x"]) == pytest.approx(spent)


class TestClosedConnection:
    """`close` may close a connection before the attempt that reads from it is cancelled."""

    async def test_counts_the_whole_answer(self, clean_environment):
        begun = asyncio.Event()
        call, record = Call(AGENT, ("Help.",), "x", MODEL, MOST), AttemptRecord(on_text=lambda _: begun.set())
        with MessagesServer(faults=[faults.silence_in_mid_stream(4)]) as server:
            transport = Transport("test-key", server.base_url, 0.5, True, 1)
            attempt = asyncio.ensure_future(transport.attempt(call, record))
            await begun.wait()
            await transport.close()
            with pytest.raises(CallError):
                await attempt
        assert record.usage.output_tokens == MOST

    @pytest.mark.parametrize("headers", [{}, {"date": "today"}])
    async def test_is_in_doubt_after_headers(self, clean_environment, headers):
        transport, record = Transport("k", "http://127.0.0.1", 1.0, False, 1), AttemptRecord(in_doubt=True)
        record.headers = headers
        await transport.close()
        transport.translate(RuntimeError("Connection closed."), record)
        assert record.in_doubt == bool(headers)


class TestRaisingCallback:
    @pytest.mark.parametrize("error", [ValueError, InputError, OverloadedError, OSError])
    @pytest.mark.parametrize("cache", ["use", "off"])
    async def test_ledger_has_what_was_sent(self, project, clean_environment, cache, error):
        def stop(event):
            if isinstance(event, Retried):
                raise error("a callback's")

        seen, plan = [], iter([Answer(cut="text")])
        async with billing(lambda body: next(plan, Answer())) as server:
            async with orchestrator(project, server, enable_cache=True, observers=[seen.append]) as fleet:
                options = {"model": MODEL, "max_tokens": MOST, "cache": cache}
                with pytest.raises(error, match="a callback's"):
                    await fleet.execute_multiple([(AGENT, "x")], on_event=stop, **options)
                spent = fleet.spent_usd
        assert len(server.requests) == 1 and server.billed["x"] > 0
        check_books(server, seen, spent, project.parent / "metrics")

    @pytest.mark.parametrize("error", [ValueError, InputError, OverloadedError, asyncio.CancelledError])
    @pytest.mark.parametrize("kind", [Started, Retried])
    async def test_identical_calls_go_on(self, project, clean_environment, kind, error):
        others, plan = [], iter([Answer(status=529)])
        async with billing(lambda body: next(plan, Answer())) as server:
            async with orchestrator(project, server, enable_cache=True) as fleet:

                def stop(event):
                    if isinstance(event, Queued):
                        others.append(asyncio.ensure_future(fleet.execute_agent(AGENT, "x")))
                    if isinstance(event, kind):
                        raise error("a callback's")

                with pytest.raises(error):
                    await fleet.execute_multiple([(AGENT, "x")], on_event=stop)
                assert (await others[0]).success


SEARCHES = {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]}


class TestFees:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_web_searches_cost_a_cent_each(self, project, stream):
        result, spent, server, line = await one(
            project, [Answer(searches=3)], stream=stream, options=SEARCHES
        )
        assert result.usage.web_search_requests == 3
        assert result.cost == pytest.approx(server.billed["x"]) == pytest.approx(spent)
        assert line["estimated_cost"] > 0.03

    async def test_reserves_search_fees(self, project):
        async with billing(lambda body: Answer(searches=5)) as server:
            async with orchestrator(project, server, budget_usd=0.05) as fleet:
                over = await fleet.execute_agent(AGENT, "x", model=MODEL, max_tokens=MOST, **SEARCHES)
                assert type(over.error).__name__ == "BudgetExceededError"
        assert server.requests == []

    @pytest.mark.parametrize(
        ("tool", "words"),
        [
            ({"type": "web_search_20250305"}, "max_uses"),
            ({"type": "code_execution_20260120"}, "code_execution"),
        ],
    )
    async def test_unbounded_tool_refuses_budget(self, project, tool, words):
        async with billing(lambda body: Answer()) as server:
            async with orchestrator(project, server) as fleet:
                with pytest.raises(UnknownPriceError, match=words):
                    await fleet.execute_agent(AGENT, "x", model=MODEL, tools=[tool])
        assert server.requests == []

    @pytest.mark.parametrize(
        ("more", "factor"),
        [
            ({"service_tier": "standard"}, 1.0),
            ({"inference_geo": "us"}, 1.1),
            ({"service_tier": "batch"}, 0.5),
        ],
    )
    async def test_usage_decides_the_list_price(self, project, more, factor):
        pytest.importorskip("genai_prices", minversion="0.2")
        plain, *_ = await one(project, [Answer()], prices=None)
        (project.parent / "metrics" / "executions.jsonl").unlink()
        result, spent, *_ = await one(project, [Answer(more=more)], prices=None)
        assert result.cost == pytest.approx(plain.cost * factor) == pytest.approx(spent, abs=1e-8)

    @pytest.mark.parametrize(
        "more", [{"service_tier": "priority"}, {"inference_geo": "eu"}, {"speed": "warp"}]
    )
    async def test_unlisted_price_is_unknown(self, project, more):
        pytest.importorskip("genai_prices", minversion="0.2")
        result, spent, *_ = await one(project, [Answer(more=more)], prices=None)
        assert result.cost is None
        assert spent == pytest.approx(result.cost_at_most) and spent > 0.004

    async def test_reserves_price_of_options(self, project):
        pytest.importorskip("genai_prices", minversion="0.2")
        worst = []
        for options in ({}, {"inference_geo": "us"}):
            _, spent, *_ = await one(project, [Answer(usage=None)], prices=None, options=options)
            (project.parent / "metrics" / "executions.jsonl").unlink()
            worst.append(spent)
        assert worst[1] > 1.09 * worst[0]


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("answer", "error", "flags"),
        [
            (Answer(text="", stop_reason="max_tokens"), EmptyAnswerError, {"empty", "truncated"}),
            (Answer(text="", stop_reason="end_turn"), EmptyAnswerError, {"empty"}),
            (Answer(text=" \n", stop_reason="end_turn"), EmptyAnswerError, {"empty"}),
            (Answer(text="", stop_reason="pause_turn"), EmptyAnswerError, {"empty", "truncated"}),
            (Answer(text="", stop_reason="refusal"), RefusedError, {"refused"}),
            (Answer(text="I can't", stop_reason="refusal"), RefusedError, {"refused"}),
        ],
    )
    @pytest.mark.parametrize("stream", [True, False])
    async def test_is_a_failure_that_is_billed_once(self, project, answer, error, flags, stream):
        result, spent, server, line = await one(project, [answer], stream=stream)
        assert (result.success, type(result.error), len(server.requests)) == (False, error, 1)
        reported = result.to_dict()
        assert {name for name in ("truncated", "refused", "empty") if reported[name]} == flags
        assert {name for name in ("truncated", "refused", "empty") if line.get(name)} == flags
        assert flags <= set(result.metadata)
        assert result.cost == pytest.approx(server.billed["x"]) == pytest.approx(spent)
        assert (line["success"], line["estimated_cost"], line["output_tokens"]) == (False, result.cost, 8)

    async def test_is_not_kept(self, project, clean_environment):
        for stop_reason, text in (("end_turn", ""), ("refusal", "No."), ("max_tokens", "Half")):
            answer = Answer(text=text, stop_reason=stop_reason)
            async with billing(lambda body, answer=answer: answer) as server:
                async with orchestrator(project, server, enable_cache=True) as fleet:
                    for _ in range(2):
                        await fleet.execute_agent(AGENT, "x", model=MODEL)
            assert len(server.requests) == 2

    async def test_a_cut_off_answer_is_told(self, project, caplog):
        result, *_ = await one(project, [Answer(text="Half", stop_reason="max_tokens")])
        assert (result.success, result.truncated, result.metadata["truncated"]) == (True, True, True)
        assert "cut off" in caplog.text


class TestMaxTokens:
    @pytest.mark.parametrize(
        ("model", "options", "most"),
        [
            ("claude-sonnet-5-5", {}, 16_384),
            ("claude-opus-5-5-20261014", {}, 16_384),
            ("us.anthropic.claude-fable-5-1-v1:0", {}, 16_384),
            ("claude-sonnet-5-5", {"thinking": {"type": "between_tools"}}, 4096),
            ("claude-haiku-4-5", {}, 4096),
            ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, 16_384),
            ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 30_000}}, 34_096),
            ("my-own-model", {}, 4096),
        ],
    )
    async def test_follows_whether_the_model_thinks(self, project, model, options, most):
        async with billing(lambda body: Answer()) as server:
            async with orchestrator(project, server, budget_usd=None) as fleet:
                await fleet.execute_agent(AGENT, "x", model=model, **options)
        assert server.requests[0]["max_tokens"] == most


def check_books(server, seen, spent, metrics, exact=True):
    """That results, ledger, budget and the server agree on all calls that were `seen`."""
    results = [executed.result for executed in seen]
    held = sum(cost_or_bound(result.cost, result.cost_at_most) for result in results)
    assert spent == pytest.approx(held, abs=1e-7), "results and budget"
    lines = written(metrics)
    assert len(lines) == len(results)
    assert sum(
        cost_or_bound(one["estimated_cost"], one.get("cost_at_most", 0.0)) for one in lines
    ) == pytest.approx(held, abs=1e-7), "results and ledger"
    billed = sum(server.billed.values())
    assert held >= billed - 1e-9, "less than was billed"
    unknown = any(result.cost is None and result.cost_at_most != 0 for result in results)
    if exact and not unknown:
        assert held == pytest.approx(billed, abs=1e-7)


class TestCancelledAtEachAwait:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("callers, victim", [(1, 0), (3, 0), (3, 1)])
    async def test_ledger_has_each_request_once(self, project, callers, victim, stream):
        steps, at, loop = Steps(), 1, asyncio.get_running_loop()
        loop.set_task_factory(steps.make_task)
        seen, spent = [], 0.0
        async with billing(lambda body: Answer(text="Yes")) as server:
            more = {"observers": [seen.append], "stream": stream}
            async with orchestrator(project, server, **more) as fleet:
                await fleet.execute_agent(AGENT, "first", model=MODEL, max_tokens=MOST)
                while True:
                    calls = [
                        asyncio.ensure_future(
                            fleet.execute_agent(AGENT, f"Task {at}", model=MODEL, max_tokens=MOST)
                        )
                        for _ in range(callers)
                    ]
                    steps.count, steps.at, steps.victim = 0, at, calls[victim]
                    ended = await asyncio.gather(*calls, return_exceptions=True)
                    steps.at = 0
                    others = [one for number, one in enumerate(ended) if number != victim]
                    assert all(one.success for one in others)
                    reported = [one.result for one in seen if one.call.task == f"Task {at}"]
                    # The server may see a request that is gone by then.
                    asked = sum(one.attempts for one in reported)
                    sent = sum(body["messages"][0]["content"] == f"Task {at}" for body in server.requests)
                    assert sent <= asked <= 1, f"cancelled at step {at}"
                    assert sum(cost_or_bound(one.cost, one.cost_at_most) for one in reported) >= (
                        server.billed[f"Task {at}"] - 1e-9
                    )
                    if not isinstance(ended[victim], asyncio.CancelledError) and steps.count < at:
                        break
                    at += 1
                spent = fleet.spent_usd
        assert at > 10
        check_books(server, seen, spent, project.parent / "metrics", exact=False)


def schedule(chance):
    """An answer of each kind."""
    kinds = [
        {},
        {"text": "A longer answer. " * 3},
        {"status": 529},
        {"lost": "billed"},
        {"lost": "free"},
        {"cut": "text"},
        {"cut": "thinking"},
        {"cut": "start"},
        {"usage": chance.choice(NONSENSE)},
        {"final": None},
        {"model": "claude-sonnet-5-5-20261001"},
        {"searches": chance.randint(1, 5)},
        {"text": "", "stop_reason": "refusal"},
        {"text": "", "stop_reason": "max_tokens"},
        {"text": "Half", "stop_reason": "max_tokens"},
    ]
    # Most requests are answered.
    chosen = {} if chance.random() < 0.4 else chance.choice(kinds)
    return Answer(**chosen, input_tokens=chance.randint(1, 60))


async def run_schedule(project, fleet, server, seed, seen):
    chance = random.Random(seed)
    server.plan = lambda body: _fits(schedule(chance), body)
    server.billed.clear()
    fleet.stream = chance.random() < 0.7
    fleet.budget_usd = chance.choice([0.02, 0.1, 1.0])
    fleet.prices = PRICES
    texts = [f"{seed} {chance.randint(0, 3)}" for _ in range(chance.randint(1, 6))]
    options = SEARCHES if chance.random() < 0.3 else {}
    calls = [
        asyncio.ensure_future(fleet.execute_agent(AGENT, text, model=MODEL, max_tokens=MOST, **options))
        for text in texts
    ]
    for call in calls:
        if chance.random() < 0.3:
            for _ in range(chance.randint(0, 25)):
                await asyncio.sleep(0)
            call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    exact = all(type(one.result.error).__name__ != "ConnectionFailedError" for one in seen)
    exact = exact and not any(trip.error for one in seen for trip in one.result.timeline)
    return fleet.spent_usd, exact


def _fits(answer, body):
    if "tools" not in body:
        answer.searches = 0
    return answer


async def run_many(server, project, *arguments):
    """The exit code of the command and its summary."""
    environment = {**os.environ, "ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "test-key"}
    price = f"{MODEL}={INPUT:g},{OUTPUT:g}"
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "claude_force", "run", "many", "tasks.jsonl", "-o", "out.jsonl", "--json"),
        *("--model", MODEL, "--max-tokens", str(MOST), "--price", price, *arguments),
        cwd=project.parent.parent,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await command.communicate()
    return command.returncode, json.loads(out)


class TestRunMany:
    @pytest.fixture
    def rows(self, project):
        tasks = [{"agent": AGENT, "task": str(number)} for number in range(12)]
        text = "".join(json.dumps(one) + "\n" for one in tasks)
        (project.parent.parent / "tasks.jsonl").write_text(text, encoding="utf-8")
        return lambda: [
            json.loads(line)
            for line in (project.parent.parent / "out.jsonl").read_text(encoding="utf-8").splitlines()
        ]

    async def test_budget_holds_without_usage(self, project, rows):
        async with billing(lambda body: Answer(usage=None)) as server:
            for _ in range(3):
                code, reported = await run_many(server, project, "--budget", "0.05")
                assert (code, reported["over_budget"], reported["cost"]) == (4, True, 0)
        assert 0.04 < reported["unpriced_at_most"] <= 0.05
        assert reported["cost_usd"] is None
        assert reported["unpriced"] == len(server.requests) == len(rows()) < 7
        assert all(row["cost"] is None and row["cost_at_most"] > WORST_ANSWER for row in rows())

    async def test_answers_that_are_none_are_counted(self, project, rows):
        kinds = [
            Answer(text="", stop_reason="max_tokens"),
            Answer(text="", stop_reason="refusal"),
            Answer(text="Half", stop_reason="max_tokens"),
            Answer(),
        ]
        async with billing(lambda body: kinds[int(body["messages"][0]["content"]) % 4]) as server:
            code, reported = await run_many(server, project)
            assert (code, reported["succeeded"], reported["failed"]) == (3, 6, 6)
            assert [reported[name] for name in ("empty", "refused", "truncated")] == [3, 3, 6]
            assert reported["cost"] == pytest.approx(sum(server.billed.values()))
            again = await run_many(server, project)
            assert reported["errors_by_type"] == {"EmptyAnswerError": 3, "RefusedError": 3}
            # Of the rows that were run now.
            assert again == (3, {**reported, "ran_now": 0, "errors": [], "errors_by_type": {}})
        assert len(server.requests) == 12
        for name, count in (("empty", 3), ("refused", 3), ("truncated", 6)):
            assert sum(row[name] for row in rows()) == count


async def test_cancelled_durable_call_is_in_ledger(project, tmp_path):
    if missing("durable"):
        pytest.skip(missing("durable"))
    seen, begun = [], asyncio.Event()

    def plan(body):
        begun.set()
        return Answer(text="A longer answer. " * 20)

    async with billing(plan) as server:
        more = {"durable": f"sqlite:///{tmp_path}/runs.db", "observers": [seen.append]}
        async with orchestrator(project, server, **more) as fleet:
            call = asyncio.ensure_future(
                fleet.execute_agent(AGENT, "x", model=MODEL, max_tokens=MOST, cache="off")
            )
            await begun.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            spent = fleet.spent_usd
    check_books(server, seen, spent, project.parent / "metrics", exact=False)


async def test_300_schedules_tell_what_was_billed(project):
    seen, metrics = [], project.parent / "metrics"
    async with billing(lambda body: Answer()) as server:
        async with orchestrator(project, server, observers=[seen.append]) as fleet:
            for seed in range(300):
                seen.clear()
                spent, exact = await run_schedule(project, fleet, server, seed, seen)
                await asyncio.get_running_loop().run_in_executor(None, fleet.tracker.flush)
                assert fleet._calls.budget.reserved == 0, seed
                try:
                    if seen:
                        check_books(server, seen, spent, metrics, exact)
                    else:
                        assert spent == 0 and not server.billed
                except AssertionError as error:
                    raise AssertionError(f"schedule {seed}") from error
                if metrics.exists():
                    for path in metrics.glob("executions*"):
                        path.unlink()
