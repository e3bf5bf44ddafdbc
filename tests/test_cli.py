"""The command: what it prints where, its exit codes, and what it does not load."""

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from fleet import command, until

from claude_force.cli.main import main
from claude_force.testing import faults
from claude_force.tools.tool_names import AVAILABLE


@pytest.fixture
def project(workplace):
    return workplace


@pytest.fixture
def faulty(another_server):
    """Puts a server with a plan of faults in the place of the healthy one."""
    return lambda *plan: another_server(faults=plan)


def json_of(capsys):
    return json.loads(capsys.readouterr().out)


class TestCache:
    @pytest.fixture
    def kept(self, project, capsys):
        """One answer, from the command itself."""
        assert main(["run", "agent", "python-expert", "--task", "x"]) == 0
        capsys.readouterr()
        return Path.home() / ".claude" / "cache"

    def test_second_run_is_a_hit(self, kept, messages_server, capsys):
        assert main(["run", "agent", "python-expert", "--task", "x"]) == 0
        assert "from the cache" in capsys.readouterr().err
        assert main(["run", "agent", "python-expert", "--task", "x", "--json"]) == 0
        assert json_of(capsys)["metadata"]["cached"] is True
        assert len(messages_server.requests) == 1

    @pytest.mark.parametrize("policy", ["refresh", "off"])
    def test_a_fresh_answer_can_be_asked_for(self, kept, messages_server, policy):
        assert main(["run", "agent", "python-expert", "--task", "x", "--cache", policy]) == 0
        assert len(messages_server.requests) == 2

    def test_stats_show_what_is_kept(self, kept, capsys):
        assert main(["cache", "stats", "--json"]) == 0
        stats = json_of(capsys)
        assert (stats["entries"], stats["cache_dir"]) == (1, str(kept))
        assert "hits" not in stats
        assert main(["cache", "stats"]) == 0
        assert "entries:       1" in capsys.readouterr().out

    def test_clear_removes_all_or_one_agents(self, kept, capsys):
        assert main(["cache", "clear", "--agent", "nobody", "--json"]) == 0
        assert json_of(capsys) == {"removed": 0}
        assert main(["cache", "clear", "--json"]) == 0
        assert json_of(capsys) == {"removed": 1}

    def test_verify_removes_forgery(self, kept, capsys):
        assert main(["cache", "verify"]) == 0
        with closing(sqlite3.connect(str(kept / "answers-1.db"))) as db:
            (sealed,) = db.execute("SELECT sealed FROM answer").fetchone()
            db.execute("UPDATE answer SET sealed = ?", (sealed[:-1] + b"!",))
            db.commit()
        capsys.readouterr()
        assert main(["cache", "verify", "--json"]) == 1
        captured = capsys.readouterr()
        assert json.loads(captured.out)["forged"] == 1
        assert "1 entry can't be trusted" in captured.err
        assert main(["cache", "verify", "--remove"]) == 0
        assert main(["cache", "verify"]) == 0

    def test_verify_names_unreadable_cache(self, kept, capsys):
        for file in kept.glob("answers-1.db*"):
            file.unlink()
        (kept / "answers-1.db").mkdir()
        assert main(["cache", "verify", "--json"]) == 2
        assert json_of(capsys)["error"] == f"The cache in {kept} can't be read: -v shows why."

    def test_explain_names_difference(self, kept, messages_server, capsys):
        assert main(["cache", "explain", "python-expert", "--task", "x"]) == 0
        assert capsys.readouterr().out == "hit: This answer is cached.\n"
        assert main(["cache", "explain", "python-expert", "--task", "y", "--json"]) == 0
        assert json_of(capsys)["differs"] == ["task"]
        assert len(messages_server.requests) == 1

    def test_refuses_folder_outside(self, project, capsys):
        assert main(["cache", "stats", "--dir", "/", "--json"]) == 2
        assert "not inside" in json_of(capsys)["error"]


class TestList:
    def test_pipe_gets_a_line_per_agent(self, project, capsys):
        assert main(["list", "agents"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "python-expert\t1\t\tpython.md",
            "code-reviewer\t2\t\tagents/code-reviewer.md",
        ]

    def test_agents_json_keeps_old_keys(self, project, capsys):
        assert main(["list", "agents", "--json"]) == 0
        expert, reviewer = json_of(capsys)
        old = {"name": "python-expert", "file": "python.md", "domains": [], "priority": 1}
        new = {"source": "claude.json", "kind": "agent", "tools": None, "skills": [], "description": ""}
        model = {"model": "claude-sonnet-5-5", "model_as_written": None}
        tools = {
            "offered": {"read": list(AVAILABLE[:3]), "edit": list(AVAILABLE[:5]), "bash": list(AVAILABLE)}
        }
        assert expert == {**old, **new, **model, **tools, "left_out": {}}
        assert (reviewer["model"], reviewer["model_as_written"]) == ("claude-haiku-5-5", "haiku")
        assert (reviewer["source"], reviewer["description"]) == ("project", "Reviews: all code")

    def test_names_broken_agent_file(self, project, capsys):
        (project / ".claude" / "agents" / "empty.md").write_text("---\nname: hollow\n---\n", encoding="utf-8")
        assert main(["list", "agents", "--json"]) == 0
        captured = capsys.readouterr()
        assert "hollow (agents/empty.md)" in captured.err
        assert "no instructions" in captured.err
        json.loads(captured.out)

    def test_no_agents_names_the_folder(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["list", "agents", "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out) == []
        assert ".claude/agents/NAME.md" in captured.err

    def test_workflows_list_agents_in_order(self, project, capsys):
        assert main(["list", "workflows"]) == 0
        assert "review\tpython-expert -> code-reviewer" in capsys.readouterr().out

    def test_workflows_json_is_as_written(self, project, capsys):
        assert main(["list", "workflows", "--json"]) == 0
        assert json_of(capsys)["review"] == ["python-expert", "code-reviewer"]

    def test_info_shows_an_agent(self, project, capsys):
        assert main(["info", "code-reviewer"]) == 0
        assert "Reviews: all code" in capsys.readouterr().out

    def test_common_options_before_verb(self, project, capsys):
        config = str(project / ".claude" / "claude.json")
        assert main(["--json", "--config", config, "info", "python-expert"]) == 0
        assert json_of(capsys)["contract"] == "contracts/python.md"


class TestRunAgent:
    def test_pipe_gets_answer_alone(self, project, capsys):
        assert main(["run", "agent", "python-expert", "--task", "Explain lists"]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("This is the report of")
        assert "tokens" in captured.err
        assert "1 attempt" in captured.err

    def test_json_keeps_old_shape(self, project, capsys):
        assert main(["run", "agent", "python-expert", "--task", "x", "--json"]) == 0
        fields = json_of(capsys)
        assert list(fields) == ["success", "agent", "output", "errors", "metadata"]
        assert fields["metadata"]["tokens_used"] > 0

    def test_sends_task_file_unchanged(self, project, messages_server, capsys):
        (project / "task.txt").write_bytes("a\r\n\u00e9\n\n".encode())
        assert main(["run", "agent", "python-expert", "--task-file", "task.txt"]) == 0
        assert messages_server.requests[0].body["messages"][0]["content"] == "a\r\n\u00e9\n\n"

    def test_reads_task_from_stdin(self, project, messages_server):
        done = command("run", "agent", "python-expert", input=b"from a pipe\n")
        assert done.returncode == 0, done.stderr
        assert messages_server.requests[0].body["messages"][0]["content"] == "from a pipe\n"

    def test_options_reach_the_request(self, project, messages_server, capsys):
        options = ["--model", "claude-opus-5-5", "--max-tokens", "7", "--no-stream"]
        assert main(["run", "agent", "python-expert", "--task", "x", *options]) == 0
        body = messages_server.requests[0].body
        assert (body["model"], body["max_tokens"], body["stream"]) == ("claude-opus-5-5", 7, False)
        assert "cut off" in capsys.readouterr().err

    def test_failed_agent_exits_1(self, faulty, capsys):
        faulty(faults.status(400, message="no such thing"))
        assert main(["run", "agent", "python-expert", "--task", "x"]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "no such thing" in captured.err
        assert "Traceback" not in captured.err

    def test_failed_agent_json(self, faulty, capsys):
        faulty(faults.status(401))
        assert main(["run", "agent", "python-expert", "--task", "x", "--json"]) == 1
        fields = json_of(capsys)
        assert fields["success"] is False
        assert "ANTHROPIC_API_KEY" in fields["errors"][0]

    def test_names_unknown_price(self, project, capsys):
        assert main(["run", "agent", "python-expert", "--task", "x", "--model", "gemma3"]) == 0
        assert "cost unknown" in capsys.readouterr().err


class TestRunWorkflow:
    def test_prints_each_step_as_it_ends(self, project, capsys):
        assert main(["run", "workflow", "review", "--task", "x"]) == 0
        out = capsys.readouterr().out
        assert out.index("== 1. python-expert") < out.index("== 2. code-reviewer")

    def test_json_keeps_old_shape(self, project, capsys):
        assert main(["run", "workflow", "review", "--task", "x", "--json"]) == 0
        fields = json_of(capsys)
        assert list(fields)[:5] == ["success", "workflow", "task", "total_tokens", "results"]
        assert fields["total_tokens"] == sum(one["metadata"]["tokens_used"] for one in fields["results"])

    def test_no_pass_output(self, project, messages_server):
        assert main(["run", "workflow", "review", "--task", "x", "--no-pass-output"]) == 0
        assert [one.body["messages"][0]["content"] for one in messages_server.requests] == ["x", "x"]

    def test_a_failed_step_is_exit_code_1(self, faulty, capsys):
        faulty(None, faults.status(400))
        assert main(["run", "workflow", "review", "--task", "x"]) == 1
        assert "== 2. code-reviewer" in capsys.readouterr().out


WRONG = {
    "no verb": ["--quiet"],
    "no kind": ["run"],
    "an unknown verb": ["fly"],
    "an unknown option": ["list", "agents", "--loud"],
    "a list where one model belongs": [
        "run",
        "agent",
        "python-expert",
        "--task",
        "x",
        "--model",
        "opus, haiku",
    ],
    "an unknown agent": ["run", "agent", "nobody", "--task", "x"],
    "a name that breaks the rule": ["run", "agent", "../../etc/passwd", "--task", "x"],
    "an empty task": ["run", "agent", "python-expert", "--task", ""],
    "a task file that is not there": ["run", "agent", "python-expert", "--task-file", "nowhere"],
    "two tasks": ["run", "agent", "python-expert", "--task", "x", "--task-file", "y"],
    "a word where a number belongs": ["run", "agent", "python-expert", "--task", "x", "--timeout", "soon"],
    "a limit that makes no sense": ["run", "agent", "python-expert", "--task", "x", "--max-retries", "0"],
    "a config that is not there": ["list", "agents", "--config", "nowhere.json"],
    "an unknown workflow": ["run", "workflow", "nothing", "--task", "x"],
    "a task that is an option and standard input": ["run", "agent", "python-expert", "-", "--task", "x"],
    "zero runs": ["runs", "list", "--last", "0"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
class TestWrongInput:
    def test_exits_2_and_sends_nothing(self, project, messages_server, capsys, arguments):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("claude-force: error: ")
        assert "Traceback" not in captured.err
        assert messages_server.requests == []

    def test_as_json_is_an_object_on_stdout(self, project, capsys, arguments):
        assert main([*arguments, "--json"]) == 2
        fields = json_of(capsys)
        assert fields["success"] is False
        assert fields["error"]


def test_missing_task_names_the_options(project, capsys, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(b""))
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert main(["run", "agent", "python-expert"]) == 2
    error = capsys.readouterr().err
    assert "--task TEXT" in error
    assert "--task-file FILE" in error
    assert "standard input" in error


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"x" * 400_010, "Standard input has more than 100,000 characters"), (b"caf\xe9", "is not UTF-8")],
    ids=["too long", "not UTF-8"],
)
def test_refuses_invalid_stdin(project, messages_server, capsys, monkeypatch, data, said):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["run", "agent", "python-expert", "-"]) == 2
    assert said in capsys.readouterr().err
    assert messages_server.requests == []


def test_names_task_file_not_utf8(project, capsys):
    (project / "latin.txt").write_bytes(b"caf\xe9")
    assert main(["run", "agent", "python-expert", "--task-file", "latin.txt"]) == 2
    assert "latin.txt is not UTF-8" in capsys.readouterr().err


def test_names_unusable_agent(project, capsys):
    (project / ".claude" / "python.md").unlink()
    assert main(["info", "python-expert"]) == 2
    said = capsys.readouterr().err
    assert "Agent 'python-expert' can't be used: " in said
    assert said.endswith("No such file or directory; check the name (python.md).\n")


COMMANDS = """
list agents; list workflows; info python-expert; workflow show review; completion bash; doctor --offline;
cache stats; cache verify; cache explain python-expert --task x; runs list; init;
metrics summary; metrics agents; metrics costs; metrics errors; metrics export;
list nothing; info nobody; workflow show nope; runs show nope; cache explain nobody --task x;
completion fisch; metrics costs --since never; report -o nowhere/page.html;
run agent python-expert --max-tokens few; run many none.jsonl -o out.jsonl; run; nonsense
"""


@pytest.mark.parametrize("arguments", [one.strip() for one in COMMANDS.split(";")])
def test_json_is_always_one_value(project, capsys, arguments):
    code = main([*arguments.split(), "--json"])
    value = json.loads(capsys.readouterr().out)
    if code:
        assert value["success"] is False
        assert value.get("error") or value["checks"]


def test_what_list_can_list_is_said(project, capsys):
    assert main(["list"]) == 2
    assert "required: {agents,workflows}" in capsys.readouterr().err


def test_verbose_logs_to_stderr(project, capsys):
    assert main(["-v", "run", "agent", "python-expert", "--task", "x", "--json"]) == 0
    captured = capsys.readouterr()
    json.loads(captured.out)
    assert "claude_force.engine.result_builder" in captured.err


def interrupted(server, *arguments):
    """Runs a command, interrupts it when its request is open, and returns how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "claude_force", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until(lambda: server.in_flight and len(server.requests) == arguments.count("--json") + 1)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    return process.returncode, out.decode(), error.decode()


def test_ctrl_c_exits_130(faulty):
    server = faulty(faults.silence_before_first_byte())
    code, out, error = interrupted(server, "run", "agent", "python-expert", "--task", "x")
    assert (code, out) == (130, "")
    assert error.strip() == "claude-force: error: interrupted"
    until(lambda: server.in_flight == 0)


def test_ctrl_c_keeps_finished_steps(faulty):
    server = faulty(None, faults.silence_before_first_byte())
    code, out, _ = interrupted(server, "run", "workflow", "review", "--task", "x", "--json")
    fields = json.loads(out)
    assert code == 130
    assert (fields["success"], fields["error"]) == (False, "interrupted")
    assert [one["agent"] for one in fields["results"]] == ["python-expert"]


def test_closed_pipe_ends_quietly(project):
    done = subprocess.run(
        f'"{sys.executable}" -m claude_force run agent python-expert --task x 2>err | true; cat err',
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "BrokenPipe" not in done.stdout + done.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_light(project, option):
    heavy = ("anthropic", "pydantic", "yaml", "asyncio", "rich", "aiohttp", "tenacity")
    source = (
        "import sys\nfrom claude_force.cli.main import main\n"
        f"code = main([{option!r}])\n"
        f"print(sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_list_needs_no_sdk(project):
    source = (
        "import sys\nsys.modules['anthropic'] = sys.modules['aiohttp'] = None\n"
        "from claude_force.cli.main import main\nsys.exit(main(['list', 'agents']))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "python-expert" in done.stdout


def test_names_missing_key(project, capsys, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert main(["run", "agent", "python-expert", "--task", "x"]) == 1
    assert "Set ANTHROPIC_API_KEY" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_terminal_gets_a_table(project):
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "claude_force", "list", "agents"], stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
        assert process.wait(timeout=60) == 0
    os.close(master)
    assert seen.decode().startswith("┏━")
    assert "python-expert" in seen.decode()
