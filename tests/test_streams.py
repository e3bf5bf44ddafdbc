"""What a command does where stdout or stderr is full, closed or read by nobody."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import until, write_project

from claude_force.testing import MessagesServer, faults

FULL = "/dev/full"
needs_full = pytest.mark.skipif(not Path(FULL).exists(), reason="no device that is always full here")
needs_shell = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")
ASK = ("run", "agent", "python-expert", "--task", "x")


@pytest.fixture
def project(tmp_path, monkeypatch, messages_server):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def redirected(redirection, *arguments):
    """A command whose streams the shell has changed."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "claude_force", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_full
@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("list", "agents"),
        ("list", "agents", "--json"),
        ("info", "nobody", "--json"),
        ("metrics", "export"),
        ("completion", "bash"),
        ASK,
        (*ASK, "--json"),
        ("run", "workflow", "review", "--task", "x"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("buffered", [True, False])
def test_names_full_stdout(project, arguments, buffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    done = redirected(f">{FULL}", *arguments)
    last = done.stderr.strip().splitlines()[-1]
    assert last == "claude-force: error: stdout can't be written: No space left on device"
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@needs_full
def test_full_stdout_pays_once(project, messages_server):
    redirected(f">{FULL}", *ASK)
    assert redirected("", *ASK).returncode == 0
    assert len(messages_server.requests) == 1


@needs_shell
@pytest.mark.parametrize("redirection", ["2>&-", pytest.param(f"2>{FULL}", marks=needs_full)])
def test_unwritable_stderr_is_ignored(project, redirection):
    done = redirected(redirection, *ASK, "--json")
    assert (done.returncode, json.loads(done.stdout)["success"]) == (0, True)
    assert redirected(redirection, "info", "nobody").returncode == 2


@needs_shell
@pytest.mark.parametrize("arguments", [("list", "agents"), ("--help",), (*ASK, "--json")], ids=" ".join)
def test_closed_stdout_is_ignored(project, arguments):
    done = redirected(">&-", *arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@needs_shell
def test_reserves_closed_descriptors(project):
    source = (
        "import os, sys\nfrom claude_force.cli.main import main\nmain(['list', 'agents'])\n"
        "print(min(os.open(os.devnull, os.O_RDONLY) for _ in range(3)), file=open('first', 'w'))"
    )
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", source], timeout=60)
    assert int((project / "first").read_text()) > 2


def started(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "claude_force", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


class TestSigterm:
    @pytest.fixture
    def silent(self, project, monkeypatch):
        """A server that takes a request and says nothing."""
        with MessagesServer(faults=[faults.silence_before_first_byte()]) as server:
            for name, value in server.environment().items():
                monkeypatch.setenv(name, value)
            yield server

    @pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
    def test_ends_a_command_as_ctrl_c_does(self, silent, on_ctrl_c):
        # A shell has a command in the background ignore Ctrl-C.
        process = started(*ASK, "--json", preexec_fn=lambda: signal.signal(signal.SIGINT, on_ctrl_c))
        until(lambda: silent.in_flight == 1)
        process.terminate()
        out, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (130, "")
        assert json.loads(out) == {"success": False, "error": "interrupted"}

    def test_says_how_a_workflow_goes_on(self, silent):
        process = started("run", "workflow", "review", "--task", "x")
        until(lambda: silent.in_flight == 1)
        process.terminate()
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "--resume review-" in error
