"""Completion: what is offered at each place of a command line, and that the real shells offer it."""

import json
import os
import shutil
import subprocess
import sys

import pexpect
import pytest
from fleet import write_project

from claude_force.cli.main import main

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project as the working directory, and `claude-force` on the PATH."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "claude-force"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m claude_force "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return tmp_path


def offered(capsys, *words):
    main(["__complete", *words])
    return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]


class TestOffers:
    def test_verbs_with_what_they_do(self, project, capsys):
        assert main(["__complete", "li"]) == 0
        assert capsys.readouterr().out == "list\tList the project's agents or workflows.\n"

    def test_every_verb_at_an_empty_word(self, project, capsys):
        found = offered(capsys, "")
        assert {"init", "list", "info", "run", "cache", "demo", "completion"} <= set(found)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["run", ""], ["agent", "workflow", "many"]),
            (["cache", "v"], ["verify"]),
            (["list", ""], ["agents", "workflows"]),
            (["run", "agent", ""], ["python-expert", "code-reviewer"]),
            (["run", "agent", "py"], ["python-expert"]),
            (["run", "workflow", ""], ["review", "graph", "broken"]),
            (["info", "b"], ["broken"]),
            (["info", "p"], ["python-expert"]),
            (["-v", "--json", "run", "agent", "py"], ["python-expert"]),
            (["run", "agent", "--max-tokens", "5", "py"], ["python-expert"]),
            (["run", "agent", "--task", "code", "py"], ["python-expert"]),
            (["run", "agent", "--task=code", "py"], ["python-expert"]),
            (["run", "agent", "--task", "=", "code", "py"], ["python-expert"]),
            (["run", "agent", "x", "--cac"], ["--cache", "--cache-ttl"]),
            (["run", "agent", "x", "--cache", ""], ["use", "refresh", "off"]),
            (["run", "agent", "x", "--cache", "=", "re"], ["refresh"]),
            (["run", "agent", "x", "--cache", "="], ["use", "refresh", "off"]),
            (["run", "agent", "x", "--cache=re"], ["--cache=refresh"]),
            (["run", "agent", "--model", "so"], ["sonnet"]),
            (["run", "many", "--agent", "c"], ["code-reviewer"]),
            (["run", "many", ""], [":files"]),
            (["run", "many", "--files", "a.py", ""], [":files"]),
            (["run", "many", "--files", "a.py", "--agent", "c"], ["code-reviewer"]),
            (["run", "agent", "x", "--task-file", ""], [":files"]),
            (["cache", "stats", "--dir", ""], [":folders"]),
            (["run", "agent", "x", "--task", ""], []),
            (["fly", "-"], []),
        ],
        ids=lambda words: " ".join(words) or "nothing",
    )
    def test_fit_their_place(self, project, capsys, words, expected):
        found = offered(capsys, *words)
        if words == ["fly", "-"]:
            assert "--json" in found
        else:
            assert sorted(found) == sorted(expected)

    def test_uses_named_config(self, project, capsys):
        (project / "other.md").write_text("You are another.")
        (project / "other.json").write_text(json.dumps({"agents": {"another": {"file": "other.md"}}}))
        assert offered(capsys, "--config", "other.json", "run", "agent", "") == ["another"]

    def test_broken_project_offers_nothing(self, project, capsys):
        (project / ".claude" / "claude.json").write_text("{")
        assert main(["__complete", "run", "agent", ""]) == 1
        assert capsys.readouterr() == ("", "")

    def test_needs_no_sdk_or_asyncio(self, project):
        source = (
            "import sys\nfrom claude_force.cli.main import main\nmain(['__complete', 'run', 'agent', ''])\n"
            "print(sorted({'anthropic', 'asyncio', 'rich', 'aiohttp', 'pydantic'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[-1] == "[]", done.stderr


def bash(line):
    """What bash's completion makes of a line."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    program = (
        'eval "$(claude-force completion bash)"\n'
        f"COMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\n"
        f"_claude_force claude-force '{words[-1]}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    return run_shell("bash", "--norc", "-c", program)


def fish(line):
    program = f"claude-force completion fish | source; complete -C '{line}'"
    return [found.split("\t")[0] for found in run_shell("fish", "--no-config", "-c", program)]


def run_shell(*arguments):
    done = subprocess.run(list(arguments), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
class TestBash:
    def test_completes_verbs_and_agents(self, project):
        assert bash("claude-force run ag") == ["agent"]
        assert bash("claude-force run agent ") == ["python-expert", "code-reviewer"]

    def test_completes_after_equals_sign(self, project):
        assert bash("claude-force run agent x --cache = re") == ["refresh"]


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
class TestFish:
    def test_completes_words_and_options(self, project):
        assert fish("claude-force run ag") == ["agent"]
        assert sorted(fish("claude-force run agent ")) == ["code-reviewer", "python-expert"]
        assert fish("claude-force run agent x --cache=re") == ["--cache=refresh"]

    def test_completes_files(self, project):
        (project / "tasks.jsonl").write_text("")
        assert fish("claude-force run many tas") == ["tasks.jsonl"]


@pytest.mark.parametrize(
    ("shell", "start"),
    [
        (["bash", "--norc", "-i"], "bind 'set enable-bracketed-paste off'"),
        (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D; unset zle_bracketed_paste"),
    ],
    ids=["bash", "zsh"],
)
def test_tab_completes_typed_line(project, shell, start):
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    terminal = pexpect.spawn(
        shell[0], shell[1:], encoding="utf-8", timeout=90, dimensions=(24, 120), use_poll=True
    )
    terminal.sendline(f"PS1='% '; {start}; eval \"$(claude-force completion {shell[0]})\"; echo rea''dy")
    terminal.expect("[\r\n]ready")
    # The completed line is printed by going to its beginning and making it the words of an echo.
    for typed, whole in (
        ("claude-force run agent py", "claude-force run agent python-expert"),
        ("claude-force run workflow rev", "claude-force run workflow review"),
        ("claude-force completi", "claude-force completion"),
    ):
        terminal.send(f"{typed}\t")
        terminal.expect(whole[len(typed) :])
        terminal.send("\x01echo '=' \r")
        terminal.expect_exact(f"= {whole}\r\n")
    terminal.close(force=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_shell_accepts_script(project, capsys, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    (project / "script").write_text(capsys.readouterr().out)
    run_shell(shell, "-n", "script")
