"""The budget: a hard cap, whatever runs at the same time and however it ends."""

import asyncio
import json
import random
import re
from collections import Counter

import pytest
from fleet import FakeClock, ended, fleet, write_project
from hypothesis import example, given, settings
from hypothesis import strategies as st
from virtual_time import SimulatedServer, run_virtually, sender_to

from claude_force.conversation import ContentBlock, Conversation, ToolResult, ToolUse
from claude_force.errors import (
    BudgetExceededError,
    CallError,
    ConnectionFailedError,
    InvalidOptionError,
    OverloadedError,
    RateLimitError,
    RequestRefusedError,
    ServerError,
    UnknownPriceError,
)
from claude_force.limits.budget import Budget, require_worst_cost, to_nano_usd, worst_cost
from claude_force.limits.call_context import CallContext
from claude_force.limits.prices import price_lookup
from claude_force.testing import faults
from claude_force.types import Call, Reply, Usage

MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": 3.0, "output": 15.0}}
PRICE = price_lookup(PRICES, lambda *_: None)
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def with_tools(*tools, model=MODEL):
    return Call("a", (), "x", model, 7, {"tools": list(tools)})


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


class TestBudget:
    @given(st.integers(1, 10**6), st.lists(st.tuples(st.integers(0, 10**5), st.floats(0, 1)), max_size=50))
    def test_never_above_limit(self, limit, calls):
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
        assert budget.reserve(0.25)
        budget.settle(0.25, 0.25)
        said = r"of \$1\.00, \$0\.2500 is spent, and this call may cost up to \$1\.10: it was not sent"
        with pytest.raises(BudgetExceededError, match=said):
            budget.reserve(1.1)

    def test_budget_of_one_call_says_so(self):
        for budget, is_of_call in ((Budget(1.0), False), (Budget(1.0, is_of_call=True), True)):
            with pytest.raises(BudgetExceededError) as raised:
                budget.reserve(1.1)
            assert raised.value.is_of_call is is_of_call

    def test_it_can_be_spent_to_the_last(self):
        budget = Budget(1.0)
        assert budget.reserve(0.25)
        budget.settle(0.25, 0.25)
        assert budget.reserve(0.5)
        assert budget.reserve(0.25)
        assert (budget.spent, budget.reserved) == (0.25, 0.75)
        assert not budget.reserve(0.000_000_001)

    def test_settlement_wakes_once(self):
        budget, woken = Budget(1.0), []
        assert budget.reserve(1.0)
        for name in "ab":
            budget.when_settled(lambda name=name: woken.append((name, budget.reserved, budget.spent)))
        assert not woken
        budget.settle(1.0, 0.5)
        assert woken == [("a", 0.0, 0.5), ("b", 0.0, 0.5)]
        assert budget.reserve(0.5)
        budget.settle(0.5, 0.125)
        assert len(woken) == 2
        assert budget.spent == 0.625

    @pytest.mark.parametrize("usd", [0, -1, float("nan"), float("inf")])
    def test_refuses_bad_amount(self, usd):
        with pytest.raises(InvalidOptionError, match=f"is {usd!r} USD"):
            Budget(usd)

    @example(512_003)
    @given(st.integers(0, 10**6))
    def test_rounds_up_to_nano_usd(self, thousandths):
        assert to_nano_usd(thousandths / 1000) == thousandths * 10**6
        assert to_nano_usd(thousandths / 1000 + 1.2e-9) == thousandths * 10**6 + 2

    @given(st.text(max_size=200), st.text(max_size=200), st.integers(1, 5000))
    def test_worst_bounds_every_bill(self, system, task, max_tokens):
        price = price_lookup(PRICES, lambda *_: None)
        call = Call("a", (system,), task, MODEL, max_tokens)
        size = len((system + task).encode("utf-8", "surrogatepass"))
        for usage in (
            Usage(input_tokens=size, output_tokens=max_tokens),
            Usage(cache_creation_input_tokens=size, output_tokens=max_tokens),
        ):
            assert worst_cost(call, price) >= price(MODEL, usage)

    @pytest.mark.parametrize(
        ("options", "ttl", "prompt", "long_lived"),
        [
            ({}, "5m", 54, 0),
            ({}, "1h", 54, 54),
            ({"top_k": 5}, "5m", 54 + 1000 + len("{'top_k': 5}"), 0),
            ({"tools": "\u6f22"}, "5m", 54 + 1000 + len("{'tools': '123'}"), 0),
        ],
    )
    def test_worst_includes_frame_and_tools(self, options, ttl, prompt, long_lived):
        asked = []

        def price(model, usage, options):
            asked.append((model, usage, options))
            return float(len(asked))

        call = Call("a", ("s", "c"), "\xe9", MODEL, 7, options, ttl)
        assert worst_cost(call, price) == 2.0
        fresh, written = Usage(prompt, 7), Usage(0, 7, prompt, 0, long_lived)
        assert asked == [(MODEL, fresh, options), (MODEL, written, options)]

    @pytest.mark.parametrize("known", ["fresh", "written", "neither"])
    def test_worst_without_price_is_unknown(self, known):
        def price(model, usage, options):
            return 1.0 if known == ("fresh" if usage.input_tokens else "written") else None

        assert worst_cost(Call("a", (), "x", MODEL, 7), price) is None

    def test_worst_includes_every_search(self):
        asked = []

        def price(model, usage, options):
            asked.append(usage.web_search_requests)
            return 1.0

        assert worst_cost(with_tools({**SEARCH, "max_uses": 3}, {**SEARCH, "max_uses": 4}), price) == 1.0
        assert asked == [7, 7]
        assert worst_cost(with_tools({**SEARCH, "max_uses": 3}, SEARCH), price) is None
        assert asked == [7, 7]

    @given(st.lists(st.text(max_size=100), max_size=6), st.text(max_size=100), st.integers(0, 500))
    def test_worst_bounds_every_turn(self, texts, system, counted):
        conversation = Conversation.start('[{"name": "Read"}]', ["task"])
        for text in texts:
            answer = [ContentBlock("text", json.dumps({"type": "text", "text": text}))]
            conversation = conversation.with_answer(answer, counted).with_results([], [text, "more"])
        call = Call("a", (system,), "task", MODEL, 100, conversation=conversation)
        size = len(system.encode()) + conversation.size.text if not (texts and counted) else counted
        more = conversation.added.text if texts and counted else 0
        assert worst_cost(call, PRICE) >= PRICE(MODEL, Usage(0, 100, size + more))

    def test_what_the_api_has_counted_is_known(self):
        """A turn is not reserved for as if each byte of the conversation were a token."""
        conversation = (
            Conversation.start("[]", ["x" * 400_000]).with_answer([], 100_000).with_results([], ["y"])
        )
        call = Call("a", ("s" * 50_000,), "task", MODEL, 100, conversation=conversation)
        added = conversation.added.text
        assert worst_cost(call, PRICE) == pytest.approx(PRICE(MODEL, Usage(0, 100, 100_000 + added + 50)))

    def test_worst_includes_images(self):
        image = {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/x", "data": "A" * 400_000},
        }
        start = Conversation.start("[]", ["task"]).with_answer([], 1000)
        use = ToolUse("t", "Read", {})
        costs = [
            worst_cost(Call("a", (), "x", MODEL, 7, conversation=start.with_results([(use, result)])), PRICE)
            for result in (ToolResult(()), ToolResult((image,)))
        ]
        assert costs[1] - costs[0] == pytest.approx(PRICE(MODEL, Usage(0, 0, 4784)), rel=0.05)

    @pytest.mark.parametrize("counted", [0, 1000])
    def test_worst_of_a_turn_is_what_it_has(self, counted):
        """All of its text where nothing was counted, else what is new; images at their most in both."""
        prompts = []

        def price(model, usage, options):
            prompts.append(usage.prompt_tokens)
            return 1.0

        source = {"type": "base64", "media_type": "image/x", "data": "AAAA"}
        results = [(ToolUse("t", "Read", {}), ToolResult(({"type": "image", "source": source},)))]
        conversation = Conversation.start("[]", ["\xe9"]).with_answer([], counted).with_results(results)
        assert worst_cost(Call("a", ("s", "\xe9"), "x", MODEL, 7, conversation=conversation), price) == 1.0
        text = 1000 + conversation.added.text if counted else 3 + conversation.size.text + 1000
        assert prompts == [text + 4784 + 50] * 2

    def test_tools_of_a_conversation_may_cost(self):
        def worst(*tools):
            tools = ({"name": "Read", "input_schema": {}}, *tools)
            conversation = Conversation.start(json.dumps(tools), ["task"])
            return worst_cost(Call("a", (), "task", MODEL, 7, conversation=conversation), PRICE)

        assert worst({**SEARCH, "max_uses": 3}) - worst() == pytest.approx(0.03, abs=0.001)
        assert worst(SEARCH) is None
        assert worst({"type": "robot_20300101", "name": "robot"}) is None

    def test_known_worst_is_returned(self):
        price = price_lookup(PRICES, lambda *_: None)
        call = with_tools({**SEARCH, "max_uses": 3})
        assert require_worst_cost(call, price) == worst_cost(call, price) > 0

    @pytest.mark.parametrize(
        ("tools", "message", "shell"),
        [
            (
                [],
                "The price of other is not known, so a budget can't be enforced. Give prices="
                "{'other': {'input': ..., 'output': ...}} in USD per million tokens.",
                "The price of other is not known, so a budget can't be enforced. Give --price "
                "other=INPUT,OUTPUT in USD per million tokens.",
            ),
            (
                [SEARCH],
                "What web searches may cost is not bounded, so a budget can't be enforced. Give the web "
                "search tool max_uses.",
                None,
            ),
            (
                [{**SEARCH, "max_uses": 3}, {"type": "robot_20300101"}],
                "What the tool 'robot_20300101' costs is not known, so a budget can't be enforced. Leave out "
                "the tool or the budget.",
                None,
            ),
        ],
    )
    def test_unbounded_cost_says_why(self, tools, message, shell):
        with pytest.raises(UnknownPriceError) as raised:
            require_worst_cost(with_tools(*tools, model="other"), lambda *_: None)
        said = raised.value.args[0]
        assert (str(said), getattr(said, "shell", None)) == (message, shell)

    def test_prices_of_the_callers_own(self):
        price = price_lookup({"m": {"input": 1.0, "output": 2.0, "cache_read": 0.5}}, lambda *_: 7.0)
        assert price("m", Usage(1_000_000, 1_000_000, 1_000_000, 1_000_000)) == 1 + 2 + 1.25 + 0.5
        assert price("other", Usage()) == 7.0

    def test_own_price_of_each_token_kind(self):
        usage = Usage(2_000_000, 3_000_000, 9_000_000, 5_000_000, 4_000_000)
        usual = price_lookup({"m": {"input": 3.0, "output": 7.0}}, lambda *_: None)
        assert usual("m", usage) == pytest.approx(2 * 3 + 3 * 7 + 5 * 3.75 + 4 * 6 + 5 * 0.3)
        rates = {"input": 3.0, "output": 7.0, "cache_write": 11.0, "cache_write_1h": 13.0, "cache_read": 0.0}
        assert price_lookup({"m": rates}, lambda *_: None)("m", usage) == 2 * 3 + 3 * 7 + 5 * 11 + 4 * 13

    def test_other_models_use_list_prices(self):
        price = price_lookup({"m": {"input": 1.0, "output": 2.0}}, lambda *asked: asked)
        assert price("other", Usage(1), {"speed": "fast"}) == ("other", Usage(1), {"speed": "fast"})
        assert price("other", Usage(1)) == ("other", Usage(1), {})

    @pytest.mark.parametrize("given", [{"input": 1.0}, {"input": 1.0, "output": 2.0, "cache": 1.0}])
    def test_refuses_incomplete_prices(self, given):
        named = f"prices['m'] has {sorted(given)}; give input and output"
        with pytest.raises(InvalidOptionError, match=re.escape(named) + ".* from the usual cache_write"):
            price_lookup({"m": given}, lambda *_: None)

    @pytest.mark.parametrize("rate", ["1", None, -0.1, float("nan"), float("inf")])
    def test_refuses_rate_of_none(self, rate):
        with pytest.raises(InvalidOptionError, match=rf"prices\['m'\]\['output'\] is {rate!r}; give USD"):
            price_lookup({"m": {"input": 0, "output": rate}}, lambda *_: None)


class WatchedBudget(Budget):
    """Remembers the most that was ever spent and reserved together."""

    most = 0.0

    def reserve(self, worst):
        fits = super().reserve(worst)
        self.most = max(self.most, self.spent + self.reserved)
        return fits

    def settle(self, worst, usd):
        super().settle(worst, usd)
        self.most = max(self.most, self.spent + self.reserved)


class BillingServer(SimulatedServer):
    """Answers, refuses or breaks off by chance; `billed` has USD by task, whatever the client heard of it."""

    def __init__(self, seed, refusing, breaking):
        super().__init__(latency=lambda chance: chance.expovariate(0.5), seed=seed)
        self._refusing, self._breaking = refusing, breaking
        self.billed = Counter()

    async def attempt(self, call, record):
        chance, answer = self._chance, 0
        prompt = self._prompt(len(call.task))
        try:
            await asyncio.sleep(self._latency(chance))
            if chance.random() < self._refusing:
                prompt = None
                raise chance.choice(
                    [OverloadedError("x"), RateLimitError("x", retry_after=2.0), RequestRefusedError("x")]
                )
            answer = 1
            await asyncio.sleep(self._latency(chance))
            answer = chance.randint(1, call.max_tokens)
            if chance.random() < self._breaking:
                raise chance.choice([ConnectionFailedError("x"), ServerError("x")])
            return Reply("x", call.model, Usage(*prompt[:1], answer, *prompt[1:]), "end_turn")
        finally:
            # A call that is cut off before its answer begins has nothing to pay.
            if prompt and answer:
                record.usage = Usage(prompt[0], answer, *prompt[1:])
                self.billed[call.task] += PRICE(MODEL, record.usage)

    def _prompt(self, size):
        """Tokens that are fresh, written to the prompt cache and read from it."""
        size = self._chance.randint(1, size)
        return self._chance.choice([(size, 0, 0), (0, size, 0), (0, 0, size)])


class TestSchedules:
    @settings(max_examples=25)
    @given(
        seed=st.integers(0, 2**32),
        dollars=st.floats(0.05, 4),
        other=st.floats(0.2, 5),
        refusing=st.floats(0, 0.5),
        breaking=st.floats(0, 0.5),
        cancelled=st.sampled_from([0, 0.1, 0.5]),
    )
    def test_spends_what_is_billed(self, seed, dollars, other, refusing, breaking, cancelled):
        chance, server = random.Random(seed), BillingServer(seed, refusing, breaking)
        budgets = (WatchedBudget(dollars), WatchedBudget(dollars * other))
        calls = [
            Call("a", (), f"{number} ".ljust(chance.randint(4, 20_000), "x"), MODEL, chance.randint(1, 4000))
            for number in range(200)
        ]

        async def work():
            sender = sender_to(server, 50, price=PRICE)
            sent = [asyncio.ensure_future(sender.send(call, None, CallContext(budgets))) for call in calls]
            for one in sent:
                if chance.random() < cancelled:
                    asyncio.get_running_loop().call_later(chance.uniform(0, 40), one.cancel)
            # Nobody waits for ever for what nobody gives back.
            return await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), 1e6)

        ended = run_virtually(work())
        billed = sum(server.billed.values())
        for budget in budgets:
            assert budget.reserved == 0
            assert budget.spent == pytest.approx(billed, abs=1e-6)
            assert budget.spent <= budget.most <= budget.usd + 1e-12
        for call, outcome in zip(calls, ended):
            if isinstance(outcome, asyncio.CancelledError):
                continue
            assert isinstance(outcome, (Reply, CallError))
            reported = outcome.cost or 0.0
            if isinstance(outcome, Reply):
                reported += outcome.wasted_cost
            assert reported == pytest.approx(server.billed[call.task])
            if isinstance(outcome, BudgetExceededError):
                # What was spent only grows: a call that would still fit now was refused in error.
                assert any(budget.spent + worst_cost(call, PRICE) > budget.usd for budget in budgets)


class TestFleet:
    async def test_200_calls_stay_in_budget(self, project):
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

    async def test_bulk_run_has_its_own_budget(self, project):
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

    async def test_refused_attempt_costs_nothing(self, project):
        async with fleet(project, {"faults": [faults.status(529)]}, budget_usd=1.0, prices=PRICES) as (
            orchestrator,
            server,
        ):
            result = await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            assert len(server.requests) == 2
            assert orchestrator.spent_usd == pytest.approx(result.cost, abs=1e-6)

    async def test_truncated_attempt_counts(self, project):
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

    @pytest.mark.parametrize("stream", [True, False])
    async def test_lost_request_counts_worst(self, project, stream):
        plan = {"faults": [faults.silence_before_first_byte()]}
        limits = {"stream": stream, "timeout_seconds": 0.2, "budget_usd": 1.0, "prices": PRICES}
        # Without a bound on silence the call would never end.
        limits["deadline_seconds"] = 20
        async with fleet(project, plan, **limits) as (orchestrator, server):
            result = await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            assert len(server.requests) == 2
            # Nobody will ever know whether the first one was billed.
            assert (result.success, result.cost) == (True, None)
            assert result.cost_at_most == pytest.approx(orchestrator.spent_usd)
            assert orchestrator.spent_usd > 4096 * 15 / 1e6

    async def test_truncated_json_counts_worst(self, project):
        async def half(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n"
            writer.write(head + b'{"type":')
            await writer.drain()
            writer.close()

        gateway = await asyncio.start_server(half, "127.0.0.1", 0)
        async with gateway, fleet(project, budget_usd=1.0, prices=PRICES, max_retries=1) as (orchestrator, _):
            host, port = gateway.sockets[0].getsockname()
            orchestrator.base_url = f"http://{host}:{port}"
            result = await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            assert isinstance(result.error, ConnectionFailedError)
            assert orchestrator.spent_usd > 4096 * 15 / 1e6

    async def test_no_server_costs_nothing(self, project):
        async with fleet(project, stream=False, budget_usd=1.0, prices=PRICES) as (orchestrator, server):
            server.stop()
            result = await orchestrator.execute_agent("python-expert", "x", model=MODEL)
            assert isinstance(result.error, ConnectionFailedError)
            assert orchestrator.spent_usd == 0

    async def test_cancelled_call_releases_budget(self, project):
        async with fleet(
            project, {"faults": [faults.silence_before_first_byte()]}, budget_usd=1.0, prices=PRICES
        ) as (orchestrator, server):
            call = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "x", model=MODEL))
            assert await ended(lambda: server.in_flight)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert orchestrator._calls.budget.reserved == 0

    async def test_unknown_price_is_an_error(self, project):
        async with fleet(project, budget_usd=1.0) as (orchestrator, server):
            with pytest.raises(UnknownPriceError, match="prices="):
                await orchestrator.execute_agent("python-expert", "x", model="my-own-model")
            orchestrator.prices = {"my-own-model": {"input": 0.0, "output": 0.0}}
            assert (await orchestrator.execute_agent("python-expert", "x", model="my-own-model")).cost == 0.0
            assert len(server.requests) == 1

    async def test_waits_for_reserved_money(self, project):
        # Each may cost up to 0.016 USD, so that two of them never fit at the same time.
        async with fleet(project, budget_usd=0.02, prices=PRICES, clock=FakeClock()) as (
            orchestrator,
            server,
        ):
            tasks = [("python-expert", f"Task {number}") for number in range(3)]
            results = await orchestrator.execute_multiple(tasks, model=MODEL, max_tokens=1000)
            assert results[0].success
            assert server.max_in_flight == 1

    async def test_identical_calls_keep_their_budgets(self, project):
        rows = [("python-expert", "x")] * 2
        for model, prices in ((MODEL, PRICES), ("my-own-model", {})):
            async with fleet(project, prices=prices) as (orchestrator, server):
                poor, rich = await asyncio.gather(
                    orchestrator.execute_multiple(rows, model=model, budget_usd=0.000001),
                    orchestrator.execute_multiple(rows, model=model),
                )
                assert not any(result.success for result in poor)
                assert all(result.success for result in rich)
                assert len(server.requests) == 1
