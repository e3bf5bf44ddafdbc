"""A user without a home folder, and warnings of Python as errors: the package works."""

import os
import subprocess
import sys

import pytest
from fleet import write_project

# As the system has it for a uid that its list of users does not name.
NO_HOME = """
import os, pwd, sys
def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
"""


def run(source, project, server, *options):
    environment = {**os.environ, "ANTHROPIC_API_KEY": "k", **server.environment()}
    return subprocess.run(
        [sys.executable, *options, "-c", source],
        cwd=project.parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "agent", "python-expert", "--task", "x"],
        ["run", "workflow", "review", "--task", "x"],
        ["run", "many", "t.jsonl", "-o", "o.jsonl"],
        ["list", "agents"],
        ["cache", "stats"],
        ["init"],
        ["runs", "list"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_commands_work_without_a_home(project, messages_server, arguments):
    (project.parent.parent / "t.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n')
    source = f"{NO_HOME}\nfrom claude_force.cli.main import main\nsys.exit(main({arguments!r}))"
    ended = run(source, project, messages_server)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("no home folder") <= 1
    assert "Traceback" not in ended.stderr


def test_says_so_once_and_leaves_nothing(project, messages_server, tmp_path):
    source = f"""{NO_HOME}
import tempfile
tempfile.tempdir = {str(tmp_path / "temp")!r}
os.mkdir(tempfile.tempdir)
from claude_force import AgentOrchestrator
with AgentOrchestrator({str(project)!r}) as running:
    assert running.run_agent("python-expert", "x").success
    assert running.run_agent("python-expert", "x").cached
    assert os.listdir(tempfile.tempdir)
"""
    ended = run(source, project, messages_server)
    assert (ended.returncode, ended.stderr.count("no home folder")) == (0, 1), ended.stderr
    assert not list((tmp_path / "temp").iterdir())


def test_no_warning_of_python(project, messages_server):
    source = """
import asyncio, gc, sys
from claude_force import AgentOrchestrator, AsyncAgentOrchestrator, ResponseCache
with AgentOrchestrator() as running:
    assert running.run_agent("python-expert", "x").success
    running.get_performance_summary()
async def main():
    async with AsyncAgentOrchestrator() as running:
        results = await running.execute_multiple([("python-expert", f"Task {n}") for n in range(3)])
        assert all(result.success for result in results)
asyncio.run(main())
gc.collect()
"""
    ended = run(source, project, messages_server, "-W", "error")
    assert (ended.returncode, ended.stderr) == (0, "")
