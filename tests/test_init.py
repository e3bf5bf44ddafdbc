"""`claude-force init`: makes a folder that works at once, and changes no existing file."""

import json

import pytest

from claude_force.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty project as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fields_of(capsys):
    return json.loads(capsys.readouterr().out)


def test_makes_sample_agents(folder, capsys):
    assert main(["init"]) == 0
    out = capsys.readouterr().out
    assert f"made {folder / '.claude' / 'agents' / 'code-reviewer.md'}" in out
    assert "next: claude-force run agent code-reviewer --task" in out
    assert main(["list", "agents", "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 3
    assert captured.err == ""


def test_the_workflow_that_it_makes_runs(folder, messages_server, capsys):
    main(["init"])
    capsys.readouterr()
    assert main(["run", "workflow", "review-and-test", "--task", "def f(): pass", "--json"]) == 0
    assert [one["agent"] for one in fields_of(capsys)["results"]] == ["code-reviewer", "test-writer"]


def test_a_second_time_changes_nothing(folder, capsys):
    main(["init"])
    before = everything_in(folder)
    capsys.readouterr()
    assert main(["init"]) == 0
    assert "has 3 agents: nothing is needed" in capsys.readouterr().out
    assert everything_in(folder) == before


def test_claude_code_folder_needs_nothing(folder, capsys):
    agents = folder / ".claude" / "agents"
    agents.mkdir(parents=True)
    (agents / "mine.md").write_text("---\nname: mine\n---\nYou are mine.\n")
    before = everything_in(folder)
    assert main(["init", "--json"]) == 0
    fields = fields_of(capsys)
    assert (fields["needed"], fields["made"], fields["agents"]) == (False, [], ["mine"])
    assert fields["next"].startswith("claude-force run agent mine")
    assert everything_in(folder) == before


def test_finds_project_from_below(folder, monkeypatch, capsys):
    main(["init"])
    (folder / "src").mkdir()
    monkeypatch.chdir(folder / "src")
    capsys.readouterr()
    assert main(["init"]) == 0
    assert f"{folder / '.claude'} has 3 agents" in capsys.readouterr().out
    assert list((folder / "src").iterdir()) == []


def test_keeps_existing_files(folder, capsys):
    claude = folder / ".claude"
    claude.mkdir()
    (claude / "claude.json").write_text('{"workflows": {}, "mine": true}')
    (claude / "settings.json").write_text("{}")
    assert main(["init", "--json"]) == 0
    fields = fields_of(capsys)
    assert fields["kept"] == [str(claude / "claude.json")]
    assert len(fields["made"]) == 3
    assert (claude / "claude.json").read_text() == '{"workflows": {}, "mine": true}'
    assert (claude / "settings.json").read_text() == "{}"


def test_user_agents_make_no_project(folder, clean_environment, capsys):
    own = clean_environment / ".claude" / "agents"
    own.mkdir(parents=True)
    (own / "everywhere.md").write_text("---\nname: everywhere\n---\nYou are there.\n")
    assert main(["init", "--json"]) == 0
    fields = fields_of(capsys)
    assert fields["folder"] == str(folder / ".claude")
    assert len(fields["made"]) == 4
    assert "everywhere" in fields["agents"]


def test_another_folder_can_be_named(folder, capsys):
    (folder / "other").mkdir()
    assert main(["init", "other"]) == 0
    assert (folder / "other" / ".claude" / "claude.json").is_file()
    assert main(["init", "nowhere"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_keeps_broken_claude_json(folder, capsys):
    (folder / ".claude").mkdir()
    (folder / ".claude" / "claude.json").write_text("{")
    assert main(["init"]) == 2
    assert "claude.json is not valid JSON" in capsys.readouterr().err
    assert everything_in(folder) == {folder / ".claude" / "claude.json": b"{"}


def test_names_unwritable_folder(folder, capsys):
    (folder / ".claude").write_text("a file")
    assert main(["init"]) == 2
    assert "can't be written" in capsys.readouterr().err


def test_names_closed_folder(folder, capsys):
    assert main(["init", "x" * 300]) == 2
    assert "x can't be used: File name too long." in capsys.readouterr().err
