"""Projects that are not the user's: whatever they hold, nothing outside is changed or sent, and all ends.

`pytest --soak` tries ten times as many; a failure names its seed, and `-k "[SEED]"` makes the project again.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile import FORBIDDEN, MARK, Outside, Project

from claude_force.cli.main import main
from claude_force.testing import MessagesServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="links, FIFOs and /proc of Linux")

PROJECTS, SOAK = 200, 2_000
SECONDS = 5.0
# A project of 1 TB, or one that never ends, must not fill the memory.
MOST_MEGABYTES = 300
AGENT = ["--agent", "python-expert", "--task", "Review this."]
COMMANDS = (
    ["list", "agents"],
    ["list", "workflows"],
    ["info", "python-expert"],
    ["doctor"],
    ["init"],
    ["run", "agent", "python-expert", "--task", "x", "--cache", "off"],
    ["run", "agent", "code-reviewer", "--task-file", "task.txt"],
    ["run", "many", "tasks.jsonl", "-o", "out.jsonl"],
    ["run", "many", "tasks.jsonl", "-o", "out/out.jsonl"],
    ["run", "many", "--files", "src/**/*.py", *AGENT, "-o", "out.jsonl", "--cache", "off"],
    ["run", "many", "--files", "src", "src/a.py", "src/linked/*", *AGENT, "-o", "out/out.jsonl"],
    ["run", "workflow", "files", "--task", "x"],
    ["run", "workflow", "lines", "--task", "x"],
    ["run", "workflow", "review", "--task", "x"],
    ["workflow", "show", "files"],
    ["metrics", "summary"],
    ["metrics", "agents"],
    ["metrics", "export", "--format", "csv", "-o", "export.csv"],
    ["report", "-o", "page.html"],
    ["report"],
    ["__complete", "run", "agent", ""],
)
# Their stdout is an answer, which stays in a pipe as it is.
ANSWERS = ("run",)


def pytest_generate_tests(metafunc):
    if metafunc.function.__name__ == "test_a_project_does_no_harm":
        metafunc.parametrize("seed", range(SOAK if metafunc.config.getoption("--soak") else PROJECTS))


class LateError(BaseException):
    """The time is over."""


@contextmanager
def at_most(seconds):
    """Ends what runs in this thread, a wait in the system too, and once more each second after that."""

    def late(*_):
        raise LateError(f"not ended after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def servers():
    """The user's endpoint, and the one that a project would choose."""
    # The first import of aiohttp takes a while, which is no project's doing: the servers import it.
    with MessagesServer() as own, MessagesServer() as trap:
        yield own, trap


@pytest.fixture
def hostile(seed, servers, clean_environment, tmp_path, monkeypatch):
    own, trap = servers
    for name, value in own.environment().items():
        monkeypatch.setenv(name, value)
    outside = Outside(clean_environment, tmp_path / "beside")
    root = tmp_path / "project"
    root.mkdir()
    project = Project(seed, root, outside, trap.base_url).build()
    monkeypatch.chdir(root)
    yield project
    # Deep and odd as it is, it is not left to others to remove.
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(root)


def environment_of_this_process():
    """What a request would hold that was made of `/proc/self/environ`."""
    return [one for one in Path("/proc/self/environ").read_bytes().split(b"\0") if len(one) > 12]


def expect_nothing_outside(project, servers, since, context):
    own, trap = servers
    assert project.outside.differences() == [], context
    assert not [path for path in project.outside.absent if path.exists()], context
    assert not list(project.root.rglob("PWNED")), context
    assert trap.connections == 0, context
    variables = environment_of_this_process()
    for request in own.requests[since:]:
        assert MARK.encode() not in request.raw, context
        assert not [one for one in variables if one in request.raw], context
        assert "x-evil" not in request.headers, context
        assert "project" not in request.headers.get("x-api-key", ""), context
    folder = project.outside.home / ".claude"
    assert not folder.exists() or folder.stat().st_mode & 0o777 == 0o700, context


def test_a_project_does_no_harm(seed, hostile, servers, capsys):
    since, memory = len(servers[0].requests), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for words in hostile.chance.sample(COMMANDS, 5):
        context = f"seed {seed}: {words} in {hostile.traps}"
        try:
            with at_most(SECONDS):
                code = main(words)
        except LateError as late:
            pytest.fail(f"{late}: {context}", pytrace=False)
        said = capsys.readouterr()
        assert code in (0, 1, 2, 3, 4), context
        assert "Traceback" not in said.err and "-v shows where" not in said.err, f"{context}\n{said.err}"
        assert not FORBIDDEN.search(said.err), context
        assert words[0] in ANSWERS or not FORBIDDEN.search(said.out), context
        assert MARK not in said.out + said.err, context
        expect_nothing_outside(hostile, servers, since, context)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MOST_MEGABYTES, f"seed {seed}: {grown:.0f} MB in {hostile.traps}"


@pytest.mark.parametrize("seed", range(1_000_000, 1_000_004))
def test_nor_to_a_process_of_its_own(seed, hostile, servers, monkeypatch):
    for name in ("json", "yaml", "anthropic", "claude_force", "sitecustomize"):
        (hostile.root / f"{name}.py").write_text("open('PWNED', 'w')\n", encoding="utf-8")
    since, command = len(servers[0].requests), Path(sys.executable).with_name("claude-force")
    context = f"seed {seed}: {hostile.traps}"
    for words in hostile.chance.sample(COMMANDS, 2):
        ended = subprocess.run(
            [str(command), *words], capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL
        )
        said = ended.stderr.decode("utf-8", "strict")
        assert ended.returncode in (0, 1, 2, 3, 4), f"{context}\n{said}"
        assert "Traceback" not in said, f"{context}\n{said}"
        assert not FORBIDDEN.search(said), context
        expect_nothing_outside(hostile, servers, since, context)


def test_the_same_seed_makes_the_same_project(tmp_path):
    found = []
    for number in (1, 2):
        place = tmp_path / str(number)
        (place / "project").mkdir(parents=True)
        outside = Outside(place / "home", place / "beside")
        found.append(Project(7, place / "project", outside, "http://127.0.0.1:1").build().traps)
    assert found[0] == found[1] != []


def test_the_traps_are_sharp(tmp_path, monkeypatch):
    """The checks would see what they are for."""
    (tmp_path / "home").mkdir()
    outside = Outside(tmp_path / "home", tmp_path / "beside")
    assert outside.differences() == []
    with (outside.home / ".bashrc").open("a", encoding="utf-8") as file:
        file.write("touch PWNED\n")
    (outside.beside / "empty").chmod(0o700)
    changed = outside.differences()
    assert changed == sorted([str(outside.beside / "empty"), str(outside.home / ".bashrc")])
    with pytest.raises(LateError), at_most(0.2):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "fifo").read_bytes()
