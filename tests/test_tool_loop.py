"""Agents that use tools, over real HTTP: what is sent, what is run, what it costs."""

import asyncio
import json

import pytest
from billing import INPUT, OUTPUT
from extras import missing
from ledgers import written
from tool_agents import (
    AGENT,
    Answer,
    Notes,
    agents,
    call,
    calls,
    check_calls_have_results,
    forever,
    results_in,
    script,
)

from claude_force.bulk import (
    Finished,
    ResultsFile,
    ResumableRun,
    Started,
    TaskFile,
    ToolEnded,
    ToolStarted,
    TurnBegan,
    TurnEnded,
)
from claude_force.conversation import ToolResult
from claude_force.errors import (
    BudgetExceededError,
    ClosedError,
    ContextFullError,
    DeadlineExceededError,
    EmptyAnswerError,
    InvalidOptionError,
    NoFinalAnswerError,
    RefusedError,
    ServerError,
    ToolCallCutOffError,
)
from claude_force.tools.protocol import ToolError

ONE_ANSWER = (20 * INPUT + 8 * OUTPUT) / 1e6
TWO_LOOKS = calls(call("t1", path="a"), call("t2", path="b"))


def ledger(project):
    return written(project.parent / "metrics")


class TestTurns:
    async def test_results_go_back_in_one_message(self, project):
        async with agents(project, script(TWO_LOOKS), Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert (result.success, result.output, result.stop_reason) == (True, "Done.", "end_turn")
        systems = [[block["text"] for block in body["system"]] for body in server.requests]
        assert [system.index(Notes.context) for system in systems] == [len(systems[0]) - 1] * 2
        assert results_in(server.requests[1]) == [
            ("t1", 'Look did {"path": "a"}', False),
            ("t2", 'Look did {"path": "b"}', False),
        ]
        check_calls_have_results(server.requests)

    async def test_result_has_turns_and_calls(self, project):
        async with agents(project, script(TWO_LOOKS), Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert [(turn.stop_reason, turn.attempts, turn.cost) for turn in result.turns] == [
            ("tool_use", 1, pytest.approx(ONE_ANSWER)),
            ("end_turn", 1, pytest.approx(ONE_ANSWER)),
        ]
        assert [(one.turn, one.name, one.input, one.error, one.id) for one in result.tool_calls] == [
            (1, "Look", {"path": "a"}, None, "t1"),
            (1, "Look", {"path": "b"}, None, "t2"),
        ]
        assert result.tool_calls[0].bytes == len('Look did {"path": "a"}')
        assert (result.attempts, len(result.timeline)) == (2, 2)
        assert (result.usage.input_tokens, result.usage.output_tokens) == (40, 16)
        assert result.cost == pytest.approx(2 * ONE_ANSWER) == pytest.approx(sum(server.billed.values()))
        assert result.metadata["tokens_used"] == 56
        assert json.loads(json.dumps(result.to_dict()))["tool_calls"][1]["name"] == "Look"

    async def test_plain_result_has_none(self, project):
        async with agents(project, script(), Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look")
        assert (result.turns, result.tool_calls, result.stopped_by) == ((), (), None)
        assert "turns" not in result.to_dict() and "tools" not in server.requests[0]

    async def test_paused_answer_goes_on(self, project):
        paused = Answer("First, ", "pause_turn")
        async with agents(project, script(paused), Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert (result.success, result.output) == (True, "First, Done.")
        assert [one["role"] for one in server.requests[1]["messages"]] == ["user", "assistant"]

    async def test_failed_attempt_of_a_turn_is_retried(self, project):
        failures = iter([Answer(status=529)])
        plan = script(TWO_LOOKS)

        def unreliable(body):
            return next(failures, None) or plan(body) if len(body["messages"]) > 1 else plan(body)

        async with agents(project, unreliable, Notes()) as (orchestrator, _):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert [turn.attempts for turn in result.turns] == [1, 2]
        assert result.success and result.attempts == 3

    async def test_failed_turn_keeps_the_cost_of_those_before(self, project):
        plan = script(TWO_LOOKS)

        def failing(body):
            return plan(body) if len(body["messages"]) == 1 else Answer(status=500)

        async with agents(project, failing, Notes(), max_retries=2) as (orchestrator, _):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert isinstance(result.error, ServerError)
        assert result.cost == pytest.approx(ONE_ANSWER) == pytest.approx(result.error.cost)
        assert (result.attempts, result.usage.output_tokens) == (3, 8)
        assert [turn.error for turn in result.turns] == [None, "OverloadedError"] or result.turns[1].error


class TestTools:
    async def test_read_only_calls_run_at_once_others_in_order(self, project):
        async def wait(use):
            await asyncio.sleep(0.02)

        blocks = [call("t1"), call("t2"), call("t3", "Note"), call("t4", "Note"), call("t5")]
        tools = Notes(wait)
        async with agents(project, script(calls(*blocks)), tools) as (orchestrator, server):
            await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert tools.most_at_once == 2
        assert [name for name, _ in tools.ran] == ["Look", "Look", "Note", "Note", "Look"]
        assert [one[0] for one in results_in(server.requests[1])] == ["t1", "t2", "t3", "t4", "t5"]

    async def test_input_that_is_not_json_is_recorded_as_it_was(self, project):
        wrong = {"type": "tool_use", "id": "t1", "name": "Look", "input": None}
        async with agents(project, script(calls(wrong)), Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert result.tool_calls[0].input is None and len(server.requests) == 2

    async def test_many_read_only_calls_are_bounded(self, project):
        async def wait(use):
            await asyncio.sleep(0.01)

        tools = Notes(wait)
        many = calls(*[call(f"t{number}") for number in range(30)])
        async with agents(project, script(many), tools) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert tools.most_at_once == 10 and len(result.tool_calls) == 30
        check_calls_have_results(server.requests)

    async def test_exception_goes_to_the_model(self, project, caplog):
        async def fail(use):
            if use.input["how"] == "told":
                raise ToolError("No such file")
            raise KeyError("x")

        answer = calls(call("t1", how="told"), call("t2", "Note", how="broken"))
        async with agents(project, script(answer), Notes(fail)) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert result.success
        assert results_in(server.requests[1]) == [
            ("t1", "<tool_use_error>No such file</tool_use_error>", True),
            ("t2", "The tool failed: KeyError: 'x'", True),
        ]
        assert "No such file" in result.tool_calls[0].error

    async def test_tools_hold_no_slot(self, project):
        """With one slot, an agent whose tool runs does not keep another from its request."""
        other = asyncio.Event()

        async def wait(use):
            await other.wait()

        async with agents(project, script(calls(call("t1"))), Notes(wait), max_concurrent=1) as (
            orchestrator,
            _,
        ):
            first = asyncio.ensure_future(orchestrator.execute_agent(AGENT, "Look", tools="read"))
            await asyncio.sleep(0.05)
            await asyncio.wait_for(orchestrator.execute_agent(AGENT, "Another"), 10)
            other.set()
            assert (await first).success

    async def test_tools_are_closed(self, project):
        tools = Notes()
        async with agents(project, script(Answer(status=400)), tools) as (orchestrator, _):
            await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert tools.closed == 1


class TestEndings:
    async def test_refused_calls_are_not_run(self, project):
        tools = Notes()
        refused = calls(call("t1"), stop_reason="refusal", text="I will not")
        async with agents(project, script(refused), tools) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert isinstance(result.error, RefusedError) and result.refused
        assert (tools.ran, len(server.requests), result.output) == ([], 1, "I will not")

    async def test_cut_off_calls_are_not_run(self, project):
        tools = Notes()
        cut = calls(call("t1"), stop_reason="max_tokens", text="I look")
        async with agents(project, script(cut), tools) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert isinstance(result.error, ToolCallCutOffError) and result.truncated
        assert (tools.ran, len(server.requests)) == ([], 1)

    async def test_cut_off_text_is_a_truncated_success(self, project):
        async with agents(project, script(TWO_LOOKS, Answer("Half", "max_tokens")), Notes()) as (
            orchestrator,
            _,
        ):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert (result.success, result.truncated, result.output) == (True, True, "Half")

    async def test_full_context(self, project):
        full = Answer("Half", "model_context_window_exceeded")
        async with agents(project, script(TWO_LOOKS, full), Notes()) as (orchestrator, _):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert isinstance(result.error, ContextFullError)
        assert result.cost == pytest.approx(2 * ONE_ANSWER) == result.error.cost

    async def test_empty_last_answer(self, project):
        async with agents(project, script(TWO_LOOKS, Answer("")), Notes()) as (orchestrator, _):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert isinstance(result.error, EmptyAnswerError)
        assert result.empty and len(result.turns) == 2

    async def test_calls_beside_end_turn_are_run(self, project):
        tools = Notes()
        answer = calls(call("t1"), stop_reason="end_turn", text="Wait")
        async with agents(project, script(answer), tools) as (orchestrator, _):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert (result.output, len(tools.ran)) == ("Done.", 1)


class TestBounds:
    async def test_last_turn_forbids_calls(self, project):
        def plan(body):
            is_last = body.get("tool_choice") == {"type": "none"}
            return Answer("Enough.") if is_last else calls(call(f"t{len(body['messages'])}"))

        async with agents(project, plan, Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read", max_turns=3)
        assert (result.success, result.output, result.stopped_by) == (True, "Enough.", "max_turns")
        assert len(server.requests) == 3 and len(result.tool_calls) == 2
        assert [body["tools"] for body in server.requests] == [server.requests[0]["tools"]] * 3

    async def test_server_that_ignores_it(self, project):
        tools = Notes()
        async with agents(project, lambda body: TWO_LOOKS, tools) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read", max_turns=2)
        assert isinstance(result.error, NoFinalAnswerError) and "max_turns" in str(result.error)
        assert (len(server.requests), len(tools.ran), result.stopped_by) == (2, 2, "max_turns")

    async def test_max_tool_calls(self, project):
        tools = Notes()
        answer = calls(call("t1"), call("t2"), call("t3"))
        async with agents(project, script(answer), tools) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read", max_tool_calls=2)
        assert (result.success, result.stopped_by, len(tools.ran)) == (True, "max_tool_calls", 2)
        assert [error for _, _, error in results_in(server.requests[1])] == [False, False, True]
        assert [one.error is None for one in result.tool_calls] == [True, True, False]
        assert server.requests[1]["tool_choice"] == {"type": "none"}

    @pytest.mark.parametrize(
        ("of_file", "options", "argument", "expected"),
        [(4, {}, {}, 4), (4, {"max_turns": 3}, {}, 3), (4, {"max_turns": 3}, {"max_turns": 5}, 5)],
    )
    async def test_turns_of_file_options_and_argument(self, tmp_path, of_file, options, argument, expected):
        folder = tmp_path / ".claude" / "agents"
        folder.mkdir(parents=True)
        (folder / "a.md").write_text(f"---\nname: a\ndescription: d\nmaxTurns: {of_file}\n---\nLook.\n")

        def plan(body):
            return calls(call(f"t{len(body['messages'])}"), model="claude-sonnet-5-5")

        async with agents(tmp_path, plan, Notes(), **options) as (orchestrator, server):
            await orchestrator.execute_agent("a", "Look", tools="read", **argument)
        assert len(server.requests) == expected

    async def test_deadline_ends_tools(self, project):
        async def wait(use):
            await forever()

        tools = Notes(wait)
        async with agents(project, script(TWO_LOOKS), tools, deadline_seconds=0.2, clock=None) as (
            orchestrator,
            server,
        ):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert isinstance(result.error, DeadlineExceededError) and "0.2 s" in str(result.error)
        assert (result.stopped_by, result.cost) == ("deadline_seconds", pytest.approx(ONE_ANSWER))
        assert (tools.running, tools.closed, len(server.requests)) == (0, 1, 1)
        assert all("Interrupted" in one.error for one in result.tool_calls)

    async def test_deadline_in_a_request(self, project):
        """The second turn fails until no time is left for another attempt."""
        plan = script(TWO_LOOKS)

        def failing(body):
            return plan(body) if len(body["messages"]) == 1 else Answer(status=529)

        options = {"deadline_seconds": 0.3, "clock": None, "max_retries": 20}
        async with agents(project, failing, Notes(), **options) as (orchestrator, _):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert isinstance(result.error, DeadlineExceededError) and "0.3 s" in str(result.error)
        assert (result.cost, result.stopped_by) == (pytest.approx(ONE_ANSWER), "deadline_seconds")

    async def test_budget_of_one_call(self, project):
        """The last request that it allows forbids calls, and nothing is sent that it does not."""

        def plan(body):
            is_last = body.get("tool_choice") == {"type": "none"}
            return Answer("Enough.") if is_last else calls(call(f"t{len(body['messages'])}"))

        async with agents(project, plan, Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(
                AGENT, "Look", tools="read", max_tokens=100, budget_usd=0.01
            )
        assert (result.success, result.output, result.stopped_by) == (True, "Enough.", "budget_usd")
        assert 1 < len(server.requests) < 50
        assert sum(server.billed.values()) <= 0.01

    async def test_budget_too_small_for_one_request(self, project):
        async with agents(project, script(), Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read", budget_usd=0.0001)
        assert isinstance(result.error, BudgetExceededError) and result.stopped_by == "budget_usd"
        assert server.requests == []

    async def test_budget_of_one_plain_call(self, project):
        async with agents(project, script()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", budget_usd=0.0001)
        assert isinstance(result.error, BudgetExceededError) and server.requests == []


class TestBooks:
    async def test_one_ledger_line_for_each_request_and_one_for_the_whole(self, project):
        async with agents(project, script(TWO_LOOKS), Notes()) as (orchestrator, _):
            told = []
            orchestrator.observers.append(told.append)
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read", max_turns=9)
            summary = orchestrator.get_performance_summary()
        first, second, whole = ledger(project)
        assert [line.get("turn") for line in (first, second, whole)] == [1, 2, None]
        assert len({line["execution"] for line in (first, second, whole)}) == 1
        assert [line["estimated_cost"] for line in (first, second)] == [pytest.approx(ONE_ANSWER)] * 2
        assert (whole["turns"], whole["estimated_cost"], len(whole["tools"])) == (2, 0.0, 2)
        assert (summary["executions"], summary["attempts"]) == (1, 2)
        assert summary["cost_usd"] == pytest.approx(result.cost)
        assert [one.result for one in told] == [result]

    async def test_no_line_without_tracking(self, project):
        async with agents(project, script(TWO_LOOKS), Notes(), enable_tracking=False) as (orchestrator, _):
            await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert ledger(project) == []

    async def test_cancelled_in_a_tool(self, project):
        reached = asyncio.Event()

        async def wait(use):
            reached.set()
            await forever()

        tools = Notes(wait)
        async with agents(project, script(TWO_LOOKS), tools) as (orchestrator, _):
            told = []
            orchestrator.observers.append(told.append)
            running = asyncio.ensure_future(orchestrator.execute_agent(AGENT, "Look", tools="read"))
            await reached.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert (tools.running, tools.closed) == (0, 1)
            assert orchestrator.get_performance_summary()["cost_usd"] == pytest.approx(ONE_ANSWER)
        (completed,) = told
        assert completed.result.cost == pytest.approx(ONE_ANSWER)
        assert len(completed.result.turns) == 1 and len(completed.result.tool_calls) == 2

    async def test_closed_in_a_tool(self, project):
        reached = asyncio.Event()

        async def wait(use):
            reached.set()
            await forever()

        tools = Notes(wait)
        async with agents(project, script(TWO_LOOKS), tools) as (orchestrator, _):
            running = asyncio.ensure_future(orchestrator.execute_agent(AGENT, "Look", tools="read"))
            await reached.wait()
            await orchestrator.close()
            result = await running
        assert isinstance(result.error, ClosedError)
        assert result.cost == pytest.approx(ONE_ANSWER) and tools.closed == 1

    @pytest.mark.parametrize("kind", [TurnBegan, TurnEnded, ToolStarted, ToolEnded])
    async def test_callback_that_raises_ends_the_run_with_its_cost(self, project, kind):
        def on_event(event):
            if isinstance(event, kind) and orchestrator.spent_usd:
                raise LookupError("The callback broke")

        tools = Notes()
        async with agents(project, script(TWO_LOOKS), tools, budget_usd=1.0) as (orchestrator, server):
            with pytest.raises(LookupError):
                await orchestrator.execute_agent(AGENT, "Look", tools="read", on_event=on_event)
            assert (tools.running, tools.closed) == (0, 1)
            cost = orchestrator.get_performance_summary()["cost_usd"]
            assert cost == pytest.approx(server.billed["Look"])

    async def test_events_in_order(self, project):
        events = []
        async with agents(project, script(calls(call("t1", "Note", path="a"))), Notes()) as (orchestrator, _):
            await orchestrator.execute_agent(AGENT, "Look", tools="edit", on_event=events.append)
        kinds = [type(event) for event in events if type(event).__name__ != "Queued"]
        turn = [TurnBegan, Started, TurnEnded]
        assert kinds == [*turn, ToolStarted, ToolEnded, *turn, Finished]
        started = next(event for event in events if isinstance(event, ToolStarted))
        assert (started.turn, started.name, started.input) == (1, "Note", {"path": "a"})
        assert events[-1].progress.in_flight == 0 and events[-1].progress.attempts == 2
        costs = [event.progress.cost for event in events if isinstance(event, (TurnEnded, Finished))]
        assert costs == [pytest.approx(ONE_ANSWER * number) for number in (1, 2, 2)]


class TestGrants:
    async def test_without_a_grant_an_agent_runs_as_text_and_one_line_says_so(self, tmp_path, caplog):
        folder = tmp_path / ".claude" / "agents"
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / f"{name}.md").write_text(f"---\nname: {name}\ndescription: d\ntools: Read\n---\nHi.\n")
        async with agents(tmp_path, script(), Notes()) as (orchestrator, server):
            await orchestrator.execute_multiple([("a", "x"), ("b", "x"), ("a", "y")])
        assert [record.getMessage() for record in caplog.records if "declares" in record.getMessage()]
        assert sum("declares" in record.getMessage() for record in caplog.records) == 1
        assert not any("tools" in body for body in server.requests)

    async def test_grant_that_leaves_no_tool(self, project):
        async with agents(project, script(), None) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert result.success and result.turns == () and "tools" not in server.requests[0]

    async def test_default_of_the_orchestrator(self, project):
        async with agents(project, script(TWO_LOOKS), Notes(), tools="read") as (orchestrator, _):
            result = await orchestrator.execute_agent(AGENT, "Look")
            assert len(result.turns) == 2
            assert (await orchestrator.execute_agent(AGENT, "Look", tools="none")).turns == ()

    async def test_tools_of_the_api_stay_a_field_of_the_request(self, project):
        searching = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}]
        async with agents(project, script(), Notes()) as (orchestrator, server):
            result = await orchestrator.execute_agent(AGENT, "Look", tools=searching)
        assert server.requests[0]["tools"] == searching and result.turns == ()

    @pytest.mark.parametrize(
        "wrong",
        [{"max_turns": 0}, {"max_tool_calls": -1}, {"tools": 5}, {"add_dirs": "x"}, {"tools": ["Read", {}]}],
    )
    async def test_senseless_option(self, project, wrong):
        async with agents(project, script(), Notes()) as (orchestrator, server):
            with pytest.raises(InvalidOptionError):
                await orchestrator.execute_agent(AGENT, "Look", **{"tools": "read", **wrong})
        assert server.requests == []

    @pytest.mark.skipif(bool(missing("durable")), reason=missing("durable"))
    async def test_durable_calls_have_no_tools(self, project, tmp_path):
        durable = f"sqlite:///{tmp_path}/runs.db"
        async with agents(project, script(), Notes(), durable=durable) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match="leave out `durable`"):
                await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert server.requests == []

    async def test_rows_and_steps_have_tools(self, project):
        tools = Notes()
        async with agents(project, script(TWO_LOOKS), tools) as (orchestrator, _):
            rows = await orchestrator.execute_multiple([(AGENT, "x"), (AGENT, "y")], tools="read")
            steps = await orchestrator.execute_workflow("graph", "z", tools="read")
        assert [len(result.turns) for result in (*rows, *steps)] == [2, 2, 2]


async def test_results_of_blocks(project):
    async def image(use):
        return ToolResult(({"type": "text", "text": "A picture"},))

    async with agents(project, script(calls(call("t1"))), Notes(image)) as (orchestrator, server):
        result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
    assert results_in(server.requests[1])[0][1] == [{"type": "text", "text": "A picture"}]
    assert result.tool_calls[0].bytes > 20


class TestCache:
    async def test_second_run_over_unchanged_files_sends_nothing(self, project):
        async with agents(project, script(TWO_LOOKS), Notes(), enable_cache=True) as (orchestrator, server):
            first = await orchestrator.execute_agent(AGENT, "Look", tools="read")
            again = await orchestrator.execute_agent(AGENT, "Look", tools="read")
            summary = orchestrator.get_performance_summary()
        assert len(server.requests) == 2
        assert (again.output, again.cached, again.cost, again.attempts) == ("Done.", True, 0.0, 0)
        assert again.saved_cost == pytest.approx(first.cost) and again.usage == first.usage
        assert (summary["executions"], summary["cached"], summary["attempts"]) == (2, 1, 2)
        assert summary["cost_usd"] == pytest.approx(first.cost) == pytest.approx(summary["saved_usd"])

    async def test_it_sends_from_the_turn_whose_result_changed(self, project):
        seen = iter(["same", "old", "same", "new"])

        async def look(use):
            return ToolResult(next(seen))

        plan = script(calls(call("t1")), calls(call("t2")))
        async with agents(project, plan, Notes(look), enable_cache=True) as (orchestrator, server):
            await orchestrator.execute_agent(AGENT, "Look", tools="read")
            sent = len(server.requests)
            result = await orchestrator.execute_agent(AGENT, "Look", tools="read")
        assert (sent, len(server.requests)) == (3, 4)
        assert [turn.cached for turn in result.turns] == [True, True, False]
        assert (result.cached, result.attempts, result.usage.output_tokens) == (False, 1, 8)
        assert result.cost == pytest.approx(ONE_ANSWER)
        assert result.saved_cost == pytest.approx(2 * ONE_ANSWER)

    async def test_nothing_is_cached_after_a_side_effect(self, project):
        plan = script(calls(call("t1", "Note")), calls(call("t2")))
        async with agents(project, plan, Notes(), enable_cache=True) as (orchestrator, server):
            await orchestrator.execute_agent(AGENT, "Look", tools="edit")
            again = await orchestrator.execute_agent(AGENT, "Look", tools="edit")
        assert [turn.cached for turn in again.turns] == [True, False, False]
        assert len(server.requests) == 5

    async def test_identical_runs_share_their_requests(self, project):
        async with agents(project, script(TWO_LOOKS), Notes(), enable_cache=True) as (orchestrator, server):
            results = await orchestrator.execute_multiple([(AGENT, "Look")] * 5, tools="read")
        assert len(server.requests) == 2 and all(result.success for result in results)
        assert sum(result.cost for result in results) == pytest.approx(2 * ONE_ANSWER)
        assert sum(result.shared or result.cached for result in results) == 4


class TestWorkflows:
    async def test_resumed_step_is_not_asked_again(self, project):
        tools = Notes()
        async with agents(project, script(TWO_LOOKS), tools) as (orchestrator, server):
            first = await orchestrator.execute_workflow("graph", "z", tools="read")
            again = await orchestrator.execute_workflow("graph", resume=first.run_id, tools="read")
            assert (len(server.requests), len(tools.ran)) == (2, 2)
            assert (again[0].cost, again[0].cached, len(again[0].turns)) == (0.0, True, 2)
            assert again[0].saved_cost == pytest.approx(2 * ONE_ANSWER)
            assert again[0].tool_calls == first[0].tool_calls

    async def test_another_grant_is_another_question(self, project):
        async with agents(project, script(TWO_LOOKS), Notes()) as (orchestrator, server):
            first = await orchestrator.execute_workflow("graph", "z", tools="read")
            await orchestrator.execute_workflow("graph", resume=first.run_id, tools="edit")
        assert len(server.requests) == 4

    async def test_estimate_and_plan_take_the_same_options(self, project):
        async with agents(project, script(), Notes()) as (orchestrator, server):
            options = {"tools": "read", "max_turns": 3, "call_budget_usd": 1.0}
            estimate = await orchestrator.estimate([(AGENT, "z")], **options)
            plan = await orchestrator.plan("graph", "z", **options)
        assert (estimate.rows, len(plan.steps), server.requests) == (1, 1, [])


class TestRowsOfFiles:
    """Rows of a run from a file to a file, as `run many` runs them."""

    async def run(self, tmp_path, orchestrator, tasks, **options):
        """`(summary, rows by index)` of the results file."""
        source, target = tmp_path / "tasks.jsonl", tmp_path / "results.jsonl"
        source.write_text("".join(json.dumps({"agent": AGENT, "task": task}) + "\n" for task in tasks))
        with ResultsFile(target) as output:
            run = ResumableRun(TaskFile(source, None), output)
            run.begin()
            await run.run(
                lambda rows, listen: orchestrator.stream_multiple(rows, on_event=listen, **options),
                lambda _: 0,
            )
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        return run.summary, {row["index"]: row for row in rows}

    async def test_row_over_its_own_budget_ends_no_run(self, project, tmp_path):
        """The first needs two dear turns, of which its budget allows one; the others need one."""

        def plan(body):
            dear = calls(call("t1"), output_tokens=1000)
            return dear if body["messages"][0]["content"][0]["text"] == "dear" else Answer("Done.")

        async with agents(project, plan, Notes()) as (orchestrator, server):
            summary, rows = await self.run(
                *(tmp_path, orchestrator, ["dear", "b", "c"]),
                tools="read",
                max_tokens=1000,
                call_budget_usd=0.025,
            )
        assert not summary.over_budget and sorted(rows) == [0, 1, 2]
        assert rows[0]["error_type"] == "BudgetExceededError" and not rows[0]["success"]
        assert rows[0]["cost"] == pytest.approx(server.billed["dear"]) and rows[0]["cost"] > 0.01
        assert rows[1]["success"] and rows[2]["success"]

    async def test_budget_of_the_run_keeps_the_cost_of_turns(self, project, tmp_path):
        def plan(body):
            return calls(call("t1"), output_tokens=1000)

        async with agents(project, plan, Notes()) as (orchestrator, server):
            summary, rows = await self.run(
                tmp_path, orchestrator, ["a"], tools="read", max_tokens=1000, budget_usd=0.025
            )
        assert summary.over_budget and not rows[0]["success"]
        assert summary.cost == pytest.approx(server.billed["a"]) == pytest.approx(rows[0]["cost"])
