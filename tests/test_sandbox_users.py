"""The sandbox of a user without privileges, tried by root in the place of one."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Iterator

import pytest
from sandboxes import Shell, program

from claude_force.tools import bubblewrap as module

NOBODY = 65_534

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can reach."""
    folder = Path(tempfile.mkdtemp(prefix="claude-force-"))
    yield folder
    shutil.rmtree(folder)


def as_nobody(work: Callable[[], str]) -> str:
    """Runs `work` in a process of another user; returns its text, or that of its error."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            text = work()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    return text


def run(project: Path, command: str, timeout: int = 20_000, **ways: object) -> str:
    async def main() -> str:
        shell = Shell(project, **ways)
        try:
            return await shell.text(command, timeout=timeout)
        finally:
            shell.close()

    return as_nobody(lambda: asyncio.run(main()))


@pytest.fixture
def project(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program()
    # The other user tries bubblewrap anew, with a home of its own.
    monkeypatch.setattr(module, "_checked", {})
    monkeypatch.setenv("HOME", str(place / "home"))
    place.chmod(0o755)
    for name in ("home", "my project"):
        (place / name).mkdir()
        os.chown(place / name, NOBODY, NOBODY)
    (place / "home" / "secret").write_text("S3CRET")
    return place / "my project"


def test_commands_run_as_the_user(project: Path) -> None:
    text = run(project, "echo x >a; id -u; whoami; ls -l a | cut -d' ' -f3; ls -A ~; cat /etc/shadow")
    assert text == "Exit code 1\n65534\nuser\nuser\ncat: /etc/shadow: No such file or directory"
    assert (project / "a").stat().st_uid == NOBODY


def test_nothing_outside_is_seen(project: Path) -> None:
    assert "S3CRET" not in run(project, f"cat {project.parent}/home/secret ../home/secret ~/secret; env")


@pytest.mark.parametrize(
    "command",
    [
        "unshare --user true",
        "mount -t tmpfs x /tmp",
        "echo x >/etc/x",
        "echo x >/proc/sys/kernel/core_pattern",
        "mknod /tmp/x b 1 1",
        "grep -q 'NoNewPrivs:.0' /proc/self/status",
    ],
)
def test_nothing_is_allowed_that_needs_privileges(project: Path, command: str) -> None:
    assert run(project, f"({command}) 2>/dev/null && echo escaped || echo refused") == "refused"


def test_processes_are_limited(project: Path) -> None:
    text = run(project, "ulimit -u; cat /proc/self/oom_score_adj; ulimit -f")
    assert text == "2048\n1000\n4194304"


def test_fork_bomb_leaves_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_force.tools.resource_limits.MOST_PROCESSES", 100)
    text = run(project, "for i in $(seq 150); do (sleep 7320 &); done", timeout=5_000)
    assert "fork: retry: Resource temporarily unavailable" in text
    assert not [
        one for one in Path("/proc").glob("[0-9]*/cmdline") if one.exists() and b"7320" in _content(one)
    ]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_git_works(project: Path) -> None:
    commit = "git -c user.name=n -c user.email=e commit -qm m"
    text = run(
        project, f"git init -q && touch a && git add a && {commit} && git log --format=%s", granted=(".git",)
    )
    assert text == "m"


def test_toolchains_of_others_are_left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = project.parent / "private"
    (private / "tools" / "bin").mkdir(parents=True)
    (private / "tools" / "lib").mkdir()
    private.chmod(0o700)
    monkeypatch.setenv("PATH", f"{private}/tools/bin:/usr/bin:/bin")
    assert run(project, "echo $PATH") == "/usr/bin:/bin"
