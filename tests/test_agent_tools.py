"""What `info`, `list` and `doctor` say of the tools that agents would be given."""

import json

import pytest

from claude_force.cli.main import main


@pytest.fixture
def project(tmp_path, monkeypatch, clean_environment):
    folder = tmp_path / "project"
    (folder / ".claude" / "agents").mkdir(parents=True)
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    return folder


def agent(folder, name, *lines):
    text = "\n".join(("---", f"name: {name}", "description: d", *lines, "---", "You work.", ""))
    (folder / ".claude" / "agents" / f"{name}.md").write_text(text)


def deny(folder, *rules, name="settings.json"):
    (folder / ".claude" / name).write_text(json.dumps({"permissions": {"deny": rules}}))


@pytest.fixture
def run(project, capsys):
    def run_command(*arguments):
        code = main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run_command


class TestInfo:
    def test_shows_each_level(self, project, run):
        agent(project, "w", "tools: Read, Edit, Bash(git:*), WebSearch, grep", "disallowedTools: Edit")
        _, found = run("info", "w")
        assert found["offered"] == {"read": ["Read"], "edit": ["Read"], "bash": ["Read", "Bash"]}
        assert found["left_out"] == {
            "Edit": "disallowedTools of its file has Edit",
            "WebSearch": "not available yet",
            "grep": "names are case-sensitive: write Grep",
        }

    def test_shows_one_grant(self, project, run):
        agent(project, "w", "tools: Read, Bash")
        deny(project, "Read")
        _, found = run("info", "w", "--tools", "Read,Edit(docs/**)")
        assert found["offered"] == {"Read,Edit(docs/**)": []}
        assert found["left_out"] == {
            "Read": ".claude/settings.json denies Read",
            "Bash": "the run does not grant it; --tools bash would",
        }

    def test_is_text_for_people(self, project, capsys):
        agent(project, "w", "tools: []")
        assert main(["info", "w", "--tools", "edit"]) == 0
        assert "offered:          edit: none\n" in capsys.readouterr().out

    def test_refuses_what_is_no_grant(self, project, run):
        agent(project, "w")
        code, found = run("info", "w", "--tools", "raed")
        assert code == 2
        assert found["error"] == "--tools: 'raed' is not a tool. Did you mean read?"

    def test_names_settings_that_can_not_be_read(self, project, run):
        agent(project, "w")
        deny(project, "Bash(rm", name="settings.local.json")
        code, found = run("info", "w")
        assert code == 0
        assert found["offered"] == {"read": [], "edit": [], "bash": []}
        assert ".claude/settings.local.json has the rule 'Bash(rm'" in found["left_out"]["*"]


def test_list_has_them_for_all_agents(project, run):
    agent(project, "a", "tools: Read")
    agent(project, "b", "permissionMode: plan")
    _, found = run("list", "agents")
    assert [one["offered"]["bash"] for one in found] == [["Read"], ["Read", "Grep", "Glob"]]
    assert list(found[1]["left_out"]) == ["Edit", "Write", "Bash"]


class TestDoctor:
    @pytest.fixture
    def checks(self, run):
        def find():
            code, found = run("doctor", "--offline")
            texts = [(one["state"], one["text"]) for one in found["checks"] if one["name"] == "tools"]
            return code, texts

        return find

    def test_says_which_grant_is_enough(self, project, checks):
        agent(project, "a", "tools: Read, WebSearch")
        agent(project, "b", "tools: Write, wirte")
        agent(project, "c")
        code, found = checks()
        assert code == 0
        assert found == [
            (
                "ok",
                "2 agents name tools: --tools read is enough for 1, --tools edit is enough for 2, "
                "--tools bash is enough for 2",
            ),
            ("warning", "WebSearch of a is left out: not available yet"),
            ("warning", "wirte of b is left out: no tool has this name; did you mean Write?"),
        ]

    def test_says_whether_commands_can_be_confined(self, project, checks, clean_environment):
        agent(project, "a", "tools: Bash")
        code, found = checks()
        assert code == 0
        state, text = found[1]
        is_confined = text.startswith("commands of Bash run in a sandbox (")
        assert state == ("ok" if is_confined else "warning")
        assert is_confined or text.startswith("Bash can't be granted: Commands of agents")

    def test_says_what_runs_grant_by_default(self, project, checks, clean_environment):
        file = clean_environment / ".claude" / "claude-force.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text('tools = "Read"')
        file.chmod(0o600)
        assert checks()[1] == [("ok", "runs without --tools grant Read (~/.claude/claude-force.toml)")]
        file.write_text('tools = "raed"')
        assert checks() == (1, [("problem", "--tools: 'raed' is not a tool. Did you mean read?")])

    def test_settings_that_can_not_be_read_are_a_problem(self, project, checks):
        (project / ".claude" / "settings.json").write_text("{")
        code, ((state, text),) = checks()
        assert (code, state) == (1, "problem")
        assert ".claude/settings.json is not valid JSON" in text

    def test_home_is_a_problem(self, project, checks, clean_environment, monkeypatch):
        (clean_environment / ".claude" / "agents").mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(clean_environment)
        assert "it is the home folder, or has it in it" in checks()[1][0][1]
