"""The async orchestrator over real HTTP: what a call sends, what it returns, and bulk calls."""

import asyncio
import json
import logging
import traceback

import pytest
from fleet import MODEL, FakeClock, ended, fleet, write_project

from claude_force.async_orchestrator import AsyncAgentOrchestrator, AsyncAgentResult
from claude_force.errors import (
    AgentNotFoundError,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    InputError,
    InvalidAgentNameError,
    InvalidOptionError,
    InvalidTaskError,
    InvalidWorkflowError,
    PaidCallBlockedError,
    WorkflowNotFoundError,
)
from claude_force.testing import MessagesServer, faults
from claude_force.types import Clock


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


class TestOneCall:
    async def test_sends_system_and_task(self, project):
        task = "  Explain <b>decorators</b>\r\n\u2028 & 'quotes' \\ \U0001f40d\n"
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_agent("python-expert", task)
        body = server.requests[0].body
        assert [block["text"] for block in body["system"]] == [
            "# Python expert\nYou explain Python.\n",
            "Answer in one paragraph.\n",
        ]
        assert body["system"][-1]["cache_control"] == {"type": "ephemeral"}
        assert body["messages"] == [{"role": "user", "content": task}]

    async def test_result_has_all_figures(self, project):
        async with fleet(project) as (orchestrator, _):
            result = await orchestrator.execute_agent(
                "python-expert", "Explain lists", workflow_name="w", workflow_position=3
            )
        assert isinstance(result, AsyncAgentResult)
        assert (result.success, result.errors, result.error) == (True, [], None)
        assert result.output
        assert result.model == MODEL
        assert result.request_id.startswith("req_")
        assert result.stop_reason == "end_turn"
        assert result.attempts == 1
        assert set(result.metadata) == {
            "model",
            "tokens_used",
            "input_tokens",
            "output_tokens",
            "execution_time_ms",
            "workflow_name",
            "workflow_position",
            "cached",
            "estimated_cost",
        }
        assert result.metadata["tokens_used"] == result.usage.total_tokens > 0
        assert (result.metadata["workflow_name"], result.metadata["workflow_position"]) == ("w", 3)
        assert json.loads(json.dumps(result.to_dict()))["output"] == result.output

    async def test_plain_and_streamed_are_equal(self, project):
        async with fleet(project) as (orchestrator, _):
            streamed = await orchestrator.execute_agent("python-expert", "Explain lists")
            orchestrator.stream = False
            plain = await orchestrator.execute_agent("python-expert", "Explain lists")
        assert (plain.output, plain.usage, plain.stop_reason) == (
            streamed.output,
            streamed.usage,
            streamed.stop_reason,
        )

    async def test_plain_answer_may_be_long(self, project):
        async with fleet(project, stream=False) as (orchestrator, _):
            assert (await orchestrator.execute_agent("python-expert", "x", max_tokens=64_000)).success

    async def test_marks_truncated_answer(self, project):
        async with fleet(project) as (orchestrator, _):
            result = await orchestrator.execute_agent("python-expert", "Explain lists", max_tokens=3)
        assert (result.success, result.truncated, result.stop_reason) == (True, True, "max_tokens")

    async def test_model_of_call_wins(self, project):
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_agent("code-reviewer", "x")
            await orchestrator.execute_agent("code-reviewer", "x", model="claude-opus-5-5")
        assert [one.body["model"] for one in server.requests] == ["claude-haiku-5-5", "claude-opus-5-5"]

    async def test_edits_take_effect(self, project):
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_agent("python-expert", "x")
            (project.parent / "python.md").write_text("You are someone else.", encoding="utf-8")
            await orchestrator.execute_agent("python-expert", "x")
        assert server.requests[1].body["system"][0]["text"] == "You are someone else."

    async def test_unknown_model_has_no_price(self, project):
        async with fleet(project) as (orchestrator, _):
            result = await orchestrator.execute_agent("python-expert", "x", model="gemma3-270m")
        assert result.cost is None
        assert result.metadata["estimated_cost"] is None

    async def test_sends_api_options(self, project):
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_agent("python-expert", "x", stop_sequences=["END"])
        assert server.requests[0].body["stop_sequences"] == ["END"]

    async def test_refuses_option_of_no_api(self, project):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match="no_such_option"):
                await orchestrator.execute_agent("python-expert", "x", no_such_option=1)
        assert server.requests == []

    @pytest.mark.parametrize("option", [{"system": "Be rude."}, {"messages": []}, {"stream": False}])
    async def test_refuses_fixed_fields(self, project, option):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match=f"'{next(iter(option))}' can't be set"):
                await orchestrator.execute_agent("python-expert", "x", **option)
        assert server.requests == []

    @pytest.mark.parametrize("name", ["half \ud800", float("nan"), {"deep": [float("inf")]}])
    async def test_refuses_non_json_option(self, project, name):
        async with fleet(project) as (orchestrator, server):
            for _ in range(2):
                with pytest.raises(InvalidOptionError, match="'metadata' can't be written as JSON"):
                    await orchestrator.execute_agent("python-expert", "x", metadata={"user_id": name})
                await orchestrator.execute_agent("python-expert", "x")
            rows = [("python-expert", "y")]
            (row,) = await orchestrator.execute_multiple(rows, metadata={"user_id": name})
            assert isinstance(row.error, InvalidOptionError)
            assert len(server.requests) == 1

    @pytest.mark.parametrize("option", ["temperature", "top_p", "top_k"])
    async def test_version_for_sampling(self, project, option):
        async with fleet(project) as (orchestrator, server):
            for number, options in enumerate([{}, {option: 1}, {}, {option: 1}]):
                assert (await orchestrator.execute_agent("python-expert", f"{number}", **options)).success
        versions = [one.headers["anthropic-version"] for one in server.requests]
        assert versions == ["2026-10-21", "2023-06-01"] * 2
        assert [one.body.get(option) for one in server.requests] == [None, 1] * 2

    async def test_version_of_the_user(self, project, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "anthropic-version: 2025-01-01")
        async with fleet(project) as (orchestrator, server):
            for options in ({}, {"temperature": 0.5}):
                await orchestrator.execute_agent("python-expert", "x", **options)
        assert [one.headers["anthropic-version"] for one in server.requests] == ["2025-01-01"] * 2

    async def test_refuses_unknown_option(self, project):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match="temprature"):
                await orchestrator.execute_agent("python-expert", "x", temprature=0.2)
        assert server.requests == []


class TestBadInput:
    @pytest.mark.parametrize(
        "name", ["../../etc/passwd", "agent; rm -rf /", "agent' OR '1'='1", "", "python-expert\n", None]
    )
    async def test_refuses_bad_name(self, project, name):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidAgentNameError, match="^Invalid agent name"):
                await orchestrator.execute_agent(name, "x")
        assert server.requests == []

    async def test_refuses_100001_characters(self, project):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(ValueError, match="^Task too large"):
                await orchestrator.execute_agent("python-expert", "x" * 100_001)
        assert server.requests == []

    async def test_sends_100000_characters(self, project):
        async with fleet(project) as (orchestrator, _):
            assert (await orchestrator.execute_agent("python-expert", "x" * 100_000)).success

    @pytest.mark.parametrize("task", ["", None, 7])
    async def test_refuses_empty_task(self, project, task):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidTaskError):
                await orchestrator.execute_agent("python-expert", task)
        assert server.requests == []

    async def test_unknown_agent_has_nearest_names(self, project):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(AgentNotFoundError, match=r"^Agent 'python-exprt' not found.*python-expert"):
                await orchestrator.execute_agent("python-exprt", "x")
        assert server.requests == []

    async def test_refuses_link_outside(self, project, tmp_path_factory):
        outside = tmp_path_factory.mktemp("outside") / "secret.md"
        outside.write_text("secret", encoding="utf-8")
        (project.parent / "python.md").unlink()
        (project.parent / "python.md").symlink_to(outside)
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(ConfigurationError):
                await orchestrator.execute_agent("python-expert", "x")
        assert server.requests == []

    @pytest.mark.parametrize(
        "limits",
        [
            {"max_concurrent": 0},
            {"max_concurrent": "many"},
            {"max_retries": 0},
            {"timeout_seconds": -1},
            {"timeout_seconds": float("nan")},
            {"deadline_seconds": 0},
        ],
    )
    def test_refuses_senseless_limits(self, project, limits):
        with pytest.raises(InvalidOptionError, match=next(iter(limits))):
            AsyncAgentOrchestrator(project, **limits)

    @pytest.mark.parametrize("max_tokens", [0, -5, 1.5, "10", True])
    async def test_refuses_bad_max_tokens(self, project, max_tokens):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidOptionError, match="max_tokens"):
                await orchestrator.execute_agent("python-expert", "x", max_tokens=max_tokens)
        assert server.requests == []


class TestBulk:
    async def test_results_are_in_order(self, project):
        tasks = [("python-expert", f"Explain item {number}") for number in range(30)]
        async with fleet(project, {"answer": lambda body: body["messages"][0]["content"]}) as (
            orchestrator,
            _,
        ):
            results = await orchestrator.execute_multiple(tasks)
        assert [result.output for result in results] == [task for _, task in tasks]

    async def test_bad_rows_fail_alone(self, project):
        rows = [
            ("python-expert", "x"),
            ("../x", "x"),
            ("nobody", "x"),
            ("python-expert", ""),
            "nonsense",
            ("a",),
        ]
        async with fleet(project) as (orchestrator, server):
            results = await orchestrator.execute_multiple(rows)
        assert [result.success for result in results] == [True, False, False, False, False, False]
        assert all(isinstance(result.error, InputError) for result in results[1:])
        assert len(server.requests) == 1

    async def test_keeps_max_concurrent(self, project):
        async with fleet(project, {"time_to_first_token": 0.02}, max_concurrent=3) as (orchestrator, server):
            await orchestrator.execute_multiple([("python-expert", f"x {number}") for number in range(12)])
        assert server.max_in_flight == 3

    async def test_backoff_holds_no_slot(self, project):
        waiting = asyncio.Event()
        release = asyncio.Event()

        class HeldClock(FakeClock):
            async def sleep(self, seconds):
                waiting.set()
                await release.wait()

        plan = [faults.status(529)]
        async with fleet(project, {"faults": plan}, max_concurrent=1, clock=HeldClock()) as (orchestrator, _):
            first = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "first"))
            assert await ended(waiting.is_set, 20)
            second = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "second"))
            answered = await ended(second.done, 20), first.done()
            release.set()
            assert answered == (True, False)
            assert (await second).success
            assert (await first).attempts == 2

    async def test_reuses_connections(self, project):
        async with fleet(project, max_concurrent=2) as (orchestrator, server):
            await orchestrator.execute_multiple([("python-expert", f"x {number}") for number in range(20)])
        assert server.connections <= 2

    async def test_set_limit_holds(self, project):
        async with fleet(project, {"time_to_first_token": 0.3}, max_concurrent=2) as (orchestrator, server):
            orchestrator.max_concurrent = 5
            await orchestrator.execute_multiple([("python-expert", f"x {number}") for number in range(10)])
        assert server.max_in_flight == 5

    async def test_set_project_and_key_hold(self, project, tmp_path):
        other = tmp_path / "other" / ".claude" / "agents"
        other.mkdir(parents=True)
        (other / "newcomer.md").write_text("You are new.", encoding="utf-8")
        async with fleet(project) as (orchestrator, server):
            orchestrator.config_path = tmp_path / "other"
            orchestrator.api_key = "another-key"
            assert (await orchestrator.execute_agent("newcomer", "x")).success
        sent = server.requests[0].headers
        assert "another-key" in sent.get("x-api-key", "") + sent.get("authorization", "")

    async def test_no_tasks_no_results(self, project):
        async with fleet(project) as (orchestrator, _):
            assert await orchestrator.execute_multiple([]) == []


class TestTheEnd:
    async def test_cancel_keeps_finished_results(self, project):
        def slow(received):
            return faults.silence_before_first_byte() if "slow" in received.raw.decode() else None

        finished = {}
        async with fleet(project, {"faults": slow}) as (orchestrator, server):
            tasks = [("python-expert", "quick"), ("python-expert", "slow"), ("python-expert", "quick")]
            run = asyncio.ensure_future(orchestrator.execute_multiple(tasks, on_result=finished.__setitem__))
            assert await ended(lambda: len(finished) == 2 and server.in_flight == 1)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            assert await ended(lambda: server.disconnects == 1 and server.in_flight == 0)
        assert sorted(finished) == [0, 2]
        assert all(result.success for result in finished.values())

    async def test_close_ends_calls_in_flight(self, project):
        plan = [faults.silence_before_first_byte()]
        async with fleet(project, {"faults": plan}) as (orchestrator, server):
            call = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "x"))
            assert await ended(lambda: server.in_flight == 1)
            await orchestrator.close()
            result = await call
            assert isinstance(result.error, ClosedError)
            assert await ended(lambda: server.open_connections == 0)

    async def test_leaves_no_task(self, project):
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_multiple([("python-expert", f"x {number}") for number in range(5)])
            await orchestrator.close()
            assert await ended(lambda: server.open_connections == 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_reopens_after_close(self, project):
        async with fleet(project) as (orchestrator, _):
            await orchestrator.execute_agent("python-expert", "x")
            await orchestrator.close()
            assert (await orchestrator.execute_agent("python-expert", "x")).success

    async def test_changes_leave_no_connection(self, project):
        async with fleet(project) as (orchestrator, server):
            for number in range(5):
                orchestrator.timeout_seconds = 10.0 + number
                assert (await orchestrator.execute_agent("python-expert", f"x {number}")).success
            assert await ended(lambda: server.open_connections == 1)
        assert await ended(lambda: server.open_connections == 0)

    async def test_change_keeps_call_in_flight(self, project):
        slow = {"time_to_first_token": 0.3}
        async with fleet(project, slow, clock=Clock()) as (orchestrator, server):
            first = asyncio.ensure_future(orchestrator.execute_agent("python-expert", "x"))
            assert await ended(lambda: server.in_flight == 1)
            orchestrator.timeout_seconds = 20.0
            assert (await orchestrator.execute_agent("python-expert", "y")).success
            assert (await first).success

    async def test_change_keeps_manual_limits(self, project):
        clock = FakeClock()
        async with fleet(project, clock=clock, rpm=60) as (orchestrator, _):
            for number in range(12):
                orchestrator.timeout_seconds = 10.0 + number
                await orchestrator.execute_agent("python-expert", f"x {number}")
        # A tenth of a minute's worth at once, then one each second.
        assert clock.time == pytest.approx(6.0, abs=0.1)

    def test_serves_two_loops_in_turn(self, project):
        with MessagesServer() as server:
            orchestrator = AsyncAgentOrchestrator(project, api_key="test-key", base_url=server.base_url)
            for _ in range(2):
                assert asyncio.run(orchestrator.execute_agent("python-expert", "x")).success
                assert asyncio.run(_nothing_open(server))

    async def test_failing_callback_ends_run(self, project):
        def fail(index, result):
            raise RuntimeError("the callback's own fault")

        async with fleet(project) as (orchestrator, _):
            with pytest.raises(RuntimeError, match="own fault"):
                await orchestrator.execute_multiple(
                    [("python-expert", f"x {number}") for number in range(5)], on_result=fail
                )
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def _nothing_open(server):
    return await ended(lambda: server.open_connections == 0)


class TestDeadline:
    async def test_bounds_a_flowing_answer(self, project):
        slow = {"tokens_per_second": 20, "output_tokens": 400, "answer": lambda body: "word " * 400}
        async with fleet(project, slow, deadline_seconds=0.2) as (orchestrator, server):
            result = await orchestrator.execute_agent("python-expert", "x")
            assert isinstance(result.error, DeadlineExceededError)
            assert await ended(lambda: server.in_flight == 0)

    async def test_too_long_a_wait_fails_at_once(self, project):
        clock = FakeClock()
        plan = {"faults": [faults.status(429, retry_after=60)]}
        async with fleet(project, plan, deadline_seconds=10, clock=clock) as (orchestrator, server):
            result = await orchestrator.execute_agent("python-expert", "x")
        assert isinstance(result.error, DeadlineExceededError)
        assert "60 s" in str(result.error)
        assert clock.slept == []
        assert len(server.requests) == 1


class TestWorkflow:
    async def test_passes_answers_on(self, project):
        async with fleet(project) as (orchestrator, server):
            results = await orchestrator.execute_workflow("review", "Look at this")
        second = server.requests[1].body["messages"][0]["content"]
        assert second.startswith("Look at this\n")
        assert results[0].output in second
        assert [r.metadata["workflow_position"] for r in results] == [1, 2]
        assert {r.metadata["workflow_name"] for r in results} == {"review"}

    async def test_passes_task_alone(self, project):
        async with fleet(project) as (orchestrator, server):
            await orchestrator.execute_workflow("review", "Look at this", pass_output_to_next=False)
        assert [r.body["messages"][0]["content"] for r in server.requests] == ["Look at this"] * 2

    async def test_stops_at_the_first_failure(self, project):
        async with fleet(project, {"faults": [faults.status(400)]}) as (orchestrator, server):
            results = await orchestrator.execute_workflow("review", "x")
        assert [result.success for result in results] == [False]
        assert len(server.requests) == 1

    async def test_step_task_may_be_longer(self, project):
        async with fleet(project) as (orchestrator, server):
            results = await orchestrator.execute_workflow("review", "x" * 99_999)
        assert [result.success for result in results] == [True, True]
        assert len(server.requests[1].body["messages"][0]["content"]) > 100_000

    async def test_refuses_unknown_agent_in_step(self, project):
        async with fleet(project) as (orchestrator, server):
            with pytest.raises(InvalidWorkflowError, match="Agent 'nobody' not found"):
                await orchestrator.execute_workflow("broken", "x")
        assert server.requests == []

    async def test_refuses_unknown_workflow(self, project):
        async with fleet(project) as (orchestrator, _):
            with pytest.raises(WorkflowNotFoundError, match="^Workflow 'nope' not found"):
                await orchestrator.execute_workflow("nope", "x")

    async def test_runs_graph_by_name(self, project):
        async with fleet(project) as (orchestrator, _):
            result = await orchestrator.execute_workflow("graph", "x")
        assert [(step.id, step.status) for step in result.steps] == [("a", "succeeded")]


class TestSecretsAndMoney:
    @pytest.mark.parametrize("address", ["http://[::1", "http://me:pass-word-1@[::1"])
    async def test_bad_address_hides_password(self, project, address):
        async with AsyncAgentOrchestrator(project, api_key="test-key", base_url=address) as orchestrator:
            with pytest.raises(InvalidOptionError, match="ANTHROPIC_BASE_URL") as refused:
                await orchestrator.execute_agent("python-expert", "x")
            (result,) = await orchestrator.execute_multiple([("python-expert", "x")])
        assert isinstance(result.error, InvalidOptionError)
        assert "pass-word-1" not in str(refused.value) + str(result.errors)

    async def test_loopback_switch(self, project):
        async with AsyncAgentOrchestrator(
            project, api_key="test-key", base_url="https://example.invalid"
        ) as o:
            result = await o.execute_agent("python-expert", "x")
        assert isinstance(result.error, PaidCallBlockedError)
        assert result.attempts == 0

    async def test_missing_credentials(self, project, messages_server, monkeypatch):
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        async with AsyncAgentOrchestrator(project) as orchestrator:
            result = await orchestrator.execute_agent("python-expert", "x")
        assert isinstance(result.error, AuthenticationError)
        assert "ANTHROPIC_API_KEY" in str(result.error)
        assert messages_server.requests == []

    async def test_finds_what_the_sdk_finds(self, project, messages_server):
        async with AsyncAgentOrchestrator(project) as orchestrator:
            assert (await orchestrator.execute_agent("python-expert", "x")).success
        assert len(messages_server.requests) == 1

    async def test_auth_token(self, project, messages_server, monkeypatch):
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-1")
        async with AsyncAgentOrchestrator(project) as orchestrator:
            assert (await orchestrator.execute_agent("python-expert", "x")).success
        assert messages_server.requests[0].headers["authorization"] == "Bearer token-1"

    async def test_key_is_shown_nowhere(self, project, caplog):
        key = "sk-ant-api03-THISISSECRET"
        caplog.set_level(logging.DEBUG)
        plan = [faults.status(529), faults.status(401, message=f"invalid key {key}")]
        with MessagesServer(faults=plan) as server:
            async with AsyncAgentOrchestrator(
                project, api_key=key, base_url=server.base_url, clock=FakeClock()
            ) as orchestrator:
                result = await orchestrator.execute_agent("python-expert", "x")
                seen = (
                    repr(orchestrator)
                    + repr(vars(orchestrator._calls))
                    + repr(vars(orchestrator._calls.pool))
                    + repr(result)
                )
        ours = [record for record in caplog.records if record.name.startswith("claude_force")]
        seen += str(result.error) + json.dumps(result.to_dict()) + "".join(str(vars(one)) for one in ours)
        assert ours
        assert "THISISSECRET" not in seen

    async def test_echoed_key_is_in_no_traceback(self, project):
        key = "my-proxy-key-1234"
        with MessagesServer(faults=[faults.status(401, message=f"invalid key {key}")] * 2) as server:
            async with AsyncAgentOrchestrator(project, api_key=key, base_url=server.base_url) as orchestrator:
                # The first request goes another way than all that follow.
                results = [await orchestrator.execute_agent("python-expert", "x") for _ in range(2)]
        for result in results:
            error = result.error
            shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            assert "invalid key ***" in shown
            assert key not in shown

    async def test_log_fields(self, project, caplog):
        caplog.set_level(logging.INFO, logger="claude_force")
        async with fleet(project) as (orchestrator, _):
            await orchestrator.execute_agent("python-expert", "x")
        record = next(one for one in caplog.records if one.name == "claude_force.engine.result_builder")
        assert (record.agent, record.success, record.attempts) == ("python-expert", True, 1)
        assert record.total_tokens > 0
