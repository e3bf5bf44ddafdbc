"""A process that may have few files open: fewer calls at a time, and no row lost."""

import json
import os
import subprocess
import sys

import pytest
from fleet import write_project

from claude_force.testing import MessagesServer

resource = pytest.importorskip("resource", reason="limits of POSIX")

ROWS = 600


@pytest.fixture
def server():
    with MessagesServer(time_to_first_token=0.05) as running:
        yield running


@pytest.fixture
def project(tmp_path):
    write_project(tmp_path)
    lines = (json.dumps({"agent": "python-expert", "task": f"Task {number}"}) for number in range(ROWS))
    (tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    return tmp_path


def limited(project, server, soft, hard, source, *arguments):
    """Runs a Python program that may have so many files open."""
    return subprocess.run(
        [sys.executable, "-c", source, *arguments],
        cwd=project,
        env={**os.environ, **server.environment()},
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )


COMMAND = "import sys; from claude_force.cli.main import main; sys.exit(main(sys.argv[1:]))"
MANY = ("run", "many", "tasks.jsonl", "-o", "out.jsonl", "--max-concurrent", "400")


def results(project):
    return [json.loads(line) for line in (project / "out.jsonl").read_text().splitlines()]


@pytest.mark.timeout(240)
def test_number_at_a_time_follows_the_limit(project, server):
    ended = limited(project, server, 256, 256, COMMAND, *MANY)
    assert ended.returncode == 0, ended.stderr
    assert sorted(one["index"] for one in results(project)) == list(range(ROWS))
    assert all(one["success"] for one in results(project))
    assert server.max_in_flight <= 256 - 48
    assert len(server.requests) == ROWS
    assert "the limit of open files is 256" in ended.stderr


@pytest.mark.timeout(240)
def test_raises_soft_limit_as_needed(project):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 1024:
        pytest.skip("the hard limit is too low")
    with MessagesServer(time_to_first_token=2.0) as server:
        ended = limited(project, server, 128, 1024, COMMAND, *MANY, "--limit", "250")
    assert ended.returncode == 0, ended.stderr
    assert "limit of open files" not in ended.stderr
    assert server.max_in_flight > 128
    assert len(results(project)) == 250


HOARDING = """
import asyncio, os, resource, sys
from claude_force import AsyncAgentOrchestrator
async def main():
    async with AsyncAgentOrchestrator(max_concurrent=40, enable_cache=False) as running:
        await running.execute_agent("python-expert", "opens the connections")
        hoard = []
        try:
            while True:
                hoard.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(LEFT):
                os.close(hoard.pop())
        tasks = [("python-expert", f"Task {number}") for number in range(120)]
        task = asyncio.ensure_future(running.execute_multiple(tasks))
        if not LEFT:
            await asyncio.sleep(1)
            for _ in range(5):
                os.close(hoard.pop())
        results = await task
        assert all(result.success for result in results), [result.errors for result in results][:3]
        assert all(result.attempts == 1 for result in results)
asyncio.run(main())
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("left", [12, 3, 0])
def test_lack_of_descriptors_fails_no_row(project, server, left):
    ended = limited(project, server, 256, 256, HOARDING.replace("LEFT", str(left)))
    assert ended.returncode == 0, ended.stderr
    assert len(server.requests) == 121
