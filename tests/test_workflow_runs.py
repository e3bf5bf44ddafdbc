"""Workflows against the stand-in server: what is sent, what is saved, and what a resumed run sends again."""

import asyncio
import hashlib
import json
import re
import sqlite3
import threading
from collections import Counter
from contextlib import asynccontextmanager, closing
from itertools import count

import pytest
from fleet import MODEL, FakeClock, write_project
from hypothesis import given, settings
from hypothesis import strategies as some

from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.errors import (
    InputError,
    InvalidTaskError,
    InvalidWorkflowError,
    RunBusyError,
    RunNotFoundError,
)
from claude_force.orchestrator import AgentOrchestrator
from claude_force.testing import MessagesServer, faults
from claude_force.workflow import Step, Workflow
from claude_force.workflow.checkpointer import Checkpointer
from claude_force.workflow.checkpoints import CheckpointStore
from claude_force.workflow.models import Condition, ForEach

PRICES = {MODEL: {"input": 3.0, "output": 15.0}, "claude-haiku-5-5": {"input": 1.0, "output": 5.0}}
SECRET = b"a secret of the tests' own"
AGENTS = ("python-expert", "code-reviewer")


def text_of(received):
    return received.body["messages"][-1]["content"]


def answer(body):
    """Returns a different answer for each request; a JSON list if the task begins with LIST."""
    text = json.dumps([body["system"], body["messages"], body["model"]], sort_keys=True)
    mark = hashlib.sha256(text.encode()).hexdigest()[:12]
    if body["messages"][-1]["content"].startswith("LIST"):
        return json.dumps([mark, "b"])
    return f"{'yes' if int(mark, 16) % 2 else 'no'} {mark} " + "word " * (int(mark, 16) % 40)


def fault(received):
    if "STALL" in text_of(received):
        return faults.silence_in_mid_stream()
    return faults.status(400) if "FAIL" in text_of(received) else None


@pytest.fixture(scope="module")
def server():
    with MessagesServer(answer=answer, faults=fault) as running:
        yield running


@pytest.fixture(autouse=True)
def unasked(server):
    server.requests.clear()


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@asynccontextmanager
async def engine(config, server, folder=None, make=CheckpointStore, **more):
    """An orchestrator for the server. `folder` is that of the store; by default the user's."""
    orchestrator = AsyncAgentOrchestrator(
        config,
        api_key="sk-ant-a-secret-key",
        base_url=server.base_url,
        clock=FakeClock(),
        enable_tracking=False,
        **{"prices": PRICES, **more},
    )
    if folder is not None:
        orchestrator._workflows.checkpointer = Checkpointer(lambda: make(folder, SECRET))
    async with orchestrator:
        yield orchestrator


def shown(result):
    """Returns status, reason and output of each step, without request ids."""
    return {
        one.id: (one.status, re.sub(r"req_\d+", "", one.reason or ""), one.output) for one in result.steps
    }


DIAMOND = Workflow(
    "diamond",
    (
        Step("scan", "python-expert", "scan: ${task}"),
        Step("left", "code-reviewer", "left: ${steps.scan}", ("scan",)),
        Step("right", "python-expert", "right: ${steps.scan}", ("scan",)),
        Step("sum", "code-reviewer", "sum: ${steps.left} ${steps.right}", ("left", "right")),
    ),
)


def steps_asked(server):
    return Counter(text_of(one).partition(":")[0] for one in server.requests)


class TestRun:
    async def test_runs_independent_steps_at_once(self, project):
        with MessagesServer(time_to_first_token=0.05) as server:
            async with engine(project, server) as orchestrator:
                result = await orchestrator.execute_workflow(DIAMOND, "x")
            assert server.max_in_flight == 2
        assert [one.id for one in result.steps] == ["scan", "left", "right", "sum"]

    async def test_result_lists_all_calls(self, project, server):
        async with engine(project, server) as orchestrator:
            result = await orchestrator.execute_workflow(DIAMOND, "x", cache="off")
        assert [one.metadata["workflow_position"] for one in result] == [1, 2, 3, 4]
        assert [one.output for one in result] == [one.output for one in result.steps]
        assert result.output == result.step("sum").output
        assert result.cost == pytest.approx(sum(one.cost for one in result))
        assert result.cost > 0
        json.dumps(result.to_dict())

    async def test_caller_options_override_step(self, project, server):
        workflow = Workflow("w", (Step("a", "python-expert", model="claude-opus-5-5", max_tokens=7),))
        async with engine(project, server) as orchestrator:
            await orchestrator.execute_workflow(workflow, "x")
            await orchestrator.execute_workflow(workflow, "x", max_tokens=9)
        assert [(one.body["model"], one.body["max_tokens"]) for one in server.requests] == [
            ("claude-opus-5-5", 7),
            ("claude-opus-5-5", 9),
        ]

    async def test_inserts_inputs_and_defaults(self, project, server):
        step = Step("a", "python-expert", "${task} in ${inputs.language}: ${inputs.list}")
        workflow = Workflow("w", (step,), inputs={"language": "French", "list": [1, "é"]})
        async with engine(project, server) as orchestrator:
            await orchestrator.execute_workflow(workflow, "Talk", inputs={"list": [2]})
            await orchestrator.execute_workflow(workflow, "Talk", inputs={"language": "German"})
        assert [text_of(one) for one in server.requests] == [
            "Talk in French: [2]",
            'Talk in German: [1, "é"]',
        ]

    async def test_faults_send_and_save_nothing(self, project, server):
        async with engine(project, server) as orchestrator:
            with pytest.raises(InvalidWorkflowError, match="no step uses the input 'x'"):
                await orchestrator.execute_workflow(DIAMOND, "x", inputs={"x": 1})
            with pytest.raises(InvalidTaskError, match="Task is empty"):
                await orchestrator.execute_workflow(DIAMOND, " ")
            with pytest.raises(InvalidTaskError):
                await orchestrator.execute_workflow(DIAMOND)
            assert await orchestrator.runs() == []
        assert server.requests == []

    async def test_skips_dependents_of_failed_step(self, project, server):
        steps = (*DIAMOND.steps[:2], Step("right", "python-expert", "FAIL", ("scan",)), DIAMOND.steps[3])
        async with engine(project, server) as orchestrator:
            result = await orchestrator.execute_workflow(Workflow("w", steps), "x")
            (run,) = await orchestrator.runs()
        assert {one.id: one.status for one in result.steps} == {
            "scan": "succeeded",
            "left": "succeeded",
            "right": "failed",
            "sum": "skipped",
        }
        assert result.step("sum").reason == "it waits for 'right', which failed"
        assert result.output == result.step("left").output
        assert not result.success
        assert run.status == "failed"

    async def test_budget_fails_further_steps(self, project, server):
        async with engine(project, server, budget_usd=0.0001) as orchestrator:
            result = await orchestrator.execute_workflow(DIAMOND, "x")
        assert server.requests == []
        assert "budget" in result.step("scan").reason

    def test_sync_face_runs_workflows(self, project, server):
        with AgentOrchestrator(project, api_key="test-key", base_url=server.base_url) as orchestrator:
            result = orchestrator.run_workflow(DIAMOND, "x")
        assert [one.status for one in result.steps] == ["succeeded"] * 4
        assert "claude-force-journal_0" not in {thread.name for thread in threading.enumerate()}


@some.composite
def graphs(draw, failures=True, closed=False):
    """`closed`: all calls are known beforehand."""
    steps = []
    for number in range(draw(some.integers(1, 6))):
        before = [step.id for step in steps]
        needs = tuple(draw(some.lists(some.sampled_from(before), unique=True, max_size=3))) if before else ()
        lists = [step.id for step in steps if step.id in needs and step.task.startswith("LIST")]
        kind = draw(some.sampled_from(["one", "one", "list", "fail" if failures else "one", "when", "each"]))
        opening = "LIST " if draw(some.booleans()) else ""
        reported = " ".join(f"${{steps.{one}}}" for one in needs)
        foreach, when, item = None, (), ""
        if kind == "list":
            foreach, item = ForEach("list", tuple("xyz"[: draw(some.integers(0, 3))])), "${item}"
        elif kind == "each" and lists and not closed:
            foreach, item = ForEach("step", lists[0]), "${item}"
        elif kind == "when" and needs and not closed:
            when = (Condition(f"steps.{needs[0]}", "contains", "yes"),)
        elif kind == "fail":
            opening += "FAIL "
        task = f"{opening}s{number}: {item} {reported}"
        steps.append(
            Step(
                f"s{number}",
                draw(some.sampled_from(AGENTS)),
                task,
                needs,
                foreach=foreach,
                when=when,
                optional=draw(some.booleans()),
            )
        )
    return Workflow("random", tuple(steps))


def asked(server):
    """Returns how many requests each step made."""
    return Counter(text_of(one).partition(":")[0].split()[-1] for one in server.requests)


class Snapshots(CheckpointStore):
    """Copies the file after each transaction, as a crash would leave it."""

    def __init__(self, folder, secret):
        self._file, self.states = folder / "journal.sqlite", []
        super().__init__(folder, secret)

    def begin(self, run):
        super().begin(run)
        self.states.append(self._file.read_bytes())

    def save(self, kept):
        super().save(kept)
        self.states.append(self._file.read_bytes())


def rows(path, what="step, part"):
    with closing(sqlite3.connect(str(path))) as db:
        return db.execute(f"SELECT {what} FROM answers ORDER BY at").fetchall()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project, and a folder for its store."""
    return write_project(tmp_path_factory.mktemp("place")), tmp_path_factory.mktemp("journal")


@pytest.fixture(scope="module")
def examples(soak):
    """How many graphs hypothesis draws."""
    return 500 if soak else 12


class TestCrashPoints:
    async def ran(self, place, server, workflow, make=CheckpointStore, **more):
        config, folder = place
        server.requests.clear()
        async with engine(config, server, folder, make) as orchestrator:
            return await orchestrator.execute_workflow(workflow, "T", cache="off", **more)

    def test_resumes_after_each_crash(self, place, server, examples):
        @settings(max_examples=examples)
        @given(graphs())
        def holds(workflow):
            asyncio.run(self.at_each(place, server, workflow))

        holds()

    async def at_each(self, place, server, workflow):
        path = place[1] / "journal.sqlite"
        if path.exists():
            path.unlink()
        made = []

        def make(folder, secret):
            made.append(Snapshots(folder, secret))
            return made[-1]

        whole = await self.ran(place, server, workflow, make)
        texts, counts = Counter(map(text_of, server.requests)), asked(server)
        assert len(made[0].states) <= 1 + sum(counts.values())
        for state in made[0].states:
            path.write_bytes(state)
            kept = Counter(step for step, _ in rows(path))
            resumed = await self.ran(place, server, workflow, resume=whole.run_id)
            assert asked(server) == counts - kept
            assert not Counter(map(text_of, server.requests)) - texts
            assert shown(resumed) == shown(whole)
            assert {one.id: one.resumed for one in resumed.steps if one.resumed} == dict(kept)
            assert resumed.cost + resumed.cost_before == pytest.approx(whole.cost)
            assert resumed.saved_cost == pytest.approx(resumed.cost_before)

    async def test_saves_answers_before_dependents(self, place):
        config, folder = place
        needs, path = DIAMOND.needs, folder / "journal.sqlite"
        if path.exists():
            path.unlink()
        missing = []

        def plan(received):
            step = text_of(received).partition(":")[0]
            kept = {one for one, _ in rows(path)}
            missing.extend(one for one in needs[step] if one not in kept)

        with MessagesServer(faults=plan) as server:
            await self.ran((config, folder), server, DIAMOND)
            assert len(server.requests) == 4
        assert missing == []


class TestResume:
    async def test_saved_answers_cost_nothing(self, project, server):
        async with engine(project, server) as orchestrator:
            first = await orchestrator.execute_workflow(DIAMOND, "x", cache="off")
        async with engine(project, server) as orchestrator:
            again = await orchestrator.execute_workflow(DIAMOND, resume=first.run_id, cache="off")
        assert len(server.requests) == 4
        assert again.run_id == first.run_id
        assert (first.cost_before, again.cost) == (0.0, 0.0)
        assert again.saved_cost == pytest.approx(first.cost)
        assert again.cost_before == pytest.approx(first.cost)
        for result, paid in zip(again, first):
            assert (result.cost, result.saved_cost) == (0.0, pytest.approx(paid.cost))
            assert (result.cached, result.attempts, result.output) == (True, 0, paid.output)
            assert result.cache_age >= 0
            assert result.metadata["cached"] is True
        assert [one.resumed for one in again.steps] == [1] * 4

    async def test_resumes_with_saved_task(self, project, server):
        step = Step("a", "python-expert", "${task} ${inputs.x}")
        async with engine(project, server) as orchestrator:
            first = await orchestrator.execute_workflow(Workflow("w", (step,)), "é", inputs={"x": ["ü", 1]})
            again = await orchestrator.execute_workflow(Workflow("w", (step,)), resume=first.run_id)
            other = await orchestrator.execute_workflow(
                Workflow("w", (step,)), resume=first.run_id, inputs={"x": 2}, cache="off"
            )
        assert again.task == "é"
        assert [text_of(one) for one in server.requests] == ['é ["ü", 1]', "é 2"]
        assert [one.steps[0].resumed for one in (first, again, other)] == [0, 1, 0]

    async def test_new_task_reruns_its_users(self, project, server):
        apart = Workflow("w", (*DIAMOND.steps, Step("apart", "python-expert", "apart: alone")))
        async with engine(project, server) as orchestrator:
            first = await orchestrator.execute_workflow(apart, "x", cache="off")
            server.requests.clear()
            again = await orchestrator.execute_workflow(apart, "y", resume=first.run_id, cache="off")
        assert steps_asked(server) == Counter(["scan", "left", "right", "sum"])
        assert again.step("apart").resumed == 1

    async def test_changed_agent_reruns_dependents(self, project, server):
        async with engine(project, server) as orchestrator:
            first = await orchestrator.execute_workflow(DIAMOND, "x", cache="off")
            server.requests.clear()
            reviewer = project.parent / "agents" / "code-reviewer.md"
            reviewer.write_text(reviewer.read_text(encoding="utf-8") + "Be strict.\n", encoding="utf-8")
            await orchestrator.execute_workflow(DIAMOND, resume=first.run_id, cache="off")
        assert steps_asked(server) == Counter(["left", "sum"])

    async def test_same_answer_keeps_dependents(self, project):
        with MessagesServer(answer=lambda body: "the same") as server:
            async with engine(project, server) as orchestrator:
                first = await orchestrator.execute_workflow(DIAMOND, "x", cache="off")
                server.requests.clear()
                again = await orchestrator.execute_workflow(DIAMOND, "y", resume=first.run_id, cache="off")
            assert steps_asked(server) == Counter(["scan"])
        assert [one.resumed for one in again.steps] == [0, 1, 1, 1]

    async def test_runs_changed_files_only(self, project, server):
        for name in "bcd":
            (project.parent.parent / f"{name}.txt").write_text(name, encoding="utf-8")
        step = Step("a", "python-expert", "${item}: ${item.text}", foreach=ForEach("files", "*.txt"))
        workflow = Workflow("w", (step,))
        async with engine(project, server) as orchestrator:
            first = await orchestrator.execute_workflow(workflow, "x", cache="off")
            for expected in ({"a.txt", "c.txt"}, set()):
                server.requests.clear()
                (project.parent.parent / "a.txt").write_text("new", encoding="utf-8")
                (project.parent.parent / "c.txt").write_text("changed", encoding="utf-8")
                again = await orchestrator.execute_workflow(workflow, resume=first.run_id, cache="off")
                assert set(steps_asked(server)) == expected
        assert again.steps[0].labels == ("a.txt", "b.txt", "c.txt", "d.txt")
        assert again.steps[0].resumed == 4

    async def test_equal_parts_keep_their_answers(self, project):
        numbers = count()
        with MessagesServer(answer=lambda body: f"sample {next(numbers)}") as server:
            step = Step("a", "python-expert", "the same", foreach=ForEach("list", ("x", "y", "z")))
            more = Step("a", "python-expert", "the same", foreach=ForEach("list", ("x", "y", "z", "new")))
            async with engine(project, server) as orchestrator:
                first = await orchestrator.execute_workflow(Workflow("w", (step,)), "x", cache="off")
                again = await orchestrator.execute_workflow(
                    Workflow("w", (more,)), resume=first.run_id, cache="off"
                )
        assert len(set(first.steps[0].answers)) == 3
        assert again.steps[0].answers == (*first.steps[0].answers, "sample 3")

    async def test_resumes_failed_run(self, project):
        broken = [True]
        with MessagesServer(
            answer=answer,
            faults=lambda one: faults.status(400) if broken[0] and "right" in text_of(one)[:5] else None,
        ) as server:
            async with engine(project, server) as orchestrator:
                first = await orchestrator.execute_workflow(DIAMOND, "x", cache="off")
                assert not first.success
                broken[0] = False
                server.requests.clear()
                again = await orchestrator.execute_workflow(DIAMOND, resume=first.run_id, cache="off")
                (run,) = await orchestrator.runs()
            assert steps_asked(server) == Counter(["right", "sum"])
        assert again.success
        assert (run.status, run.answers) == ("succeeded", 4)
        assert run.spent == pytest.approx(again.cost + again.cost_before)

    async def test_resumes_cancelled_run(self, project):
        silent = [True]
        with MessagesServer(
            answer=answer,
            faults=lambda one: (
                faults.silence_before_first_byte() if silent[0] and text_of(one)[:4] == "left" else None
            ),
        ) as server:
            async with engine(project, server) as orchestrator:
                ended = asyncio.Event()
                running = asyncio.ensure_future(
                    orchestrator.execute_workflow(
                        DIAMOND, "x", cache="off", on_result=lambda number, _: number == 1 and ended.set()
                    )
                )
                await ended.wait()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                (run,) = await orchestrator.runs()
                assert (run.status, run.answers) == ("interrupted", 2)
                silent[0] = False
                server.requests.clear()
                again = await orchestrator.execute_workflow(DIAMOND, resume=run.id, cache="off")
            assert steps_asked(server) == Counter(["left", "sum"])
        assert again.success

    async def test_an_unknown_run_is_refused(self, project, server):
        async with engine(project, server) as orchestrator:
            with pytest.raises(RunNotFoundError, match="Run 'nobody' not found"):
                await orchestrator.execute_workflow(DIAMOND, resume="nobody")

    async def test_refuses_run_of_other_workflow(self, project, server):
        async with engine(project, server) as orchestrator:
            first = await orchestrator.execute_workflow(DIAMOND, "x")
            with pytest.raises(InputError, match="is of the workflow 'diamond', not of 'review'"):
                await orchestrator.execute_workflow("review", resume=first.run_id)
            assert (await orchestrator.execute_workflow(DIAMOND, resume=first.run_id)).success

    async def test_refuses_running_run(self, project):
        with MessagesServer(answer=answer, time_to_first_token=0.05) as server:
            async with engine(project, server) as orchestrator, engine(project, server) as other:
                began = asyncio.Event()
                running = asyncio.ensure_future(
                    orchestrator.execute_workflow(DIAMOND, "x", on_step=lambda event: began.set())
                )
                await began.wait()
                (run,) = await other.runs()
                with pytest.raises(RunBusyError, match="is running"):
                    await other.execute_workflow(DIAMOND, resume=run.id)
                await running
                assert (await other.execute_workflow(DIAMOND, resume=run.id)).success

    async def test_failed_resume_releases_run(self, project, server):
        async with engine(project, server) as orchestrator, engine(project, server) as other:
            first = await orchestrator.execute_workflow(DIAMOND, "x")
            with pytest.raises(InvalidTaskError):
                await orchestrator.execute_workflow(DIAMOND, " ", resume=first.run_id)
            running = asyncio.ensure_future(orchestrator.execute_workflow(DIAMOND, resume=first.run_id))
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await orchestrator.runs()
            assert (await other.execute_workflow(DIAMOND, resume=first.run_id)).success

    async def test_counts_cost_of_cancelled_call(self, project, server):
        workflow = Workflow("one", (Step("a", AGENTS[0], max_tokens=1000),))
        async with engine(project, server) as orchestrator:
            running = asyncio.ensure_future(orchestrator.execute_workflow(workflow, "STALL"))
            while not server.requests:
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            (run,) = await orchestrator.runs()
        assert (run.status, run.answers) == ("interrupted", 0)
        # 1,000 tokens of an answer, and a short prompt.
        assert 0.015 < run.spent < 0.02

    async def test_run_cancelled_at_start_has_ended(self, project, server):
        async with engine(project, server) as orchestrator:
            running = asyncio.ensure_future(orchestrator.execute_workflow(DIAMOND, "x"))
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            (run,) = await orchestrator.runs()
        assert run.status == "interrupted"
        assert server.requests == []

    async def test_saves_cached_answers(self, project, server):
        async with engine(project, server) as orchestrator:
            paid = await orchestrator.execute_workflow(DIAMOND, "x")
            first = await orchestrator.execute_workflow(DIAMOND, "x")
            assert first.cost == 0.0
            again = await orchestrator.execute_workflow(DIAMOND, resume=first.run_id, cache="off")
        assert len(server.requests) == 4
        assert again.saved_cost == pytest.approx(paid.cost)
        assert again.cost_before == 0.0


class TestPlan:
    async def test_plan_sends_and_saves_nothing(self, project, server):
        async with engine(project, server) as orchestrator:
            plan = await orchestrator.plan(DIAMOND, "x")
            assert await orchestrator.runs() == []
        assert server.requests == []
        assert plan.levels == [["scan"], ["left", "right"], ["sum"]]
        assert [(one.step.id, one.level, one.calls) for one in plan.steps][-1] == ("sum", 3, 1)
        assert plan.estimate.rows == 4

    async def test_calls_of_answered_list_are_unknown(self, project, server):
        steps = (
            Step("a", "python-expert", "LIST a:"),
            Step("b", "python-expert", "b: ${item}", ("a",), foreach=ForEach("step", "a")),
            Step("c", "python-expert", "c: ${item}", foreach=ForEach("list", ("x", "y", "z"))),
        )
        async with engine(project, server) as orchestrator:
            plan = await orchestrator.plan(Workflow("w", steps), "x")
        assert {one.step.id: one.calls for one in plan.steps} == {"a": 1, "b": None, "c": 3}

    async def test_longest_answers_fit_in_memory(self, project, server):
        async with engine(project, server) as orchestrator:
            plan = await orchestrator.plan(DIAMOND, "x", max_tokens=10**13)
        assert plan.estimate.output_tokens.high == 4e13

    async def test_it_has_the_faults_of_a_run(self, project, server):
        async with engine(project, server) as orchestrator:
            with pytest.raises(InvalidWorkflowError):
                await orchestrator.plan("broken", "x")
            with pytest.raises(InvalidTaskError):
                await orchestrator.plan(DIAMOND, " ")

    async def test_cached_calls_cost_nothing(self, project, server):
        async with engine(project, server) as orchestrator:
            await orchestrator.execute_workflow("graph", "x")
            plan = await orchestrator.plan("graph", "x")
        assert (plan.estimate.cached, plan.estimate.cost.high) == (1, 0.0)

    def test_cost_of_run_is_in_range(self, project, server, examples):
        async def work(workflow):
            async with engine(project, server) as orchestrator:
                plan = await orchestrator.plan(workflow, "T", cache="off", max_tokens=400)
                assert not server.requests
                result = await orchestrator.execute_workflow(workflow, "T", cache="off", max_tokens=400)
            return plan, result

        @settings(max_examples=examples)
        @given(graphs(failures=False, closed=True))
        def holds(workflow):
            server.requests.clear()
            plan, result = asyncio.run(work(workflow))
            assert plan.estimate.rows == len(server.requests)
            assert plan.estimate.cost.low <= result.cost <= plan.estimate.cost.high
            assert plan.estimate.output_tokens.high <= 400 * plan.estimate.rows

        holds()
