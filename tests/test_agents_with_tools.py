"""Agents with their real tools, by the public classes: what a grant allows, what is sent, what is changed."""

import json

import pytest
from fleet import FakeClock

from claude_force import AgentOrchestrator, AsyncAgentOrchestrator, Step, Workflow
from claude_force.errors import InvalidOptionError, InvalidWorkflowError
from claude_force.testing import MessagesServer, Script, tool_calls

READ = ("Read", {"file_path": "notes.txt"})


@pytest.fixture
def team(tmp_path):
    """A project with a file, and an agent that declares Read, Grep and Edit."""
    folder = tmp_path / "team" / ".claude" / "agents"
    folder.mkdir(parents=True)
    (folder / "worker.md").write_text(
        "---\nname: worker\ndescription: d\ntools: Read, Grep, Edit\n---\nYou work.\n"
    )
    (tmp_path / "team" / "notes.txt").write_text("one\ntwo\n")
    return tmp_path / "team"


def options(server, team, **more):
    return {"config_path": team, "base_url": server.base_url, "api_key": "test-key", **more}


def results_of(server):
    """The tool results of the last request, as (content, is_error)."""
    messages = server.requests[-1].body["messages"]
    return [
        (block["content"], block.get("is_error", False))
        for message in messages
        for block in message["content"]
        if block["type"] == "tool_result"
    ]


def offered(server):
    return [tool["name"] for tool in server.requests[0].body["tools"]]


async def test_reads_what_the_grant_allows(team):
    script = Script([tool_calls(READ, ("Grep", {"pattern": "two"}), thinking="Look first."), "Two lines."])
    with MessagesServer(answer=script) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "What is in it?", tools="read")
    assert (result.success, result.output, offered(server)) == (True, "Two lines.", ["Read", "Grep"])
    assert results_of(server)[0] == ("1\tone\n2\ttwo\n3\t", False)
    assert [one.name for one in result.tool_calls] == ["Read", "Grep"]
    kinds = [block["type"] for block in server.requests[-1].body["messages"][1]["content"]]
    assert kinds == ["thinking", "tool_use", "tool_use"]


async def test_edits_where_that_is_granted(team):
    edit = ("Edit", {"file_path": "notes.txt", "old_string": "one", "new_string": "ONE"})
    with MessagesServer(answer=Script([tool_calls(edit), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            refused = await orchestrator.execute_agent("worker", "Change it", tools="read")
            assert (team / "notes.txt").read_text() == "one\ntwo\n"
            done = await orchestrator.execute_agent("worker", "Change it now", tools="edit", in_place=True)
    assert (team / "notes.txt").read_text() == "ONE\ntwo\n"
    assert refused.tool_calls[0].is_denied and refused.tool_calls[0].error
    assert not done.tool_calls[0].is_denied and done.tool_calls[0].error is None


async def test_second_run_sends_nothing_until_a_file_changes(team):
    with MessagesServer(answer=Script([tool_calls(READ), "Read."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            await orchestrator.execute_agent("worker", "Read it", tools="read")
            again = await orchestrator.execute_agent("worker", "Read it", tools="read")
            assert (len(server.requests), again.cached, again.cost) == (2, True, 0.0)
            (team / "notes.txt").write_text("three\n")
            changed = await orchestrator.execute_agent("worker", "Read it", tools="read")
    assert [turn.cached for turn in changed.turns] == [True, False]
    assert len(server.requests) == 3


def test_sync_face(team):
    with MessagesServer(answer=Script([tool_calls(READ), "Read."])) as server:
        with AgentOrchestrator(**options(server, team, tools="read", max_turns=5)) as orchestrator:
            events = []
            result = orchestrator.run_agent("worker", "Read it", on_event=events.append)
            rows = orchestrator.run_multiple([("worker", "a"), ("worker", "b")], max_tool_calls=0)
    assert (len(result.turns), result.stopped_by) == (2, None)
    assert [type(event).__name__ for event in events].count("ToolEnded") == 1
    assert [row.stopped_by for row in rows] == ["max_tool_calls"] * 2


def test_unknown_grant_of_the_orchestrator(team):
    with pytest.raises(InvalidOptionError, match="Did you mean"):
        AgentOrchestrator(config_path=team, tools="Reed")


async def test_another_folder(team, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "far.txt").write_text("far\n")
    read = ("Read", {"file_path": str(tmp_path / "other" / "far.txt")})
    with MessagesServer(answer=Script([tool_calls(read), "Read."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team, clock=FakeClock())) as orchestrator:
            refused = await orchestrator.execute_agent("worker", "Read it", tools="read")
            allowed = await orchestrator.execute_agent(
                "worker", "Read it", tools="read", add_dirs=[tmp_path / "other"]
            )
    assert refused.tool_calls[0].error and allowed.tool_calls[0].error is None
    assert json.loads(json.dumps(allowed.to_dict()))["tool_calls"][0]["input"] == read[1]


@pytest.mark.parametrize(("of_step", "names"), [("Grep, Bash", ["Grep"]), ("read", ["Read", "Grep"])])
async def test_step_narrows_what_the_run_grants(team, of_step, names):
    step = {"id": "look", "agent": "worker", "tools": of_step}
    (team / ".claude" / "claude.json").write_text(json.dumps({"workflows": {"w": {"steps": [step]}}}))
    with MessagesServer(answer=Script(["Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            await orchestrator.execute_workflow("w", "Look", tools="edit")
    assert offered(server) == names


async def test_step_made_in_python(team):
    with MessagesServer(answer=Script(["Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            step = Step("look", "worker", tools=("read",))
            await orchestrator.execute_workflow(Workflow("w", (step,)), "Look", tools="edit")
    assert offered(server) == ["Read", "Grep"]


@pytest.mark.parametrize("of_step", ["none", []])
async def test_step_without_tools(team, of_step):
    step = {"id": "look", "agent": "worker", "tools": of_step}
    (team / ".claude" / "claude.json").write_text(json.dumps({"workflows": {"w": {"steps": [step]}}}))
    with MessagesServer() as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            (result,) = await orchestrator.execute_workflow("w", "Look", tools="edit")
    assert result.success and "tools" not in server.requests[0].body


@pytest.mark.parametrize("of_step", [5, "Bsah(git diff:*)", [{}]])
async def test_step_with_wrong_tools(team, of_step):
    step = {"id": "look", "agent": "worker", "tools": of_step}
    (team / ".claude" / "claude.json").write_text(json.dumps({"workflows": {"w": {"steps": [step]}}}))
    async with AsyncAgentOrchestrator(config_path=team, api_key="x") as orchestrator:
        with pytest.raises(InvalidWorkflowError, match='"tools" is'):
            await orchestrator.execute_workflow("w", "Look", tools="edit")
