"""Tools as a run opens them: where they work, what settings and links change, and when there are none."""

import json
import os
import shutil
from pathlib import Path

import pytest

from claude_force.agents import Registry
from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.conversation import ToolUse
from claude_force.errors import ConfigurationError, InputError, InvalidOptionError
from claude_force.testing import MessagesServer, Script, tool_calls
from claude_force.tools.tool_names import AVAILABLE
from claude_force.tools.toolbox import open_tools
from claude_force.tools.worktree import Worktrees

NO_SANDBOX = shutil.which("bwrap") is None


def opened(folder, grant, *more):
    return open_tools(Registry(folder).get("w"), grant, folder, *more)


def write_agent(folder, text="---\nname: w\ndescription: d\n---\nYou work.\n"):
    (folder / ".claude" / "agents").mkdir(parents=True, exist_ok=True)
    (folder / ".claude" / "agents" / "w.md").write_text(text)
    return Registry(folder).get("w")


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    write_agent(folder)
    (folder / ".git").mkdir()
    return folder


class TestRoot:
    def test_is_that_of_the_repository(self, project):
        agent = write_agent(project / "deep" / "sub")
        toolbox = open_tools(agent, "read", project / "deep" / "sub")
        assert f"Working directory: {project}\nIs directory a git repo: Yes\n" in toolbox.context

    @pytest.mark.parametrize("folder", ["home", "/", "above"])
    def test_is_never_the_home_folder(self, project, clean_environment, monkeypatch, folder):
        places = {"home": clean_environment, "/": Path("/"), "above": clean_environment.parent}
        monkeypatch.chdir(places[folder])
        with pytest.raises(ConfigurationError, match="home folder"):
            open_tools(Registry(project).get("w"), "read", places[folder])

    @pytest.mark.parametrize("folder", ["home", "/", "above", "settings", "link"])
    def test_no_further_folder_has_the_users_secrets(self, project, clean_environment, tmp_path, folder):
        home = clean_environment
        (home / ".claude").mkdir(exist_ok=True)
        (tmp_path / "link").symlink_to(home)
        places = {"home": home, "/": Path("/"), "above": home.parent, "settings": home / ".claude"}
        with pytest.raises(ConfigurationError, match="home folder|credentials"):
            opened(project, "read", [places.get(folder, tmp_path / folder)])

    def test_is_never_the_folder_of_the_users_settings(self, project, clean_environment, monkeypatch):
        (clean_environment / ".claude" / ".git").mkdir(parents=True)
        monkeypatch.chdir(clean_environment / ".claude")
        with pytest.raises(ConfigurationError, match="credentials"):
            open_tools(Registry(project).get("w"), "read", clean_environment / ".claude")

    def test_of_the_users_own_agents_is_the_project_here(self, project, clean_environment, monkeypatch):
        agent = write_agent(clean_environment)
        monkeypatch.chdir(project)
        assert f"Working directory: {project}\n" in open_tools(agent, "read", clean_environment).context

    async def test_a_copy_is_shown_as_the_project(self, project):
        agent = write_agent(project)
        (project / "a.txt").write_text("in the copy\n")
        (project / ".claude" / "settings.local.json").write_text(
            json.dumps({"permissions": {"deny": ["Read(/b.txt)"]}})
        )
        worktrees = Worktrees()

        def open_copy(root, has_bash):
            worktree = worktrees.open(root, None, has_bash)
            (project / "a.txt").write_text("in the project\n")
            return worktree

        toolbox = open_tools(agent, "edit", project, (), open_copy)
        assert f"Working directory: {project}\n" in toolbox.context
        found = await toolbox.run(ToolUse("1", "Read", {"file_path": str(project / "a.txt")}))
        assert found.content == "1\tin the copy\n2\t"
        denied = await toolbox.run(ToolUse("1", "Read", {"file_path": "b.txt"}))
        assert denied.is_denied
        worktrees.close()


class TestRun:
    """A whole run: the agent's file, the grant, the requests to the model, the files."""

    async def test_reads_edits_and_is_denied(self, project):
        (project / "a.txt").write_text("one\n")
        uses = [
            ("Read", {"file_path": "a.txt"}),
            ("Edit", {"file_path": "a.txt", "old_string": "one", "new_string": "two"}),
            ("Write", {"file_path": ".git/config", "content": "x"}),
        ]
        answers = [tool_calls(use) for use in uses]
        with MessagesServer(answer=Script([*answers, "Done."])) as server:
            async with AsyncAgentOrchestrator(project, base_url=server.base_url, api_key="x") as orchestrator:
                result = await orchestrator.execute_agent("w", "Work", tools="edit", in_place=True)
            bodies = [request.body for request in server.requests]
        assert result.output == "Done."
        assert [one.name for one in result.tool_calls] == ["Read", "Edit", "Write"]
        assert (project / "a.txt").read_text() == "two\n"
        results = [body["messages"][-1]["content"][0] for body in bodies[1:]]
        assert results[0]["content"] == "1\tone\n2\t"
        assert results[2]["is_error"]
        assert results[2]["content"] == (
            f"Claude requested permissions to edit {project}/.git/config which is a sensitive file."
        )
        assert [tool["name"] for tool in bodies[0]["tools"]] == list(AVAILABLE[:5])
        system = [block["text"] for block in bodies[0]["system"]]
        assert [f"Working directory: {project}" in text for text in system] == [False, True]


class TestNoTools:
    @pytest.mark.parametrize(
        ("agent", "grant"),
        [("", "none"), ("tools: []", "bash"), ("tools: Bash", "read"), ("tools: LS", "read")],
    )
    def test_where_nothing_is_offered(self, project, agent, grant):
        write_agent(project, f"---\nname: w\n{agent}\n---\nYou work.\n")
        assert opened(project, grant) is None

    def test_reads_no_settings_without_a_grant(self, project):
        (project / ".claude" / "settings.json").write_text("{")
        assert opened(project, "none") is None

    def test_refuses_settings_that_can_not_be_read(self, project):
        (project / ".claude" / "settings.json").write_text("{")
        with pytest.raises(ConfigurationError, match="settings.json"):
            opened(project, "read")

    @pytest.mark.parametrize("grant", ["raed", 5, "WebSearch"])
    def test_refuses_what_is_no_grant(self, project, grant):
        with pytest.raises(InvalidOptionError):
            opened(project, grant)

    def test_refuses_a_folder_that_is_not_there(self, project):
        with pytest.raises(InputError):
            opened(project, "read", [project / "missing"])


@pytest.mark.skipif(os.name != "posix", reason="links")
class TestLinks:
    @pytest.fixture
    def folder(self, project):
        (project / "secret").mkdir()
        (project / "secret" / "k.txt").write_text("key\n")
        (project / "src").mkdir()
        (project / "src" / "a.txt").write_text("key\n")
        (project / "src" / "l.txt").symlink_to("../secret/k.txt")
        (project / "g").symlink_to(".git")
        return project

    async def run(self, folder, grant, tool, deny=(), **arguments):
        (folder / ".claude" / "settings.json").write_text(json.dumps({"permissions": {"deny": list(deny)}}))
        toolbox = opened(folder, grant)
        result = await toolbox.run(ToolUse("1", tool, arguments))
        await toolbox.close()
        return result

    async def test_deny_holds_for_what_a_link_leads_to(self, folder):
        result = await self.run(folder, "read", "Read", ["Read(./secret/**)"], file_path="src/l.txt")
        assert result.is_error and "key" not in result.content

    async def test_search_leaves_out_what_is_denied(self, folder):
        deny = ["Read(./secret/**)"]
        found = await self.run(folder, "read", "Grep", deny, pattern="key", output_mode="content")
        assert found.content == "src/a.txt:1:key"
        assert "secret" not in (await self.run(folder, "read", "Glob", deny, pattern="**/*.txt")).content

    async def test_a_grant_of_paths_ends_where_a_link_leads_out_of_them(self, folder):
        result = await self.run(folder, "Read(src/**)", "Read", file_path="src/l.txt")
        assert result.is_error and "key" not in result.content
        assert (
            await self.run(folder, "Read(src/**)", "Read", file_path="src/a.txt")
        ).content == "1\tkey\n2\t"
        found = await self.run(
            folder, "Read(src/**)", "Grep", pattern="key", path="src", output_mode="content"
        )
        assert found.content == "src/a.txt:1:key"

    async def test_sensitive_files_are_so_behind_a_link(self, folder):
        for path in ("g/config", ".git/config", "src/../.git/config"):
            result = await self.run(folder, "edit", "Write", file_path=path, content="x")
            assert result.is_denied and "sensitive file" in result.content
        assert not (folder / ".git" / "config").exists()
        granted = await self.run(folder, "edit,Edit(.git/**)", "Write", file_path=".git/config", content="x")
        assert not granted.is_error


@pytest.mark.skipif(NO_SANDBOX, reason="there is no bubblewrap")
class TestCommands:
    @pytest.mark.parametrize(
        ("grant", "is_written"), [("bash", True), ("read,Bash", False), ("Edit(src/**),Bash", False)]
    )
    async def test_write_where_all_editing_is_granted(self, project, grant, is_written):
        toolbox = opened(project, grant)
        result = await toolbox.run(ToolUse("1", "Bash", {"command": "touch y.txt"}))
        await toolbox.close()
        assert (project / "y.txt").exists() is is_written
        assert result.is_error is not is_written

    async def test_follow_rules_and_settings(self, project):
        (project / ".claude" / "settings.json").write_text('{"permissions": {"deny": ["Bash(rm:*)"]}}')
        toolbox = opened(project, "bash")
        texts = [
            (await toolbox.run(ToolUse("1", "Bash", {"command": command}))).content
            for command in ("echo hi", "echo hi; rm x")
        ]
        await toolbox.close()
        assert texts == ["hi", "Permission to use Bash with command echo hi; rm x has been denied."]
