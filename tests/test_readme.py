"""Every example of the README runs as it is written, in one project, in the order of the page."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)


def commands_on_path(folder):
    """`python` and `claude-force` of the interpreter that runs the tests, whatever is installed."""
    binaries = folder / "bin"
    binaries.mkdir()
    for name, arguments in (("python", ""), ("claude-force", " -m claude_force")):
        script = binaries / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return str(binaries)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Each block's language and how it ended, after walking the page from top to bottom."""
    from claude_force.testing import MessagesServer

    home = tmp_path_factory.mktemp("readme")
    project = home / "project"
    project.mkdir()
    with MessagesServer() as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        environment.update(server.environment(), HOME=str(home), CLAUDE_FORCE_LOOPBACK_ONLY="1")
        environment["PATH"] = commands_on_path(home) + os.pathsep + environment["PATH"]
        environment["PYTHONPATH"] = str(ROOT)
        return [(language, run_block(language, text, project, environment)) for language, text in BLOCKS]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_block(language, text, project, environment):
    if language == "json":
        contracts = project / ".claude" / "contracts"
        contracts.mkdir()
        (contracts / "python-expert.md").write_text("Answer in three paragraphs.\n", encoding="utf-8")
        (project / ".claude" / "claude.json").write_text(text, encoding="utf-8")
        return None
    # The port that the page names may be taken on the machine that runs the tests.
    text = text.replace("8787", str(free_port()))
    command = {"sh": ["bash", "-euo", "pipefail", "-c", text], "python": [sys.executable, "-c", text]}[
        language
    ]
    # What an example starts in the background ends with it, also when the example fails.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        with subprocess.Popen(
            command, cwd=project, env=environment, stdout=out, stderr=error, start_new_session=True
        ) as process:
            try:
                process.wait(timeout=60)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(
            command, process.returncode, out.read().decode(), error.read().decode()
        )


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs_as_it_is_written(walked, number):
    _, done = walked[number]
    if done is not None:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        assert "Traceback" not in done.stderr


def test_the_page_has_an_example_for_each_thing_that_people_do():
    assert [language for language, _ in BLOCKS].count("python") >= 3
    assert [language for language, _ in BLOCKS].count("sh") >= 3
