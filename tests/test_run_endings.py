"""Errors that every other call would meet end a run, and nothing is sent after them."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from fleet import MODEL, FakeClock, command, fleet, write_project

from claude_force import errors
from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.cli.main import main
from claude_force.limits.run_gate import RunGate
from claude_force.orchestrator import AgentOrchestrator
from claude_force.testing import MessagesServer, faults

DEAD = "http://127.0.0.1:1"
CREDIT = "Your credit balance is too low to access the Anthropic API."
LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-12-01."
DISABLED = "This organization has been disabled."
LITELLM = {"error": {"message": "Budget has been exceeded!", "type": "budget_exceeded", "code": "400"}}
INSIDE_200 = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
FATAL = {
    "wrong key": (faults.status(401), errors.AuthenticationError),
    "no payment": (faults.status(402), errors.SpendLimitError),
    "no credit": (faults.status(400, message=CREDIT), errors.SpendLimitError),
    "usage limit": (faults.status(400, message=LIMIT), errors.SpendLimitError),
    "spend limit": (faults.status(429, error_code="enforced_spend_limit_reached"), errors.SpendLimitError),
    "budget of a gateway": (faults.body(LITELLM, 400), errors.SpendLimitError),
    "disabled": (faults.status(403, message=DISABLED), errors.PermissionDeniedError),
    "disabled, 400": (faults.status(400, message=DISABLED), errors.PermissionDeniedError),
    "no permission": (faults.status(403), errors.PermissionDeniedError),
    "unknown model": (faults.status(404), errors.ModelNotFoundError),
    "wrong path": (faults.body("<html><title>404</title>", 404, "text/html"), errors.ModelNotFoundError),
    "wrong key in a 200": (faults.body(INSIDE_200), errors.AuthenticationError),
}
ROWS = 200
ROOT = str(Path(__file__).parent.parent)
MANY = ("run", "many", "t.jsonl", "-o", "out.jsonl")
CONCURRENT = [1, 10, "auto", 60]


def most(concurrent):
    """Requests that may be sent before the first answer."""
    return 10 if concurrent == "auto" else concurrent


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.fixture(params=FATAL)
def fatal(request):
    return FATAL[request.param]


def tasks(count=ROWS, agent="python-expert"):
    return [(agent, f"Task {number}") for number in range(count)]


class TestLibrary:
    @pytest.mark.parametrize("concurrent", CONCURRENT)
    async def test_stops_after_fatal_answer(self, project, fatal, concurrent):
        fault, kind = fatal
        limits = {"max_concurrent": concurrent, "clock": None}
        async with fleet(project, {"faults": lambda _: fault}, **limits) as (orchestrator, server):
            results = await orchestrator.execute_multiple(tasks())
            assert len(server.requests) <= most(concurrent)
            assert {type(one.error) for one in results} == {kind}
            sent = [one for one in results if not one.error.skipped]
            assert sum(one.attempts for one in results) == len(server.requests) == len(sent)
            assert [one.index for one in results] == list(range(ROWS))

    async def test_a_slow_answer_is_not_overtaken(self, project):
        server = {"faults": lambda _: faults.status(401), "rate_limit": None}
        async with fleet(project, server, max_concurrent=3, clock=None) as (orchestrator, running):
            await orchestrator.execute_multiple(tasks(50))
            assert len(running.requests) <= 3

    async def test_skipped_rows_are_not_recorded(self, project):
        reported = []
        server = {"faults": lambda _: faults.status(401, message="bad key")}
        async with fleet(project, server, max_concurrent=2, observers=[reported.append]) as (
            orchestrator,
            running,
        ):
            results = await orchestrator.execute_multiple(tasks(40))
            assert len(reported) == len(running.requests) <= 2
            unsent = results[-1]
            assert unsent.error.skipped
            assert "Not sent" in str(unsent.error)
            assert "bad key" in str(unsent.error)
            assert (unsent.attempts, unsent.cost, unsent.request_id) == (0, None, None)
            assert orchestrator.get_performance_summary()["executions"] <= 2

    async def test_what_was_answered_before_stays(self, project):
        plan = [None] * 5
        later = iter(plan)
        server = {"faults": lambda _: next(later, faults.status(402))}
        async with fleet(project, server, max_concurrent=1) as (orchestrator, running):
            results = await orchestrator.execute_multiple(tasks(30))
        assert [one.success for one in results] == [True] * 5 + [False] * 25
        assert len(running.requests) == 6

    async def test_the_next_run_begins_anew(self, project):
        plan = iter([faults.status(401)])
        async with fleet(project, {"faults": plan}, max_concurrent=1) as (orchestrator, _):
            first = await orchestrator.execute_multiple(tasks(10))
            second = await orchestrator.execute_multiple(tasks(10))
        assert not any(one.success for one in first)
        assert all(one.success for one in second)

    async def test_other_run_goes_on(self, project):
        def plan(received):
            bad = received.body["messages"][0]["content"].startswith("Task")
            return faults.status(402) if bad else None

        async with fleet(project, {"faults": plan}, max_concurrent=4) as (orchestrator, _):
            other = [("python-expert", f"Other {number}") for number in range(40)]
            ended, whole = await asyncio.gather(
                orchestrator.execute_multiple(tasks(40)), orchestrator.execute_multiple(other)
            )
        assert not any(one.success for one in ended)
        assert all(one.success for one in whole)

    async def test_joined_rows_of_other_run_go_on(self, project):
        same = [("python-expert", f"Same {number}") for number in range(6)]

        def plan(received):
            return faults.status(402) if "Task" in received.body["messages"][0]["content"] else None

        async with fleet(project, {"faults": plan}, max_concurrent=1) as (orchestrator, _):
            _, whole = await asyncio.gather(
                orchestrator.execute_multiple([*tasks(1), *same]), orchestrator.execute_multiple(same)
            )
        assert [one.error for one in whole] == [None] * 6

    async def test_ends_rows_in_backoff(self, project):
        def plan(received):
            first = received.body["messages"][0]["content"] == "Task 0"
            return faults.status(500, retry_after=3000) if first else faults.status(401)

        async with fleet(project, {"faults": plan}, max_concurrent=1, clock=None) as (orchestrator, running):
            results = await asyncio.wait_for(orchestrator.execute_multiple(tasks(5)), 20)
        assert len(running.requests) == 2
        assert results[0].error.skipped
        assert results[0].attempts == 1

    async def test_ends_rows_waiting_for_limit(self, project):
        limits = {"rpm": 60, "clock": None, "max_concurrent": 5}
        async with fleet(project, {"faults": lambda _: faults.status(401)}, **limits) as (
            orchestrator,
            running,
        ):
            await asyncio.wait_for(orchestrator.execute_multiple(tasks(100)), 20)
            assert len(running.requests) <= 5

    async def test_the_stream_gives_every_row_too(self, project):
        async with fleet(project, {"faults": lambda _: faults.status(401)}) as (orchestrator, running):
            source = (one for one in tasks(120))
            found = [one.index async for one in orchestrator.stream_multiple(source, in_order=True)]
            assert found == list(range(120))
            assert len(running.requests) <= 10

    def test_the_sync_face_too(self, project):
        with MessagesServer(faults=lambda _: faults.status(401)) as server:
            with AgentOrchestrator(project, api_key="k", base_url=server.base_url) as orchestrator:
                results = orchestrator.run_multiple(tasks())
        assert {type(one.error) for one in results} == {errors.AuthenticationError}
        assert len(server.requests) <= 10

    async def test_dead_endpoint_ends_run(self, project):
        async with AsyncAgentOrchestrator(project, api_key="k", base_url=DEAD, clock=FakeClock()) as running:
            results = await running.execute_multiple(tasks(2000))
        assert {type(one.error) for one in results} == {errors.ConnectionFailedError}
        assert sum(one.attempts for one in results) < 200
        met = [one for one in results if not one.error.skipped]
        assert {one.attempts for one in met} == {3}
        assert "127.0.0.1:1" in str(met[0].error)

    @pytest.mark.parametrize("concurrent", CONCURRENT)
    async def test_few_rows_try_dead_endpoint(self, project, concurrent):
        limits = {"api_key": "k", "base_url": DEAD, "max_concurrent": concurrent}
        async with AsyncAgentOrchestrator(project, **limits) as running:
            results = await running.execute_multiple(tasks(2000))
        assert sum(one.attempts for one in results) <= 5 * max(10, most(concurrent))

    @pytest.mark.parametrize("fault", [faults.reset(), faults.silence_before_first_byte()])
    async def test_silent_endpoint_ends_run(self, project, fault):
        limits = {"max_concurrent": 10, "timeout_seconds": 0.3, "clock": None}
        async with fleet(project, {"faults": lambda _: fault}, **limits) as (orchestrator, server):
            results = await orchestrator.execute_multiple(tasks(400))
            assert len(server.requests) < 200
        assert all(one.error for one in results)
        assert results[-1].error.skipped

    async def test_next_run_starts_fresh(self, project):
        plan = iter([faults.reset()] * 60)
        limits = {"max_concurrent": 10, "clock": None, "max_retries": 1}
        async with fleet(project, {"faults": lambda _: next(plan, None)}, **limits) as (orchestrator, _):
            first = await orchestrator.execute_multiple(tasks(100))
            assert first[-1].error.skipped
            while next(plan, None):
                pass
            second = await orchestrator.execute_multiple(tasks(30))
        assert all(one.success for one in second)

    async def test_endpoint_dying_mid_run_ends_it(self, project):
        async with fleet(project, {}, max_concurrent=4) as (orchestrator, server):
            done = []

            def on_result(_, result):
                done.append(result)
                if len(done) == 20:
                    server.stop()

            results = await orchestrator.execute_multiple(tasks(2000), on_result)
        assert sum(one.success for one in results) >= 20
        assert sum(one.attempts for one in results) < 400

    async def test_resets_do_not_end_it(self, project):
        async with fleet(project, {"faults": [faults.reset()] * 3}, max_concurrent=1) as (orchestrator, _):
            results = await orchestrator.execute_multiple(tasks(3))
        assert results[2].success

    async def test_unknown_model_fails_its_rows(self, project):
        def plan(received):
            return None if received.body["model"] == MODEL else faults.status(404)

        mixed = [one for pair in zip(tasks(50), tasks(50, "code-reviewer")) for one in pair]
        async with fleet(project, {"faults": plan}, max_concurrent=4) as (orchestrator, server):
            results = await orchestrator.execute_multiple(mixed)
        assert [one.success for one in results] == [True, False] * 50
        assert len(server.requests) <= 50 + 4

    @pytest.mark.parametrize("code", [400, 413, 422])
    async def test_bad_row_ends_nothing(self, project, code):
        async with fleet(project, {"faults": [faults.status(code)]}, max_concurrent=1) as (orchestrator, _):
            results = await orchestrator.execute_multiple(tasks(5))
        assert [one.success for one in results] == [False, True, True, True, True]

    async def test_a_firewalls_403_ends_nothing(self, project):
        page = faults.body("<html><title>Blocked</title></html>", 403, "text/html")
        async with fleet(project, {"faults": [page]}, max_concurrent=1) as (orchestrator, _):
            results = await orchestrator.execute_multiple(tasks(5))
        assert [one.success for one in results] == [False, True, True, True, True]

    async def test_retryable_401_is_retried(self, project):
        plan = [faults.status(401, headers={"x-should-retry": "true"})]
        async with fleet(project, {"faults": plan}, max_concurrent=1) as (orchestrator, server):
            results = await orchestrator.execute_multiple(tasks(5))
        assert all(one.success for one in results)
        assert len(server.requests) == 6

    async def test_a_gate_from_outside_ends_it(self, project):
        gate, results = RunGate(), []
        async with fleet(project, {}, max_concurrent=1) as (orchestrator, server):
            async for result in orchestrator._calls.stream(tasks(20), gate, {}):
                results.append(result)
                gate.shut(errors.ClosedError("enough"))
        assert len(results) == 20
        assert len(server.requests) < 10


class TestCommand:
    @pytest.fixture(autouse=True)
    def place(self, project, monkeypatch):
        monkeypatch.chdir(project.parent.parent)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")

    def run(self, monkeypatch, fault, *more, rows=ROWS):
        """The exit code and the server, of a run over rows in a file."""
        lines = [json.dumps({"agent": agent, "task": task}) for agent, task in tasks(rows)]
        Path("t.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return self.again(monkeypatch, fault, *more)

    def again(self, monkeypatch, fault, *more):
        with MessagesServer(faults=fault if callable(fault) else lambda _: fault) as server:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
            return main(["run", "many", "t.jsonl", "-o", "out.jsonl", *more]), server

    def lines(self):
        found = Path("out.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in found]

    @pytest.mark.parametrize("concurrent", CONCURRENT)
    def test_ends_at_the_first_answer(self, monkeypatch, capsys, fatal, concurrent):
        code, server = self.run(monkeypatch, fatal[0], "--max-concurrent", str(concurrent))
        assert (code, self.lines()) == (1, [])
        assert len(server.requests) <= most(concurrent)
        said = capsys.readouterr().err.splitlines()
        assert len([line for line in said if "error:" in line]) == 1
        assert len(said) <= 5, said

    def test_goes_on_where_it_ended(self, monkeypatch, capsys):
        plan = iter([None] * 7)
        code, _ = self.run(monkeypatch, lambda _: next(plan, faults.status(402)), "--max-concurrent", "1")
        assert (code, len(self.lines())) == (1, 7)
        code, server = self.again(monkeypatch, None)
        assert (code, len(server.requests)) == (0, ROWS - 7)

    def test_names_a_dead_endpoint_once(self, monkeypatch, capsys):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", DEAD)
        lines = [json.dumps({"agent": agent, "task": task}) for agent, task in tasks(156)]
        Path("t.jsonl").write_text("\n".join(lines), encoding="utf-8")
        code = main(["run", "many", "t.jsonl", "-o", "out.jsonl"])
        said = capsys.readouterr().err.splitlines()
        assert (code, self.lines()) == (1, [])
        assert len([line for line in said if "127.0.0.1:1" in line]) == 1
        assert len(said) <= 5, said

    def test_names_an_unknown_host(self, monkeypatch, capsys):
        monkeypatch.delenv("CLAUDE_FORCE_LOOPBACK_ONLY")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://no-such-host.invalid:9")
        Path("t.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n' * 30, encoding="utf-8")
        assert main(["run", "many", "t.jsonl", "-o", "out.jsonl", "--max-retries", "1"]) == 1
        said = capsys.readouterr().err
        assert "no-such-host.invalid" in said
        assert len(said.splitlines()) <= 5

    def mixed(self):
        agents = ("python-expert", "code-reviewer")
        lines = [json.dumps({"agent": agents[number % 2], "task": f"Task {number}"}) for number in range(60)]
        Path("t.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def test_unknown_model_fails_some_rows(self, monkeypatch):
        self.mixed()

        def plan(received):
            return None if received.body["model"] == MODEL else faults.status(404)

        code, server = self.again(monkeypatch, plan, "--max-concurrent", "4")
        found = self.lines()
        assert (code, len(found)) == (3, 60)
        assert {one["agent"] for one in found if one["success"]} == {"python-expert"}
        assert sum(one["success"] for one in found) == 30
        assert len(server.requests) <= 30 + 4

    def test_unknown_model_of_all_rows_ends_run(self, monkeypatch):
        self.mixed()
        more = ("--model", "claude-none-9", "--max-concurrent", "4")
        code, server = self.again(monkeypatch, faults.status(404), *more)
        assert (code, self.lines()) == (1, [])
        assert len(server.requests) <= 4

    def test_two_unknown_models_end_run(self, monkeypatch):
        self.mixed()
        code, server = self.again(monkeypatch, faults.status(404), "--max-concurrent", "4")
        assert (code, self.lines()) == (1, [])
        assert len(server.requests) <= 8

    @pytest.mark.skipif(sys.platform == "win32", reason="a limit of POSIX")
    def test_unwritable_output_ends_run(self, monkeypatch):
        import resource

        def no_large_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

        Path("t.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n' * ROWS, encoding="utf-8")
        with MessagesServer(answer=lambda _: "x" * 1000, time_to_first_token=0.05) as server:
            environment = {**os.environ, **server.environment(), "PYTHONPATH": ROOT}
            more = ("--max-concurrent", "2", "--cache", "off")
            done = command(*MANY, *more, env=environment, preexec_fn=no_large_files)
        written = len(self.lines())
        assert done.returncode == 1
        assert 0 < written < ROWS
        # Room is held for each answer on the wire, so none is lost.
        assert len(server.requests) == written
        assert b"out.jsonl can't be written" in done.stderr

    def test_a_step_over_a_list_ends_too(self, monkeypatch, capsys):
        items = [f"item {number}" for number in range(ROWS)]
        config = json.loads(Path(".claude/claude.json").read_text(encoding="utf-8"))
        step = {"id": "each", "agent": "python-expert", "foreach": items, "task": "Look at {item}"}
        config["workflows"]["all"] = {"steps": [step]}
        Path(".claude/claude.json").write_text(json.dumps(config), encoding="utf-8")
        with MessagesServer(faults=lambda _: faults.status(401)) as server:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
            assert main(["run", "workflow", "all", "--task", "x"]) == 1
        assert len(server.requests) <= 10
        said = capsys.readouterr()
        assert (said.err + said.out).count("invalid x-api-key") == 1
        assert len((said.err + said.out).splitlines()) < 12

    def test_other_process_reports_the_same(self, project):
        Path("t.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n' * 300, encoding="utf-8")
        environment = {
            **os.environ,
            "ANTHROPIC_BASE_URL": DEAD,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        done = command("run", "many", "t.jsonl", "-o", "out.jsonl", env=environment)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) <= 5
