"""Ctrl-C at any moment: exit code 130, at once, one line, no traceback."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from fleet import write_project

from claude_force.testing import MessagesServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
ASK = ("run", "agent", "python-expert", "--task", "x")
COMMAND = [sys.executable, "-m", "claude_force"]
# Runs the command and interrupts it when a module begins to be imported.
AT_IMPORT = """
import os, signal, sys
wanted = sys.argv[1]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["claude-force", *sys.argv[2:]]
from claude_force.cli.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n')
    with MessagesServer(time_to_first_token=5) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield tmp_path


def interrupted_at(module, *arguments):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, module, *arguments], capture_output=True, text=True, timeout=60
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("claude_force.cli.main", ("--help",)),
        ("argparse", ("--help",)),
        ("claude_force.cli.arguments", ("list", "agents")),
        ("claude_force.agents", ("list", "agents")),
        ("asyncio", ASK),
        ("anyio", ("run", "many", "t.jsonl", "-o", "o.jsonl")),
        ("aiohttp", ASK),
        ("aiohttp.client", ASK),
        ("aiohttp.connector", ("run", "workflow", "review", "--task", "x")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
class TestWithinAnImport:
    def test_is_one_line_and_130(self, project, module, arguments):
        done, _ = interrupted_at(module, *arguments)
        assert (done.returncode, done.stdout) == (130, "")
        assert done.stderr == "claude-force: error: interrupted\n"


@pytest.mark.parametrize(
    "arguments", [("doctor",), ("run", "many", "t.jsonl", "-o", "o.jsonl")], ids=" ".join
)
def test_import_of_aiohttp(project, arguments):
    done, _ = interrupted_at("aiohttp", *arguments)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_import_with_json(project):
    done, _ = interrupted_at("aiohttp", *ASK, "--json")
    assert done.returncode == 130
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"success": False, "error": "interrupted"}


def test_slow_import_is_not_waited_for(project):
    slow = project / "slow"
    slow.mkdir()
    (slow / "genai_prices.py").write_text("import time\nopen('importing', 'w').close()\ntime.sleep(30)\n")
    environment = {**os.environ, "PYTHONPATH": str(slow)}
    with subprocess.Popen(
        [*COMMAND, *ASK], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: (project / "importing").exists())
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, errors = process.communicate(timeout=20)
        assert time.monotonic() - began < 3
    assert (process.returncode, out, errors) == (130, "", "claude-force: error: interrupted\n")


class TestWithinASlowImportAfterWhatIsCached:
    """What is in the cache ends before the prices are loaded for the rest."""

    def reported(self, project, server, *arguments):
        """What a command says that is interrupted within the import."""
        (project / "slow").mkdir()
        (project / "slow" / "genai_prices.py").write_text(
            "import time\nopen('importing', 'w').close()\ntime.sleep(2)\n"
        )
        environment = {**os.environ, **server.environment(), "PYTHONPATH": str(project / "slow")}
        with subprocess.Popen(
            [*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            until((project / "importing").exists)
            # Time for what is not waiting for the import.
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            reported = process.communicate(timeout=20)
        assert process.returncode == 130
        return reported

    def test_run_many_reports_its_rows(self, project):
        rows = [f'{{"agent": "python-expert", "task": "{task}"}}\n' for task in "xy"]
        (project / "two.jsonl").write_text("".join(rows))
        with MessagesServer() as server:
            environment = {**os.environ, **server.environment()}
            first = [*COMMAND, "run", "many", "t.jsonl", "-o", "first.jsonl"]
            subprocess.run(first, env=environment, check=True, timeout=60)
            _, errors = self.reported(project, server, "run", "many", "two.jsonl", "-o", "second.jsonl")
            assert "2 rows: 1 succeeded, 0 failed, 1 missing" in errors
            assert len(server.requests) == 1

    def test_run_workflow_shows_steps(self, project):
        workflow = ("run", "workflow", "review", "--task", "x", "--json")
        with MessagesServer() as server:
            environment = {**os.environ, **server.environment()}
            subprocess.run([*COMMAND, *workflow], env=environment, check=True, timeout=60)
            with (project / ".claude" / "agents" / "code-reviewer.md").open("a") as file:
                file.write("And tests.\n")
            out, _ = self.reported(project, server, *workflow)
            found = json.loads(out)
            assert [one["agent"] for one in found["results"]] == ["python-expert"]
            assert (found["error"], bool(found["run_id"])) == ("interrupted", True)
            assert len(server.requests) == 2


def until(is_so, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["agent", "workflow", "many"])
def test_request_in_flight(project, kind):
    given = {
        "agent": ASK,
        "workflow": ("run", "workflow", "review", "--task", "x"),
        "many": ("run", "many", "t.jsonl", "-o", "o.jsonl", "--grace", "0"),
    }[kind]
    with MessagesServer(time_to_first_token=60) as server:
        environment = {**os.environ, **server.environment()}
        with subprocess.Popen(
            [*COMMAND, *given], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            until(lambda: server.in_flight)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in errors
