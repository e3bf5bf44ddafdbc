"""Plugins, commands and skills of Claude Code: what is found, under which name, and what is sent."""

import json

import pytest
from fleet import fleet
from hypothesis import given
from hypothesis import strategies as st
from test_agents import Project

from claude_force.agents import Registry
from claude_force.agents.commands import find_injections, render
from claude_force.agents.names import is_agent_name
from claude_force.cli.main import main
from claude_force.errors import AgentNotFoundError, ConfigurationError, InvalidAgentNameError


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


def write(project, path, text):
    """A file of the repository, wherever in it."""
    return project.file(f"../{path}", text if isinstance(text, (str, bytes)) else json.dumps(text))


def agent(name="helper", body="You help.", **fields):
    lines = "".join(f"{key}: {value}\n" for key, value in {"name": name, **fields}.items())
    return f"---\n{lines}---\n{body}\n"


def names(project):
    return {one["name"]: one["file"] for one in project.registry.list_agents()}


def reasons(project):
    registry = project.registry
    return [(one.file, one.reason) for one in (*registry.problems(), *registry.remarks())]


async def sent(project, *calls, **options):
    """The bodies of the requests for these `(agent, task)` calls."""
    async with fleet(project.folder) as (orchestrator, server):
        for name, task in calls:
            result = await orchestrator.execute_agent(name, task, **options)
            assert result.success, result.errors
        return [request.body for request in server.requests]


def texts(body):
    return [block["text"] for block in body.get("system", [])], body["messages"][0]["content"]


class TestPlugins:
    def test_folder_with_manifest_is_plugin(self, project):
        write(project, "plugins/tools/.claude-plugin/plugin.json", {"name": "my-tools"})
        write(project, "plugins/tools/agents/deep/helper.md", agent())
        assert names(project) == {"my-tools:helper": "plugins/tools/agents/deep/helper.md"}
        assert project.registry.get("my-tools:helper").source == "plugin my-tools"

    def test_manifest_without_name_uses_folder_name(self, project):
        write(project, "plugins/tools/.claude-plugin/plugin.json", {})
        write(project, "plugins/tools/agents/helper.md", agent())
        assert set(names(project)) == {"tools:helper"}

    def test_a_repository_is_a_plugin_itself(self, tmp_path):
        root = tmp_path / "repository"
        for path, text in {
            ".claude-plugin/plugin.json": '{"name": "whole"}',
            "agents/helper.md": agent(),
            "commands/review.md": "Review $1.",
            "src/x.py": "",
            ".git/HEAD": "",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        for registry in (Registry(start=root / "src"), Registry(root)):
            assert [one["name"] for one in registry.list_agents()] == ["whole:helper", "whole:review"]

    @pytest.mark.parametrize("marker", ["plugin.json", "marketplace.json"])
    def test_plugin_manifest_optional_in_plugin_repo(self, project, marker):
        write(project, f".claude-plugin/{marker}", {"name": "whole"})
        write(project, "plugins/tools/agents/helper.md", agent())
        assert set(names(project)) == {"tools:helper"}

    def test_ignores_unrelated_plugins_folder(self, project):
        write(project, "plugins/tools/agents/helper.md", agent())
        assert names(project) == {}

    def test_marketplace_names_other_folders(self, project):
        entries = [
            {"name": "one", "source": "./packages/one"},
            {"name": "two", "source": {"source": "github", "repo": "a/b"}},
            {"name": "three", "source": "three"},
            "four",
        ]
        market = {"name": "m", "metadata": {"pluginRoot": "./packages"}, "plugins": entries}
        write(project, ".claude-plugin/marketplace.json", market)
        write(project, "packages/one/agents/helper.md", agent())
        write(project, "packages/three/agents/helper.md", agent())
        assert set(names(project)) == {"one:helper", "three:helper"}

    def test_marketplace_plugins_share_folder(self, project):
        entries = [
            {"name": "one", "source": "./", "agents": ["./agents/a.md"]},
            {"name": "two", "source": "./", "agents": "./agents/b.md", "commands": ["./more"]},
        ]
        write(project, ".claude-plugin/marketplace.json", {"plugins": entries})
        for name in "abc":
            write(project, f"agents/{name}.md", agent(name))
        write(project, "more/go.md", "Go.")
        assert set(names(project)) == {"one:a", "two:b", "two:go"}

    def test_manifest_adds_folders(self, project):
        manifest = {"name": "p", "agents": ["./extra", "./one.md"]}
        write(project, "plugins/p/.claude-plugin/plugin.json", manifest)
        for path, name in {"agents/a.md": "a", "extra/b.md": "b", "one.md": "c"}.items():
            write(project, f"plugins/p/{path}", agent(name))
        assert set(names(project)) == {"p:a", "p:b", "p:c"}

    def test_plugins_have_lowest_precedence(self, project, clean_environment):
        write(project, "plugins/p/.claude-plugin/plugin.json", {"name": "p"})
        for name in ("helper", "other", "third"):
            write(project, f"plugins/p/agents/{name}.md", agent(name, body="plugin"))
        project.agent("helper.md", "helper", body="project")
        Project(clean_environment).agent("other.md", "other", body="user")
        found = {name: project.registry.get(name).definition.strip() for name in ("helper", "other", "third")}
        assert found == {"helper": "project", "other": "user", "third": "plugin"}
        assert project.registry.get("p:helper").definition == "plugin\n"

    def test_ambiguous_name_needs_plugin_prefix(self, project):
        for plugin in ("p", "q"):
            write(project, f"plugins/{plugin}/.claude-plugin/plugin.json", {"name": plugin})
            write(project, f"plugins/{plugin}/agents/helper.md", agent())
        with pytest.raises(AgentNotFoundError, match="p:helper"):
            project.registry.get("helper")

    @pytest.mark.parametrize(
        "path", ["../../outside", "/etc", "..", "./x/../../../outside", "../outside/a.md", "\0"]
    )
    @pytest.mark.parametrize("place", ["manifest", "market"])
    def test_nothing_outside_is_looked_at(self, project, path, place):
        outside = project.folder.parent / "outside"
        (outside / "agents").mkdir(parents=True)
        (outside / "a.md").write_text(agent("stolen"))
        (outside / "agents" / "a.md").write_text(agent("stolen"))
        if place == "manifest":
            write(project, "plugins/p/.claude-plugin/plugin.json", {"name": "p", "agents": [path]})
        else:
            write(project, ".claude-plugin/marketplace.json", {"plugins": [{"name": "p", "source": path}]})
        assert names(project) == {}

    @pytest.mark.parametrize("name", ["../x", "a/b", "a b", "a:b", "", None, 7, "代码"])
    def test_no_name_of_a_plugin_breaks_the_rule(self, project, name):
        write(project, "plugins/p/.claude-plugin/plugin.json", {"name": name})
        write(project, "plugins/p/agents/helper.md", agent())
        assert all(map(is_agent_name, names(project)))

    @pytest.mark.parametrize(
        "text", ["{", "[]", "null", '{"name": 3, "agents": {"a": 1}}', b"\xff", "[" * 99999]
    )
    def test_broken_manifest_breaks_only_itself(self, project, text):
        project.agent("a.md", "a")
        write(project, "plugins/p/.claude-plugin/plugin.json", text)
        write(project, ".claude-plugin/marketplace.json", text)
        write(project, "plugins/p/agents/helper.md", agent())
        assert "a" in names(project)

    def test_reports_unusable_plugin_agent(self, project):
        write(project, "plugins/p/.claude-plugin/plugin.json", {"name": "p"})
        write(project, "plugins/p/agents/helper.md", agent(body=""))
        with pytest.raises(ConfigurationError, match="no instructions"):
            project.registry.get("p:helper")

    def test_a_plugin_that_appears_is_seen(self, project):
        registry = project.registry
        project.agent("a.md", "a")
        registry.list_agents()
        write(project, "plugins/p/.claude-plugin/plugin.json", {"name": "p"})
        path = write(project, "plugins/p/agents/helper.md", agent(body="before"))
        assert registry.get("p:helper").definition == "before\n"
        path.write_text(agent(body="after it"))
        assert registry.get("p:helper").definition == "after it\n"

    async def test_an_agent_runs_under_its_full_name(self, project, capsys):
        write(project, "plugins/p/.claude-plugin/plugin.json", {"name": "p"})
        write(project, "plugins/p/agents/helper.md", agent(model="haiku"))
        project.config(workflows={"w": ["p:helper"]})
        async with fleet(project.folder) as (orchestrator, server):
            results = await orchestrator.execute_multiple([("p:helper", "x"), ("p:nobody", "x")])
            assert [one.success for one in results] == [True, False]
            assert (await orchestrator.execute_workflow("w", "y")).success
            assert orchestrator.get_agent_info("p:helper")["name"] == "p:helper"
        assert [one.body["model"] for one in server.requests] == ["claude-haiku-5-5"] * 2

    @pytest.mark.parametrize("name", ["a:", ":a", "a:b:c", "../a:b", "a:../b", "a: b"])
    def test_more_than_a_plugins_name_is_no_name(self, project, name):
        with pytest.raises(InvalidAgentNameError):
            project.registry.get(name)


class TestCommands:
    async def test_the_task_is_the_arguments(self, project):
        project.file("commands/review.md", "---\nmodel: haiku\n---\nReview #$1 by $2: $ARGUMENTS.\n")
        (body,) = await sent(project, ("review", "17 'two words'"))
        assert texts(body) == ([], "Review #17 by two words: 17 'two words'.\n")
        assert (body["model"], "system" in body) == ("claude-haiku-5-5", False)

    @pytest.mark.parametrize(
        ("text", "arguments", "message"),
        [
            ("Fix $ARGUMENTS", "a  b", "Fix a  b"),
            ("Fix $1 and $2", "a b", "Fix a and b"),
            ("Fix $0 and $1", "a b", "Fix a and b"),
            ("Fix $ARGUMENTS[0] and $ARGUMENTS[1]", "a b", "Fix a and b"),
            ("Fix $1 and $3", "a b", "Fix a and $3"),
            ("Fix it", "a", "Fix it\n\nARGUMENTS: a"),
            ("For $20.50, $HOME and $ARGUMENTSX", "a", "For $20.50, $HOME and $ARGUMENTSX\n\nARGUMENTS: a"),
            ("It costs $5", "a", "It costs $5\n\nARGUMENTS: a"),
            ("Fix $1", "don't", "Fix don't"),
            ("Fix $1: $ARGUMENTS", "$2 $ARGUMENTS", "Fix $2: $2 $ARGUMENTS"),
            ("$10 $1", "a", "$10 a"),
        ],
    )
    def test_each_place_gets_its_argument(self, text, arguments, message):
        assert render(text, arguments) == message

    @given(st.text(), st.text(min_size=1))
    def test_what_was_given_is_in_the_message(self, text, arguments):
        assert arguments in render(f"{text} $ARGUMENTS", arguments)
        assert arguments in render("Text", arguments)

    def test_arguments_change_cache_key(self, project):
        project.file("commands/review.md", "Review it.")
        from asyncio import run

        async def cached():
            async with fleet(project.folder) as (orchestrator, _):
                return [(await orchestrator.execute_agent("review", task)).cached for task in ("a", "b", "a")]

        assert run(cached()) == [False, False, True]

    def test_command_is_found_with_and_without_slash(self, project):
        project.file("commands/front/component.md", "---\ndescription: Makes one\n---\nMake $1.")
        registry = project.registry
        assert names(project) == {"component": "commands/front/component.md"}
        for name in ("component", "/component", "front:component"):
            assert registry.get(name).description == "Makes one"

    def test_shadowed_command_gets_other_name(self, project):
        project.agent("review.md", "review")
        project.file("commands/review.md", "Review $1.")
        assert set(names(project)) == {"review", "command:review"}
        assert any("is listed as 'command:review'" in reason for _, reason in reasons(project))

    def test_two_of_one_name_go_by_their_folders(self, project):
        project.file("commands/api/test.md", "Test the API.")
        project.file("commands/ui/test.md", "Test the UI.")
        assert set(names(project)) == {"test", "ui:test"}
        assert project.registry.get("api:test").name == "test"

    def test_project_command_shadows_user_command(self, project, clean_environment):
        Project(clean_environment).file("commands/review.md", "the user's")
        project.file("commands/review.md", "the project's")
        assert project.registry.get("review").definition == "the project's"

    async def test_nothing_in_it_is_executed_or_read(self, project, monkeypatch):
        (project.folder / "secret.txt").write_text("hunter2")
        text = "State: !`touch PWNED` and @secret.txt for $1"
        project.file("commands/go.md", f"---\nallowed-tools: Bash(touch:*)\n---\n{text}")
        monkeypatch.chdir(project.folder)
        (body,) = await sent(project, ("go", "me"))
        assert texts(body)[1] == text.replace("$1", "me")
        assert not (project.folder / "PWNED").exists()
        assert any("!`touch PWNED`, @secret.txt is sent as text" in reason for _, reason in reasons(project))

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("!`git status`", ["!`git status`"]),
            ("See: !`ls -l` now", ["!`ls -l`"]),
            ("@src/a.py", ["@src/a.py"]),
            ("@README.md", ["@README.md"]),
            ("```!\nls\n```", ["```!"]),
            ("Wow! `code` is me@example.com, @param and @team", []),
            ("a!`b`", []),
        ],
    )
    def test_finds_injections_of_claude_code(self, text, found):
        assert find_injections(text) == found

    def test_info_shows_kind_hint_and_source(self, project, monkeypatch, capsys):
        text = (
            "---\ndescription: Reviews\nargument-hint: [pr] [priority]\nallowed-tools: Read\n---\nReview $1."
        )
        project.file("commands/review.md", text)
        monkeypatch.chdir(project.folder)
        assert main(["info", "/review", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["kind"], found["source"], found["description"]) == ("command", "project", "Reviews")
        assert (found["argument_hint"], found["tools"]) == ("[pr] [priority]", ["Read"])
        assert "allowed-tools" not in found["not_used"]


class TestSkills:
    async def test_skill_text_follows_instructions(self, project):
        project.file("skills/pdf/SKILL.md", "---\nname: pdf\ndescription: d\n---\nRead PDFs so.\n")
        project.agent("a.md", "a", skills="pdf")
        (body,) = await sent(project, ("a", "x"))
        system, task = texts(body)
        assert (system[0], task) == ("You help.\n", "x")
        assert "Read PDFs so." in system[1]
        assert body["system"][-1]["cache_control"]

    @pytest.mark.parametrize("skills", ["pdf, csv", "[pdf, csv]", "\n  - pdf\n  - csv"])
    def test_a_list_in_any_form(self, project, skills):
        for name in ("pdf", "csv"):
            project.file(f"skills/{name}/SKILL.md", f"About {name}.")
        project.agent("a.md", "a", skills=skills)
        found = project.registry.get("a")
        assert found.settings.skills == ("pdf", "csv")
        assert ["About" in text for text in found.skill_texts] == [True, True]

    def test_projects_come_before_the_users(self, project, clean_environment):
        user = Project(clean_environment)
        user.file("skills/pdf/SKILL.md", "the user's")
        user.file("skills/csv/SKILL.md", "the user's")
        project.file("skills/pdf/SKILL.md", "the project's")
        project.agent("a.md", "a", skills="pdf, csv")
        first, second = project.registry.get("a").skill_texts
        assert "the project's" in first and "the user's" in second

    def test_of_a_plugin(self, project):
        write(project, "plugins/p/.claude-plugin/plugin.json", {"name": "p"})
        write(project, "plugins/p/skills/own/SKILL.md", "the plugin's")
        write(project, "plugins/p/agents/a.md", agent("a", skills="own"))
        project.agent("b.md", "b", skills="p:own")
        for name in ("p:a", "b"):
            assert "the plugin's" in project.registry.get(name).skill_texts[0]

    @pytest.mark.parametrize("name", ["../../secret", "/etc", "..", ".", "a/b", "a\\b", "p:../x", "~"])
    def test_refuses_skill_name_with_path(self, project, name):
        write(project, "secret/SKILL.md", "hunter2")
        project.agent("a.md", "a", skills=f"['{name}']")
        assert project.registry.get("a").skill_texts == ()
        assert any("is not a name that a skill can have" in reason for _, reason in reasons(project))

    def test_missing_skill_is_reported_then_found(self, project):
        project.agent("a.md", "a", skills="pdf")
        registry = project.registry
        assert registry.get("a").skill_texts == ()
        assert any("its skill 'pdf' is not there" in one.reason for one in registry.remarks())
        project.file("skills/pdf/SKILL.md", "Here it is.")
        assert "Here it is." in registry.get("a").skill_texts[0]

    async def test_an_edited_skill_is_another_question(self, project):
        path = project.file("skills/pdf/SKILL.md", "before")
        project.agent("a.md", "a", skills="pdf")
        async with fleet(project.folder) as (orchestrator, _):
            await orchestrator.execute_agent("a", "x")
            assert (await orchestrator.execute_agent("a", "x")).cached
            path.write_text("after it")
            assert not (await orchestrator.execute_agent("a", "x")).cached
