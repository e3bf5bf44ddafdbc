"""Commands in a foreign project read only files inside it, and nothing there makes them hang."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from claude_force.agents import Registry
from claude_force.cli.main import main
from claude_force.storage.project_files import MOST_FOLDERS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs")

SECRET = "the secret of the home folder"
AGENT = "---\nname: {name}\ndescription: helps\n---\nYou help.\n"


@pytest.fixture
def clone(tmp_path, messages_server, monkeypatch):
    """A repository as the working directory, with one agent, beside a file of secrets."""
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    project = tmp_path / "clone"
    (project / ".git").mkdir(parents=True)
    (project / ".claude" / "agents").mkdir(parents=True)
    (project / "src").mkdir()
    write_agent(project / ".claude" / "agents" / "ok.md", "ok")
    monkeypatch.chdir(project)
    return project


def write_agent(path, name, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(AGENT.format(name=name) + text, encoding="utf-8")


def write_huge(path):
    with path.open("wb") as file:
        file.truncate(100 * 2**30)


def on_files(*patterns, output="out.jsonl"):
    return main(["run", "many", "--files", *patterns, "--agent", "ok", "-o", output])


def rows(path="out.jsonl"):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def sent(server):
    """All that was sent, as one text."""
    return "".join(json.dumps(one.body) for one in server.requests)


class TestFiles:
    def test_literal_file_name_is_that_file(self, clone, messages_server):
        for name in ("app/[id]/page.tsx", "app/home/page.tsx", "app/i/page.tsx"):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_text(f"text of {name}", encoding="utf-8")
        assert on_files("app/[id]/page.tsx", "app/home/page.tsx") == 0
        assert sorted(row["file"] for row in rows()) == ["app/[id]/page.tsx", "app/home/page.tsx"]
        assert "text of app/[id]/page.tsx" in sent(messages_server)

    @pytest.mark.parametrize("argument", ["*.rs", "none.py", "src"])
    def test_reports_pattern_without_match(self, clone, argument, capsys):
        (clone / "a.py").write_text("x", encoding="utf-8")
        assert on_files("a.py", argument) == 0
        assert f"warning: {argument} " in capsys.readouterr().err

    def test_without_any_file_nothing_is_run(self, clone, capsys):
        assert on_files("*.rs", "src") == 2
        said = capsys.readouterr().err
        assert "No file matches *.rs, src." in said
        assert "src is a folder" in said

    def test_outside_links_are_failed_rows(self, clone, messages_server, monkeypatch, capsys):
        monkeypatch.setenv("A_TOKEN", "token-of-the-environment")
        (clone / "src" / "a.py").write_text("mine", encoding="utf-8")
        (clone / "src" / "b.py").symlink_to("../../secret")
        (clone / "src" / "c.py").symlink_to("/proc/self/environ")
        (clone / "src" / "d.py").symlink_to("/dev/zero")
        os.mkfifo(clone / "src" / "e.py")
        assert on_files("src/**/*.py") == 3
        found = {row["file"]: row for row in rows()}
        assert [name for name, row in found.items() if row["success"]] == ["src/a.py"]
        for name in ("src/b.py", "src/c.py", "src/d.py", "src/e.py"):
            assert found[name]["error_type"] == "InputError"
            assert name in found[name]["error"]
        assert SECRET not in sent(messages_server)
        assert "token-of-the-environment" not in sent(messages_server)
        assert "src/b.py is a link that leads outside" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["src/b.py", "../clone/src/b.py", "ABSOLUTE", "ALIAS"])
    def test_refuses_link_under_any_spelling(self, clone, messages_server, name, capsys):
        (clone / "src" / "b.py").symlink_to("../../secret")
        (clone.parent / "alias").symlink_to("clone")
        name = {"ABSOLUTE": str(clone / "src/b.py"), "ALIAS": str(clone.parent / "alias/src/b.py")}.get(
            name, name
        )
        assert on_files(name) == 2
        assert f"{name} is a link that leads outside" in capsys.readouterr().err
        assert messages_server.requests == []

    def test_nested_clone_keeps_links_inside(self, clone, messages_server, monkeypatch):
        (clone.parent / ".claude" / "agents").mkdir(parents=True)
        write_agent(clone.parent / ".claude" / "agents" / "ok.md", "ok")
        (clone / "src" / "b.py").symlink_to("../../secret")
        monkeypatch.chdir(clone.parent)
        assert on_files("**/*.py", "clone/src/b.py") == 2
        assert messages_server.requests == []

    def test_outside_pattern_is_bounded_by_its_folder(self, clone, messages_server, monkeypatch):
        (clone / "src" / "b.py").symlink_to("../../secret")
        (clone / "src" / "a.py").write_text("mine", encoding="utf-8")
        elsewhere = clone.parent / "elsewhere"
        elsewhere.mkdir()
        write_agent(elsewhere / ".claude" / "agents" / "ok.md", "ok")
        monkeypatch.chdir(elsewhere)
        assert on_files("../clone/src/*.py") == 3
        assert {row["file"]: row["success"] for row in rows()} == {
            "../clone/src/a.py": True,
            "../clone/src/b.py": False,
        }
        assert SECRET not in sent(messages_server)

    def test_circles_and_links_to_the_system_end(self, clone, capsys):
        (clone / "src" / "a.py").write_text("x", encoding="utf-8")
        (clone / "src" / "up").symlink_to("..")
        (clone / "src" / "self").symlink_to("self")
        (clone / "src" / "usr").symlink_to("/usr")
        before = time.monotonic()
        assert on_files("**/*.py") == 0
        assert time.monotonic() - before < 5
        assert [row["file"] for row in rows()] == ["src/a.py"]
        assert "src/usr is a link that leads outside" in capsys.readouterr().err

    def test_a_huge_file_is_a_failed_row(self, clone):
        write_huge(clone / "src" / "a.py")
        (clone / "src" / "b.py").write_text("x", encoding="utf-8")
        assert on_files("src/a.py", "src/b.py") == 3
        assert {row["file"]: row["error"] for row in rows()}["src/a.py"].startswith(
            "src/a.py is over 16.0 MB"
        )

    def test_odd_file_name_is_one_line(self, clone, messages_server):
        for name in (b"a\nb.py", b"\x1b[2Jc.py", b"\xff.py"):
            Path(os.fsdecode(os.fsencode(clone / "src") + b"/" + name)).write_text("text", encoding="utf-8")
        assert on_files("src/*.py") == 0
        assert sorted(row["file"] for row in rows()) == [r"src/\x1b[2Jc.py", r"src/\xff.py", r"src/a\x0ab.py"]


class TestNamedFiles:
    @pytest.mark.parametrize("target", ["../secret.jsonl", "/dev/zero", "/proc/self/environ"])
    def test_refuses_task_file_link_out(self, clone, messages_server, target, capsys):
        (clone.parent / "secret.jsonl").write_text('{"task": "secret"}\n', encoding="utf-8")
        (clone / "tasks.jsonl").symlink_to(target)
        assert main(["run", "many", "tasks.jsonl", "--agent", "ok", "-o", "out.jsonl"]) == 2
        assert "tasks.jsonl is a link that leads outside" in capsys.readouterr().err
        assert messages_server.requests == []

    def test_accepts_task_file_elsewhere(self, clone, messages_server):
        tasks = clone.parent / "tasks.jsonl"
        tasks.write_text('{"task": "mine"}\n', encoding="utf-8")
        (clone.parent / "link.jsonl").symlink_to(tasks)
        for name in (tasks, clone.parent / "link.jsonl", "../tasks.jsonl"):
            assert main(["run", "many", str(name), "--agent", "ok", "-o", "out.jsonl", "--no-resume"]) == 0

    @pytest.mark.parametrize(
        "name", ["tasks.jsonl", "../tasks.jsonl", "tasks.csv", "tasks.json", "tasks.txt"]
    )
    def test_a_fifo_of_tasks_is_refused_at_once(self, clone, name, capsys):
        os.mkfifo(name)
        assert main(["run", "many", name, "--agent", "ok", "-o", "out.jsonl"]) == 2
        assert f"{name} can't be read: it is a FIFO" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.csv", "tasks.json", "tasks.txt"])
    def test_a_huge_file_of_tasks_is_refused(self, clone, name, capsys):
        write_huge(clone / name)
        before = time.monotonic()
        assert main(["run", "many", name, "--agent", "ok", "-o", "out.jsonl"]) == 2
        assert time.monotonic() - before < 5
        assert name in capsys.readouterr().err

    def test_refuses_huge_binary_task_file(self, clone, capsys):
        write_huge(clone / "tasks.jsonl")
        with (clone / "tasks.jsonl").open("r+b") as file:
            file.write(b"\xff")
        before = time.monotonic()
        assert main(["run", "many", "tasks.jsonl", "--agent", "ok", "-o", "out.jsonl"]) == 2
        assert time.monotonic() - before < 5
        assert "line 1 is not UTF-8" in capsys.readouterr().err

    def test_reports_removed_working_directory(self, clone, tmp_path, monkeypatch, capsys):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert main(["list", "agents"]) == 2
        assert "The working directory is not there any more" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["task.txt", "fifo"])
    def test_refuses_unsafe_task_file(self, clone, messages_server, name, capsys):
        (clone / "task.txt").symlink_to("../secret")
        os.mkfifo("fifo")
        assert main(["run", "agent", "ok", "--task-file", name]) == 2
        assert name in capsys.readouterr().err
        assert messages_server.requests == []

    def test_a_task_file_of_the_shells_is_read(self, clone, messages_server):
        done = subprocess.run(
            [
                "bash",
                "-c",
                f"{sys.executable} -m claude_force run agent ok --task-file <(echo task of a pipe)",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "task of a pipe" in sent(messages_server)

    def test_refuses_workflow_inputs_outside(self, clone, capsys):
        (clone / "in.json").symlink_to("/dev/zero")
        assert main(["run", "workflow", "w", "--task", "x", "--inputs", "in.json"]) == 2
        assert "in.json is a link that leads outside" in capsys.readouterr().err


class TestAgents:
    def said(self, capsys, *command):
        before = time.monotonic()
        code = main([*(command or ("list", "agents"))])
        assert time.monotonic() - before < 5
        out, err = capsys.readouterr()
        return code, out + err

    @pytest.mark.parametrize("target", ["/dev/zero", "../../secret", "/proc/self/environ"])
    def test_refuses_claude_json_link_out(self, clone, target, capsys):
        (clone / ".claude" / "claude.json").symlink_to(target)
        code, said = self.said(capsys)
        assert code == 2
        assert "claude.json is a link that leads outside" in said

    @pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, write_huge])
    def test_refuses_irregular_claude_json(self, clone, make, capsys):
        make(clone / ".claude" / "claude.json")
        code, said = self.said(capsys)
        assert code == 2
        assert "claude.json" in said

    def test_reads_linked_folder_inside(self, clone, capsys):
        write_agent(clone / "team" / "one.md", "one")
        (clone / ".claude" / "agents" / "shared").symlink_to("../../team")
        assert self.said(capsys)[1].split("\t")[::3][0] == "ok"
        assert main(["run", "agent", "one", "--task", "x"]) == 0

    def test_sees_edit_behind_link(self, clone):
        from claude_force.agents import Registry

        write_agent(clone / "team" / "one.md", "one", "first")
        (clone / ".claude" / "agents" / "shared").symlink_to("../../team")
        write_agent(clone / "two" / "one.md", "one", "third, and longer")
        registry = Registry()
        assert "first" in registry.get("one").definition
        write_agent(clone / "team" / "one.md", "one", "second, longer")
        assert "second" in registry.get("one").definition
        (clone / ".claude" / "agents" / "shared").unlink()
        (clone / ".claude" / "agents" / "shared").symlink_to("../../two")
        assert "third" in registry.get("one").definition

    @pytest.mark.parametrize("target", ["../../../home", "/usr", "../../../secret", "nowhere", "shared"])
    def test_reports_refused_link_and_loads_others(self, clone, target, capsys):
        (clone / ".claude" / "agents" / "shared").symlink_to(target)
        code, said = self.said(capsys)
        assert code == 0
        assert "ok" in said
        assert "agents/shared" in said

    @pytest.mark.parametrize("make", [os.mkfifo, write_huge, lambda path: path.symlink_to("/dev/zero")])
    def test_reports_irregular_agent_file(self, clone, make, capsys):
        make(clone / ".claude" / "agents" / "bad.md")
        code, said = self.said(capsys)
        assert code == 0
        assert "agents/bad.md" in said

    @pytest.mark.parametrize("make", [os.mkfifo, write_huge, lambda path: path.symlink_to("/etc/passwd")])
    def test_reports_irregular_contract_file(self, clone, make, capsys):
        entry = {"file": "agents/ok.md", "contract": "bad.md"}
        (clone / ".claude" / "claude.json").write_text(json.dumps({"agents": {"a": entry}}), encoding="utf-8")
        make(clone / ".claude" / "bad.md")
        assert "its contract bad.md" in self.said(capsys)[1]

    @pytest.mark.parametrize("target", ["/", "../.."])
    def test_refuses_claude_folder_link_out(self, clone, target, capsys):
        (clone / ".claude").rename("elsewhere")
        (clone / ".claude").symlink_to(target)
        for command in (
            ("list", "agents"),
            ("run", "agent", "ok", "--task", "x"),
            ("list", "agents", "--config", "."),
        ):
            code, said = self.said(capsys, *command)
            assert code == 2
            assert ".claude is a link that leads outside" in said

    def test_follows_claude_folder_link_inside(self, clone, capsys):
        (clone / ".claude").rename("elsewhere")
        (clone / ".claude").symlink_to("elsewhere")
        assert main(["run", "agent", "ok", "--task", "x"]) == 0

    def test_the_users_own_folder_may_be_a_link(self, clone, clean_environment, capsys):
        write_agent(clean_environment / "dotfiles" / "agents" / "mine.md", "mine")
        (clean_environment / ".claude").symlink_to("dotfiles")
        assert main(["run", "agent", "mine", "--task", "x"]) == 0

    def test_ignores_folder_of_other_user(self, clone, monkeypatch, capsys):
        shared = clone.parent / "shared"
        (shared / "own").mkdir(parents=True)
        write_agent(clone.parent / ".claude" / "agents" / "theirs.md", "theirs")
        shared.chmod(0o1777)
        monkeypatch.chdir(shared / "own")
        assert main(["run", "agent", "theirs", "--task", "x"]) == 2

    def test_skips_endless_nested_folders(self, clone, capsys):
        place = clone / ".claude" / "agents"
        (place / "folder.md").mkdir()
        write_agent(place / "folder.md" / "inner.md", "inner")
        deep = place
        for _ in range(MOST_FOLDERS + 3):
            deep = deep / "d"
        deep.mkdir(parents=True)
        code, said = self.said(capsys)
        assert code == 0
        assert "inner" in said
        assert f"deeper than {MOST_FOLDERS} folders" in said

    def test_a_folder_of_too_many_files_is_named(self, clone, capsys):
        for number in range(10_001):
            (clone / ".claude" / "agents" / f"a{number}.md").touch()
        assert "more than 10,000 files" in self.said(capsys)[1]
        code, said = self.said(capsys, "run", "agent", "ok", "--task", "x")
        assert code == 2
        assert "agents can't be used: it has more than 10,000 files" in said


class TestWorkflows:
    def test_too_many_lines_fail_step(self, clone, messages_server, capsys):
        (clone / "lines.txt").write_text("x\n" * 200_001, encoding="utf-8")
        step = {"id": "each", "agent": "ok", "foreach": {"lines": "lines.txt"}}
        config = {"workflows": {"w": {"steps": [step]}}}
        (clone / ".claude" / "claude.json").write_text(json.dumps(config), encoding="utf-8")
        assert main(["run", "workflow", "w", "--task", "x"]) == 1
        assert "lines.txt has more than 200,000 lines" in "".join(capsys.readouterr())
        assert messages_server.requests == []

    def test_outside_match_fails_unsent(self, clone, messages_server, capsys):
        (clone / "src" / "a.py").write_text("mine", encoding="utf-8")
        (clone / "src" / "b.py").symlink_to("../../secret")
        os.mkfifo(clone / "src" / "c.py")
        step = {"id": "each", "agent": "ok", "foreach": {"files": "src/*.py"}, "task": "Read ${item.text}"}
        config = {"workflows": {"w": {"steps": [step]}}}
        (clone / ".claude" / "claude.json").write_text(json.dumps(config), encoding="utf-8")
        assert main(["run", "workflow", "w", "--task", "x"]) == 1
        assert "src/b.py" in "".join(capsys.readouterr())
        assert SECRET not in sent(messages_server)
        assert "mine" in sent(messages_server)


YAML = "---\nname: l\nx: [" + "a," * 30_000 + "]\n---\nx"
LENIENT = "---\nname: l\n" + "".join(f"k{n}: x\n" for n in range(6_000)) + "\t- {\n---\nx"


def write(root, file, text):
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text, encoding="utf-8")


class TestProjectsOfVeryMuch:
    """Each file is small enough, and all of them together are not."""

    @pytest.fixture
    def root(self, tmp_path, clean_environment):
        (tmp_path / ".claude" / "agents").mkdir(parents=True)
        write(tmp_path, ".claude/agents/a.md", "---\nname: a\ndescription: d\n---\nReview.\n")
        return tmp_path

    def read(self, root):
        began = time.process_time()
        registry = Registry(root / ".claude")
        assert registry.get("a").name == "a"
        assert time.process_time() - began < 5.0
        return " ".join(one.reason for one in registry.problems())

    @pytest.mark.parametrize("text", [YAML, LENIENT], ids=["yaml", "no yaml"])
    def test_total_front_matter_is_bounded(self, root, text):
        for number in range(20):
            write(root, f".claude/agents/l{number}.md", text)
        assert "all front matter together has over" in self.read(root)

    def test_bytes_of_all_files_are_bounded(self, root):
        for number in range(40):
            write(root, f".claude/agents/l{number}.md", "---\nname: l\n---\n" + "x" * 900_000)
        assert "16 MB together" in self.read(root)

    def test_repeated_plugin_folders_are_bounded(self, root):
        entries = [{"name": f"n{n}", "source": "./", "agents": ["./.claude/agents"]} for n in range(200)]
        write(root, ".claude-plugin/marketplace.json", json.dumps({"name": "m", "plugins": entries}))
        for number in range(100):
            write(root, f".claude/agents/l{number}.md", f"---\nname: l{number}\n---\nx")
        assert "is not read: agents, commands and skills have more than 10,000 files" in self.read(root)

    def test_skill_text_is_stored_once(self, root):
        write(root, ".claude/skills/s/SKILL.md", "---\nname: s\n---\ny\n")
        for name in "bc":
            write(root, f".claude/agents/{name}.md", f"---\nname: {name}\nskills: s, s\n---\nx")
        registry = Registry(root / ".claude")
        (one,), (other,) = registry.get("b").skill_texts, registry.get("c").skill_texts
        assert one is other
