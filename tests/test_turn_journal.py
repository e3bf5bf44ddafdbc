"""What a workflow keeps of the turns of its agents, and what a resumed run does with it."""

import json
import sqlite3
from contextlib import closing

import pytest
from tool_agents import AGENT, Answer, Notes, agents, call, calls, results_in, script

from claude_force import AsyncAgentOrchestrator, Step, Workflow
from claude_force.conversation import ToolResult
from claude_force.testing import MessagesServer, Script, faults, tool_calls
from claude_force.workflow.turn_checkpoints import dump_result, load_result

LOOK = calls(call("t1", "Look", path="a"))
NOTE = calls(call("t2", "Note", path="b"))
FLOW = Workflow("flow", (Step("do", AGENT),))


def journal(home):
    return closing(sqlite3.connect(str(home / ".claude" / "runs" / "journal.sqlite")))


def kept(home):
    with journal(home) as store:
        return [row[0] for row in store.execute("SELECT kind FROM turns ORDER BY rowid")]


class Failing:
    """A script that answers with an error from a turn on, until `heal`."""

    def __init__(self, plan, turn, answer=None):
        self._plan, self._turn, self._answer = plan, turn, answer or Answer(status=400)
        self.is_healed = False

    def __call__(self, body):
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        return self._answer if turn == self._turn and not self.is_healed else self._plan(body)


async def test_failed_turn_is_asked_again_and_no_other(project, clean_environment):
    plan, tools = Failing(script(LOOK, NOTE), 2), Notes()
    async with agents(project, plan, tools) as (orchestrator, server):
        first = await orchestrator.execute_workflow(FLOW, "Do", tools="bash")
        assert not first.success and len(server.requests) == 3
        plan.is_healed = True
        second = await orchestrator.execute_workflow(FLOW, resume=first.run_id, tools="bash")
    assert second.success and len(server.requests) == 4
    assert [name for name, _ in tools.ran] == ["Look", "Note"]
    result = second[0]
    assert [turn.cached for turn in result.turns] == [True, True, False]
    assert [one.name for one in result.tool_calls] == ["Look", "Note"]
    assert result.cost == pytest.approx(result.turns[-1].cost)
    assert second.cost_before == pytest.approx(sum(turn.cost for turn in first[0].turns[:2]))
    assert kept(clean_environment) == []


async def test_cost_of_turns_is_counted_once(project):
    async with agents(project, script(LOOK, NOTE), Notes()) as (orchestrator, server):
        done = await orchestrator.execute_workflow(FLOW, "Do", tools="bash")
        (run,) = await orchestrator.runs()
    assert run.spent == pytest.approx(done.cost) == pytest.approx(sum(server.billed.values()))


async def test_refused_answer_is_asked_anew(project, clean_environment):
    plan = Failing(script(LOOK), 1, Answer("No.", "refusal"))
    async with agents(project, plan, Notes()) as (orchestrator, server):
        first = await orchestrator.execute_workflow(FLOW, "Do", tools="bash")
        assert kept(clean_environment) == ["answered", "ended"]
        plan.is_healed = True
        second = await orchestrator.execute_workflow(FLOW, resume=first.run_id, tools="bash")
    assert second.success and len(server.requests) == 3


async def test_step_that_is_tried_again_goes_on(project):
    failures = iter([Answer(status=529)] * 3)
    plan = script(LOOK, NOTE)

    def unreliable(body):
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        return next(failures, None) or plan(body) if turn == 2 else plan(body)

    tools = Notes()
    async with agents(project, unreliable, tools, max_retries=3) as (orchestrator, server):
        flow = Workflow("flow", (Step("do", AGENT, retries=1),))
        done = await orchestrator.execute_workflow(flow, "Do", tools="bash")
        (run,) = await orchestrator.runs()
    assert done.success and [name for name, _ in tools.ran] == ["Look", "Note"]
    assert len(server.requests) == 3 + 2 + 1
    assert run.spent == pytest.approx(sum(server.billed.values()))


async def test_another_question_begins_anew(project):
    plan = Failing(script(LOOK), 1)
    tools = Notes()
    async with agents(project, plan, tools) as (orchestrator, _):
        first = await orchestrator.execute_workflow(FLOW, "Do", tools="bash")
        plan.is_healed = True
        done = await orchestrator.execute_workflow(FLOW, "Do that", resume=first.run_id, tools="bash")
    assert done.success and [turn.cached for turn in done[0].turns] == [False, False]
    assert [name for name, _ in tools.ran] == ["Look", "Look"]


@pytest.mark.parametrize(
    "change",
    ["content = '{}'", "turn = 'x'", "signature = x'00'", "kind = 'ended'", "position = 9"],
)
async def test_forged_turn_is_not_used(project, clean_environment, change):
    plan = Failing(script(LOOK), 1)
    async with agents(project, plan, Notes()) as (orchestrator, server):
        first = await orchestrator.execute_workflow(FLOW, "Do", tools="bash")
        with journal(clean_environment) as store:
            store.execute(f"UPDATE turns SET {change} WHERE kind = 'answered'")
            store.commit()
        plan.is_healed = True
        done = await orchestrator.execute_workflow(FLOW, resume=first.run_id, tools="bash")
    assert done.success and len(server.requests) == 4


async def test_interrupted_call_is_told_and_not_run(project, clean_environment):
    plan, tools = Failing(script(NOTE), 1), Notes()
    async with agents(project, plan, tools) as (orchestrator, server):
        first = await orchestrator.execute_workflow(FLOW, "Do", tools="bash")
        with journal(clean_environment) as store:
            # As a kill leaves it.
            store.execute("DELETE FROM turns WHERE kind = 'ended'")
            store.commit()
        plan.is_healed = True
        done = await orchestrator.execute_workflow(FLOW, resume=first.run_id, tools="bash")
    assert len(tools.ran) == 1
    ((_, text, is_error),) = results_in(server.requests[-1])
    assert is_error and text.startswith("Interrupted: it may or may not have run.")
    assert done.success and "Interrupted" in done[0].tool_calls[0].error


async def test_state_of_the_tools_is_restored_before_the_next_call(project):
    class Stateful(Notes):
        restored = ()

        async def state(self):
            return f"after {len(self.ran)}"

        async def restore(self, state):
            self.restored = (*self.restored, (state, len(self.ran)))

    plan, tools = Failing(script(LOOK, NOTE, calls(call("t3", "Note", path="c"))), 2), Stateful()
    async with agents(project, plan, tools) as (orchestrator, _):
        first = await orchestrator.execute_workflow(FLOW, "Do", tools="bash")
        plan.is_healed = True
        await orchestrator.execute_workflow(FLOW, resume=first.run_id, tools="bash")
    assert tools.restored == (("after 2", 2),)
    assert len(tools.ran) == 3


def test_results_of_all_kinds_are_kept():
    image = ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}},)
    for result in (ToolResult("x\ud800"), ToolResult(image), ToolResult("no", True, True)):
        assert load_result(dump_result(result, "s")) == (result, "s")
    for wrong in ("{}", "[]", json.dumps({"content": 3, "is_error": 1, "is_denied": 1, "state": ""})):
        with pytest.raises((ValueError, TypeError, KeyError)):
            load_result(wrong)


class TestCopies:
    """Steps that edit work in a copy of the project, which a resumed run makes anew."""

    EDITS = (
        tool_calls(("Write", {"file_path": "new.txt", "content": "one\n"})),
        tool_calls(("Edit", {"file_path": "new.txt", "old_string": "one", "new_string": "two"})),
    )

    @pytest.fixture
    def team(self, tmp_path):
        (tmp_path / ".claude" / "agents").mkdir(parents=True)
        (tmp_path / ".claude" / "agents" / "worker.md").write_text("---\nname: worker\n---\nYou work.\n")
        (tmp_path / "a.txt").write_text("a\n", encoding="utf-8")
        return tmp_path

    async def run(self, team, server, resume=None):
        async with AsyncAgentOrchestrator(
            team, base_url=server.base_url, api_key="x", enable_cache=False, max_retries=1
        ) as orchestrator:
            flow = Workflow("flow", (Step("do", "worker"),))
            task = None if resume else "Work"
            return await orchestrator.execute_workflow(flow, task, resume=resume, tools="edit")

    async def test_changes_are_made_again(self, team):
        plan = [None, None, faults.status(400)]
        with MessagesServer(answer=Script([*self.EDITS, "Done."]), faults=plan) as server:
            first = await self.run(team, server)
            assert not first.success and "+two" in first[0].patch
            done = await self.run(team, server, first.run_id)
            assert len(server.requests) == 4
        assert done.success and done[0].changed_files == ("new.txt",)
        assert done[0].patch == first[0].patch
        assert not (team / "new.txt").exists()

    async def test_next_call_finds_them(self, team):
        plan = [None, faults.status(400)]
        with MessagesServer(answer=Script([*self.EDITS, "Done."]), faults=plan) as server:
            first = await self.run(team, server)
            done = await self.run(team, server, first.run_id)
        assert done.success and "+two" in done[0].patch and "one" not in done[0].patch
        assert not any(call.error for call in done[0].tool_calls)

    async def test_project_that_does_not_fit_any_more_is_an_error(self, team):
        with MessagesServer(
            answer=Script([*self.EDITS, "Done."]), faults=[None, faults.status(400)]
        ) as server:
            first = await self.run(team, server)
            (team / "new.txt").write_text("somebody else's\n", encoding="utf-8")
            done = await self.run(team, server, first.run_id)
        assert not done.success and "does not fit" in done[0].errors[0]
