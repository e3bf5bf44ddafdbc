"""Agents that edit, on the command line: their patches are shown, saved or applied."""

import json

import pytest
from worktrees import contents, everything, git, needs_git, write

from claude_force.cli.main import main
from claude_force.testing import Script, tool_calls

pytestmark = needs_git

FIXER = "---\nname: fixer\ndescription: Fixes\ntools: Read, Edit, Write\n---\nYou fix.\n"
EDIT = tool_calls(("Edit", {"file_path": "src/a.py", "old_string": "x = 1", "new_string": "x = 2"}))


@pytest.fixture
def project(workplace):
    """A repository with an agent that edits, and a file for it."""
    write(workplace, {".claude/agents/fixer.md": FIXER.encode(), "src/a.py": b"x = 1\ny = 1\n"})
    git(workplace, "init", "-q")
    git(workplace, "add", "-A")
    git(workplace, "commit", "-qm", "first")
    return workplace


@pytest.fixture
def script(project, another_server):
    def start(*answers):
        return another_server(answer=Script([*answers, "Fixed."]))

    return start


def run(capsys, *arguments, code=0):
    found = main(["run", *arguments, "--price", "claude-sonnet-5-5=3,15"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out, captured.err


def agent(capsys, *arguments, **more):
    return run(capsys, "agent", "fixer", "--task", "Fix", "--tools", "edit", *arguments, **more)


def source(project):
    return (project / "src" / "a.py").read_text()


class TestAgent:
    def test_patch_is_shown_and_nothing_is_changed(self, project, script, capsys):
        script(EDIT)
        before = everything(project / "src")
        out, err = agent(capsys)
        assert out == "Fixed.\n"
        assert "+x = 2" in err
        assert "changed in a copy: src/a.py; --apply" in err
        assert everything(project / "src") == before

    def test_patch_is_saved(self, project, script, capsys, tmp_path):
        script(EDIT)
        _, err = agent(capsys, "--patch", str(tmp_path / "p.patch"))
        assert "+x = 2" not in err
        git(project, "apply", str(tmp_path / "p.patch"))
        assert source(project) == "x = 2\ny = 1\n"

    def test_patch_is_in_the_json(self, project, script, capsys):
        script(EDIT)
        out, _ = agent(capsys, "--json")
        found = json.loads(out)
        assert found["changed_files"] == ["src/a.py"]
        assert "+x = 2" in found["patch"]

    def test_patch_is_applied(self, project, script, capsys):
        script(EDIT)
        index = everything(project / ".git")
        _, err = agent(capsys, "--apply")
        assert source(project) == "x = 2\ny = 1\n"
        assert "changed: src/a.py" in err
        assert everything(project / ".git") == index

    def test_works_in_place(self, project, script, capsys):
        script(EDIT)
        out, err = agent(capsys, "--in-place")
        assert source(project) == "x = 2\ny = 1\n"
        assert (out, "copy" in err) == ("Fixed.\n", False)

    def test_patch_that_does_not_fit_any_more_is_shown(self, project, script, capsys, monkeypatch):
        script(EDIT)
        from claude_force.cli import copies

        apply_rows = copies.apply_rows

        def change_first(*given):
            (project / "src" / "a.py").write_text("other\n")
            return apply_rows(*given)

        monkeypatch.setattr(copies, "apply_rows", change_first)
        _, err = agent(capsys, "--apply", code=1)
        assert "does not fit" in err and "+x = 2" in err
        assert source(project) == "other\n"

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["--apply"], "--apply is for agents that change files"),
            (["--in-place"], "--in-place is for agents"),
            (["--patch", "x"], "--patch is for agents"),
            (["--tools", "edit", "--apply", "--in-place"], "exclude each other"),
        ],
    )
    def test_options_without_sense_are_refused(self, script, capsys, arguments, text):
        server = script()
        _, err = run(capsys, "agent", "fixer", "--task", "x", *arguments, code=2)
        assert text in err
        assert not server.requests


class TestMany:
    def rows(self, project, *edits):
        """A script by rows: each an edit of `src/a.py`, as (old, new)."""
        (project / "tasks.jsonl").write_text(
            "".join(json.dumps({"agent": "fixer", "task": f"{old} -> {new}"}) + "\n" for old, new in edits)
        )

        def answer(body):
            text = json.dumps(body["messages"][0])
            old, new = next(one for one in edits if f"{one[0]} -> {one[1]}" in text)
            if len(body["messages"]) > 1:
                return "Fixed."
            return tool_calls(("Edit", {"file_path": "src/a.py", "old_string": old, "new_string": new}))

        return answer

    def many(self, capsys, *arguments, **more):
        return run(capsys, "many", "tasks.jsonl", "--tools", "edit", "-o", "out.jsonl", *arguments, **more)

    def test_patches_that_fit_are_applied_in_the_order_of_rows(self, project, another_server, capsys):
        another_server(answer=self.rows(project, ("x = 1", "x = 2"), ("x = 1", "x = 3"), ("y = 1", "x = 2")))
        before = contents(project / "src")
        _, err = self.many(capsys)
        assert contents(project / "src") == before
        assert "3 rows have a patch: the same command with --apply applies what fits" in err
        # Paid for once: the same command applies.
        _, err = self.many(capsys, "--apply", code=3)
        assert source(project) == "x = 2\ny = 1\n"
        assert "1 patch was applied" in err
        assert "row 2 is left out: The patch does not fit" in err

    def test_rows_have_patch_and_files(self, project, another_server, capsys):
        another_server(answer=self.rows(project, ("x = 1", "x = 2")))
        out, _ = self.many(capsys, "--apply", "--json")
        summary = json.loads(out)
        assert (summary["success"], summary["applied"], summary["conflicts"]) == (True, [0], [])
        row = json.loads((project / "out.jsonl").read_text())
        assert row["changed_files"] == ["src/a.py"]
        assert "+x = 2" in row["patch"]
        # Again: nothing is asked, and what is applied stays.
        out, _ = self.many(capsys, "--apply", "--json")
        assert json.loads(out)["applied"] == [0]
        assert source(project) == "x = 2\ny = 1\n"

    def test_in_place_is_no_option(self, project, script, capsys):
        script()
        _, err = self.many(capsys, "--in-place", code=2)
        assert "no option --in-place; run agent has it" in err

    def test_apply_needs_a_file(self, project, script, capsys):
        server = script()
        self.rows(project, ("x = 1", "x = 2"))
        _, err = run(capsys, "many", "tasks.jsonl", "--tools", "edit", "--apply", "-o", "-", code=2)
        assert "--apply needs results that can be read again" in err
        assert not server.requests


class TestWorkflow:
    def test_patches_are_applied_in_the_order_of_steps(self, project, another_server, capsys):
        steps = [{"id": name, "agent": "fixer", "task": f"step {name}"} for name in "ab"]
        agents = {"fixer": {"file": "agents/fixer.md"}}
        (project / ".claude" / "claude.json").write_text(
            json.dumps({"agents": agents, "workflows": {"both": {"steps": steps}}})
        )

        def answer(body):
            if len(body["messages"]) > 1:
                return "Fixed."
            old = "x = 1" if "step a" in json.dumps(body["messages"][0]) else "y = 1"
            return tool_calls(("Edit", {"file_path": "src/a.py", "old_string": old, "new_string": "z = 0"}))

        server = another_server(answer=answer)
        out, err = run(capsys, "workflow", "both", "--task", "x", "--tools", "edit", "--json")
        run_id = json.loads(out)["run_id"]
        assert "2 answers have a patch" in err
        assert source(project) == "x = 1\ny = 1\n"
        sent = len(server.requests)
        resume = ["workflow", "both", "--resume", run_id, "--tools", "edit", "--apply"]
        out, err = run(capsys, *resume, "--json", code=1)
        found = json.loads(out)
        assert (found["applied"], [one["index"] for one in found["conflicts"]]) == ([0], [1])
        assert source(project) == "z = 0\ny = 1\n"
        assert len(server.requests) == sent
