"""Control sequences from projects, file names and servers never reach a terminal."""

import json
import re
import sys

import pytest

from claude_force.cli.main import main
from claude_force.testing import faults

# Colour, title, clear; a bell; C1's CSI; a right-to-left override and an isolate; invisible letters.
ORDERS = "\x1b[31m\x1b]0;owned\x07\x9b2J\u202eknab\u2066\u200b\u2028\r\x08"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
NAME = f"flow{ORDERS}"


@pytest.fixture
def hostile(workplace):
    """A project whose names, descriptions and models hold orders."""
    claude = workplace / ".claude"
    config = json.loads((claude / "claude.json").read_text(encoding="utf-8"))
    config["agents"]["python-expert"].update(domains=[f"py{ORDERS}"], model=f"m{ORDERS}")
    config["agents"][f"bad{ORDERS}"] = {"file": f"no{ORDERS}.md"}
    config["workflows"][NAME] = {
        "steps": [
            {"id": "a", "agent": "python-expert", "task": "x"},
            {
                "id": f"s{ORDERS}",
                "agent": "python-expert",
                "task": f"{ORDERS} {{a}}",
                "needs": ["a"],
                "when": {"a": f"contains:{ORDERS}"},
            },
        ]
    }
    config["workflows"][f"list{ORDERS}"] = [f"nobody{ORDERS}"]
    (claude / "claude.json").write_text(json.dumps(config), encoding="utf-8")
    (claude / "agents" / "loud.md").write_text(
        f'---\nname: loud\ndescription: "{ORDERS.encode("unicode_escape").decode()}"\n'
        f"model: x{ORDERS}\ntools: {ORDERS}\nmistery: {ORDERS}\n---\nBe loud.\n",
        encoding="utf-8",
    )
    (claude / "agents" / "broken\x1b[31m\u202e.md").write_text("---\nname: [\n---\nx\n", encoding="utf-8")
    return workplace


@pytest.mark.parametrize(
    "words",
    [
        ["list", "agents"],
        ["list", "workflows"],
        ["info", "loud"],
        ["info", "python-expert"],
        ["info", NAME],
        ["info", f"nobody{ORDERS}"],
        ["doctor"],
        ["workflow", "show", NAME],
        ["workflow", "show", NAME, "--format", "mermaid"],
        ["workflow", "show", NAME, "--format", "dot"],
        ["workflow", "check", NAME],
        ["run", "workflow", NAME, "--task", "x"],
        ["run", "workflow", NAME, "--task", "x", "-v"],
        ["run", "workflow", f"list{ORDERS}", "--task", "x"],
        ["run", "agent", f"bad{ORDERS}", "--task", "x"],
        ["run", "agent", "python-expert", "--task", "x", "--model", f"m{ORDERS}"],
        ["run", "many", f"no{ORDERS}.jsonl", "-o", "out.jsonl"],
        ["run", "many", "--files", f"{ORDERS}*", "--agent", "loud", "--task", "x", "-o", "out.jsonl"],
        [f"verb{ORDERS}"],
        ["run", "agent", "python-expert", f"--option{ORDERS}"],
        ["metrics", "summary", "--hours", f"1{ORDERS}"],
        ["report", "--since", f"1{ORDERS}"],
        ["cache", "explain", "python-expert", "--task", "x", "--model", f"m{ORDERS}"],
        ["runs", "show", f"run{ORDERS}"],
        ["__complete", "run", "workflow", ""],
        ["__complete", "run", "agent", ""],
    ],
)
def test_project_sends_no_control_chars(hostile, capsys, words):
    main(words)
    said = capsys.readouterr()
    assert said.out or said.err
    assert not FORBIDDEN.search(said.out.replace("\r\n", "\n"))
    assert not FORBIDDEN.search(said.err)


@pytest.mark.parametrize("words", [["-v"], ["--json"], []])
def test_nor_what_a_server_says(workplace, another_server, capsys, words):
    another_server(faults=[faults.status(400, message=f"m{ORDERS}")])
    assert main(["run", "agent", "python-expert", "--task", "x", *words]) == 1
    said = capsys.readouterr()
    assert not FORBIDDEN.search(said.out)
    assert not FORBIDDEN.search(said.err)


def test_ledger_sends_no_control_chars(workplace, capsys):
    folder = workplace / ".claude" / "metrics"
    folder.mkdir()
    line = {"timestamp": "2026-11-25T08:30:00+00:00", "agent_name": f"a{ORDERS}", "model": f"m{ORDERS}"}
    line.update(error_type=f"E{ORDERS}", success=False, workflow_name=f"w{ORDERS}")
    (folder / "executions.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    for what in ("summary", "agents", "models", "costs", "errors"):
        assert main(["metrics", what]) == 0
        said = capsys.readouterr()
        assert said.out
        assert not FORBIDDEN.search(said.out + said.err)


def test_a_piped_answer_stays_as_it_is(workplace, another_server, capsys):
    answer = "\x1b[31mred\x1b[0m and \u202eback"
    another_server(answer=lambda request: answer)
    assert main(["run", "agent", "python-expert", "--task", "x"]) == 0
    assert capsys.readouterr().out == answer + "\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
@pytest.mark.parametrize("words", [["list", "workflows"], ["run", "workflow", NAME, "--task", "x"]])
def test_terminal_gets_own_codes_only(hostile, words):
    from test_terminal import ESCAPE, Terminal

    terminal = Terminal(*words)
    terminal.end()
    assert "owned" in terminal.seen or "flow" in terminal.seen
    assert "\x1b[31m" not in terminal.seen and "\x1b]0;" not in terminal.seen
    text = ESCAPE.sub("", terminal.seen).replace("\r", "")
    assert not FORBIDDEN.search(text)


def test_completion_skips_unsafe_names(workplace, capsys):
    path = workplace / ".claude" / "claude.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["workflows"].update({"$(touch PWNED)": ["python-expert"], "a;b": ["python-expert"], "`c`": []})
    path.write_text(json.dumps(config), encoding="utf-8")
    assert main(["__complete", "run", "workflow", ""]) == 0
    offered = [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert offered
    assert all(re.fullmatch(r"[\w-]+", name) for name in offered)
