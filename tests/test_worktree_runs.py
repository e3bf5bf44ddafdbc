"""Runs of agents that edit: each works in a copy of the project, and its result has the patch."""

import asyncio
import json

import pytest
from sandboxes import program
from worktrees import contents, everything, make_repository, needs_git, write

from claude_force import AgentOrchestrator, AsyncAgentOrchestrator, apply_patch
from claude_force.errors import InvalidOptionError, WorktreeError
from claude_force.testing import MessagesServer, Script, tool_calls
from claude_force.testing.faults import status
from claude_force.tools import git_commands, patches
from claude_force.tools.worktree_folders import worktrees_folder

pytestmark = needs_git

AGENT = "---\nname: worker\ndescription: d\ntools: Read, Grep, Glob, Edit, Write, Bash\n---\nYou work.\n"
EDIT = ("Edit", {"file_path": "notes.txt", "old_string": "one", "new_string": "ONE"})
NEW = ("Write", {"file_path": "new.txt", "content": "new\n"})
EDITED = b"ONE\ntwo\n"


@pytest.fixture
def team(tmp_path):
    project = make_repository(
        tmp_path / "team",
        {
            ".claude/agents/worker.md": AGENT.encode(),
            ".gitignore": b".claude/metrics/\n",
            "notes.txt": b"one\ntwo\n",
        },
    )
    write(project, {"draft.txt": b"not committed\n"})
    return project


def options(server, team, **more):
    return {"config_path": team, "base_url": server.base_url, "api_key": "test-key", **more}


def state(team):
    """All but the ledger, which each call writes."""
    return {path: value for path, value in everything(team).items() if ".claude" not in path}


def copies():
    folder = worktrees_folder()
    return list(folder.rglob("copy-*")) if folder.exists() else []


async def test_edits_a_copy_and_returns_the_patch(team):
    before = state(team)
    with MessagesServer(answer=Script([tool_calls(EDIT, NEW), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Change it", tools="edit")
    assert state(team) == before
    assert (result.output, result.changed_files) == ("Done.", ("new.txt", "notes.txt"))
    assert "\n-one\n+ONE\n" in result.patch
    assert json.loads(json.dumps(result.to_dict()))["patch"] == result.patch
    assert apply_patch(result.patch, team)
    assert contents(team)["notes.txt"] == ("file", EDITED)
    assert not apply_patch(result.patch, team)


async def test_an_agent_that_only_reads_has_no_copy_and_no_patch(team, monkeypatch):
    monkeypatch.setattr(git_commands, "find_git", None)
    with MessagesServer(answer=Script([tool_calls(("Read", {"file_path": "notes.txt"})), "Read."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Read it", tools="read")
    assert (result.success, result.patch, result.changed_files) == (True, None, ())
    assert "patch" not in result.to_dict()
    assert not worktrees_folder().exists()


async def test_an_agent_that_changes_nothing_has_an_empty_patch(team):
    with MessagesServer(answer="Nothing to do.") as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Change it", tools="edit")
    assert (result.patch, result.changed_files) == ("", ())


async def test_works_in_place_where_that_is_asked(team):
    with MessagesServer(answer=Script([tool_calls(EDIT), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Go", tools="edit", in_place=True)
    assert (team / "notes.txt").read_bytes() == EDITED
    assert (result.patch, result.changed_files) == (None, ())


def test_the_sync_class_has_both(team):
    with MessagesServer(answer=Script([tool_calls(EDIT), "Done."])) as server:
        with AgentOrchestrator(**options(server, team)) as orchestrator:
            result = orchestrator.run_agent("worker", "Go", tools="edit")
            assert result.changed_files == ("notes.txt",)
            orchestrator.run_agent("worker", "Go now", tools="edit", in_place=True)
    assert (team / "notes.txt").read_bytes() == EDITED


@pytest.mark.parametrize("value", [1, "yes", None])
async def test_in_place_is_true_or_false(team, value):
    with MessagesServer() as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            if value is None:
                assert (await orchestrator.execute_agent("worker", "Go", in_place=None)).success
                return
            with pytest.raises(InvalidOptionError, match="in_place"):
                await orchestrator.execute_agent("worker", "Go", tools="edit", in_place=value)


async def test_several_agents_never_work_in_place(team):
    with MessagesServer() as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            with pytest.raises(InvalidOptionError, match="one agent"):
                await orchestrator.execute_multiple([("worker", "Go")], tools="edit", in_place=True)
            with pytest.raises(InvalidOptionError, match="one agent"):
                await orchestrator.execute_workflow("any", "Go", tools="edit", in_place=True)


async def test_rows_edit_copies_of_their_own_that_begin_alike(team):
    """The first requests differ in their task alone, and a row sees nothing of the others."""
    before = state(team)
    rows = [("worker", f"Row {number}") for number in range(12)]
    read = ("Read", {"file_path": "notes.txt"})
    with MessagesServer(answer=Script([tool_calls(read), tool_calls(EDIT, NEW), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            results = await orchestrator.execute_multiple(rows, tools="edit")
            assert copies() == []
        bodies = [json.dumps(request.body) for request in server.requests]
    assert state(team) == before
    assert len({result.patch for result in results}) == 1
    assert results[0].changed_files == ("new.txt", "notes.txt")
    for number in range(12):
        bodies = [body.replace(f'Row {number}"', 'Row"') for body in bodies]
    assert len(set(bodies)) == 3
    assert not any(str(worktrees_folder()) in body for body in bodies)


async def test_a_second_run_sends_its_first_turns_from_the_cache(team):
    read = ("Read", {"file_path": "notes.txt"})
    with MessagesServer(answer=Script([tool_calls(read), tool_calls(EDIT), "Done."])) as server:
        results = []
        for _ in range(2):
            async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
                results.append(await orchestrator.execute_agent("worker", "Go", tools="edit"))
    assert results[0].patch == results[1].patch
    assert [turn.cached for turn in results[1].turns] == [True, True, False]


async def test_commands_work_in_the_copy(team):
    program()
    before = state(team)
    bash = ("Bash", {"command": "pwd; git status --short; echo two > notes.txt; rm draft.txt"})
    with MessagesServer(answer=Script([tool_calls(bash), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Go", tools="bash")
        told = server.requests[-1].body["messages"][-1]["content"][0]["content"]
    assert told == f"{team}\n?? draft.txt"
    assert result.changed_files == ("draft.txt", "notes.txt")
    assert state(team) == before


@pytest.mark.parametrize("grant", ["read", "edit", "bash"])
async def test_searches_find_the_same_in_a_copy(team, grant):
    if grant == "bash":
        program()
    write(team, {"node_modules/m.js": b"two\n", "t.log": b"two\n", "kept/deep/x.txt": b"two\n"})
    write(team, {".gitignore": b"node_modules/\n*.log\n.claude/metrics/\n"})
    (team / ".git" / "info" / "exclude").write_text("kept/deep/\n")
    uses = [
        ("Grep", {"pattern": "^two"}),
        ("Glob", {"pattern": "**/*"}),
        ("Grep", {"pattern": "two", "path": "node_modules"}),
        ("Read", {"file_path": "kept/deep/x.txt"}),
    ]
    with MessagesServer(answer=Script([tool_calls(*uses), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            await orchestrator.execute_agent("worker", "Go", tools=grant)
        told = [block["content"] for block in server.requests[-1].body["messages"][-1]["content"]]
    assert told == [
        "Found 1 file\nnotes.txt",
        "\n".join(
            [
                ".claude/agents/worker.md",
                ".gitignore",
                "draft.txt",
                "kept/deep/x.txt",
                "node_modules/m.js",
                "notes.txt",
                "t.log",
            ]
        ),
        "Found 1 file\nnode_modules/m.js",
        "1\ttwo\n2\t",
    ]


async def test_further_folders_can_only_be_read(team, tmp_path):
    folder = tmp_path / "more"
    write(folder, {"x.txt": b"one\n"})
    uses = [
        ("Read", {"file_path": str(folder / "x.txt")}),
        ("Edit", {"file_path": str(folder / "x.txt"), "old_string": "one", "new_string": "2"}),
    ]
    with MessagesServer(answer=Script([tool_calls(*uses), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team, add_dirs=[folder])) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Go", tools="edit")
    assert [bool(one.error) for one in result.tool_calls] == [False, True]
    assert (folder / "x.txt").read_bytes() == b"one\n"


async def test_steps_of_a_workflow_have_copies_of_their_own(team):
    steps = [{"id": name, "agent": "worker"} for name in "ab"]
    known = {"agents": {"worker": {"file": "agents/worker.md"}}, "workflows": {"both": {"steps": steps}}}
    (team / ".claude" / "claude.json").write_text(json.dumps(known))
    before = state(team)
    with MessagesServer(answer=Script([tool_calls(EDIT), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            results = await orchestrator.execute_workflow("both", "Go", tools="edit")
            again = await orchestrator.execute_workflow("both", resume=results.run_id, tools="edit")
    assert [result.changed_files for result in results] == [("notes.txt",)] * 2
    assert [result.patch for result in again] == [result.patch for result in results]
    assert state(team) == before


async def test_a_failed_agent_has_its_patch_too(team):
    with MessagesServer(answer=Script([tool_calls(EDIT), "Done."]), faults=[None, status(400)]) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Go", tools="edit")
    assert not result.success
    assert result.changed_files == ("notes.txt",)


async def test_a_patch_that_is_too_large_is_left_out(team, monkeypatch):
    monkeypatch.setattr(patches, "MOST_PATCH", 100)
    with MessagesServer(answer=Script([tool_calls(EDIT), "Done."])) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            result = await orchestrator.execute_agent("worker", "Go", tools="edit")
    assert (result.success, result.patch, result.changed_files) == (True, None, ("notes.txt",))
    assert result.to_dict()["patch_note"]["reason"] == "too_large"


async def test_nothing_is_left_of_cancelled_agents(team):
    begun = asyncio.Event()
    with MessagesServer(answer=Script([tool_calls(EDIT), "Done."]), time_to_first_token=0.2) as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            work = asyncio.ensure_future(
                orchestrator.execute_agent("worker", "Go", tools="edit", on_event=lambda _: begun.set())
            )
            await begun.wait()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert copies() == []
    assert (team / "notes.txt").read_bytes() == b"one\ntwo\n"


async def test_without_git_nothing_is_sent(team, monkeypatch, tmp_path):
    monkeypatch.setattr(git_commands, "_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with MessagesServer() as server:
        async with AsyncAgentOrchestrator(**options(server, team)) as orchestrator:
            with pytest.raises(WorktreeError, match="Install git"):
                await orchestrator.execute_agent("worker", "Go", tools="edit")
            results = await orchestrator.execute_multiple([("worker", "a"), ("worker", "b")], tools="edit")
        assert not server.requests
    assert all(isinstance(result.error, WorktreeError) for result in results)
