"""How Bash bounds commands, ends them, and carries the working directory over."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Iterator, List

import anyio
import pytest
from sandboxes import Shell, eventually, program

from claude_force.errors import ToolSandboxError
from claude_force.tools.control_groups import ProcessGroup
from claude_force.tools.orphans import guarded_name
from claude_force.tools.resource_limits import are_processes_counted, is_disk_full
from claude_force.tools.sandbox import Mount, Sandbox
from claude_force.tools.sandbox_process import MOST_AT_ONCE

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my project"
    folder.mkdir()
    (folder / "a.txt").write_text("one\ntwo\n")
    return folder


@pytest.fixture
def shell(project: Path) -> Iterator[Shell]:
    shell = Shell(project)
    yield shell
    shell.close()


def running(word: str) -> List[str]:
    """The command lines of this machine's processes that have a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if word in text and int(folder.name) != os.getpid():
            found.append(text)
    return found


def children(process: int) -> List[int]:
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


# Children of all kinds that outlive their shell; the number is their mark.
CHILDREN = "(setsid sleep {0} &); (nohup sleep {0} >/dev/null 2>&1 &); (trap '' TERM HUP INT; sleep {0} &); "


async def test_no_process_outlives_its_call(shell: Shell) -> None:
    assert await shell.text(CHILDREN.format("7310") + "echo done") == "done"
    assert running("sleep 7310") == []


async def test_timeout_kills_all(shell: Shell) -> None:
    begin = time.monotonic()
    text = await shell.text("echo begin; " + CHILDREN.format("7311") + "sleep 7311", timeout=800)
    assert text == "Exit code 143\nCommand timed out after 0s\nbegin"
    assert running("sleep 7311") == []
    assert time.monotonic() - begin < 10


async def test_stopped_processes_are_killed(shell: Shell) -> None:
    text = await shell.text("(sleep 7312 & kill -STOP $!); kill -STOP $$", timeout=800)
    assert text.startswith("Exit code 143")
    assert running("sleep 7312") == []


async def test_cancel_kills_all(shell: Shell) -> None:
    task = asyncio.ensure_future(shell.run(CHILDREN.format("7313") + "sleep 7313"))
    while not running("sleep 7313"):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running("sleep 7313") == []


async def test_cancelled_scope_kills_all(shell: Shell) -> None:
    with anyio.move_on_after(1):
        await shell.run(CHILDREN.format("7314") + "sleep 7314")
    assert running("sleep 7314") == []


@pytest.mark.parametrize("milliseconds", [0, 1, 3, 6, 10, 15, 25, 40, 80])
async def test_cancel_at_any_moment_leaves_nothing(shell: Shell, milliseconds: int) -> None:
    task = asyncio.ensure_future(shell.run("touch begun; (setsid sleep 7315 &); sleep 7315"))
    await asyncio.sleep(milliseconds / 1000)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running("sleep 7315") == []
    assert running(str(shell.workspace.root)) == []


PROGRAM = """
    import asyncio, sys
    from pathlib import Path
    sys.path[:0] = [{root!r}, {tests!r}]
    from sandboxes import Shell

    async def main():
        shell = Shell(Path(sys.argv[1]))
        print("ready", flush=True)
        await shell.run(sys.argv[2])

    asyncio.run(main())
"""


def start(project: Path, command: str, text: str = PROGRAM) -> "subprocess.Popen[bytes]":
    """A process that runs a command with Bash."""
    text = textwrap.dedent(text).format(root=str(ROOT), tests=str(ROOT / "tests"))
    process = subprocess.Popen([sys.executable, "-c", text, str(project), command], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.2])
def test_killed_process_leaves_nothing(project: Path, seconds: float) -> None:
    program()
    process = start(project, CHILDREN.format("7316") + "sleep 7316")
    # One of them is the process itself, which has the command as an argument.
    assert seconds < 0.2 or eventually(lambda: len(running("sleep 7316")) >= 5)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert eventually(lambda: not running("sleep 7316") and not running(str(project)))


STARTS = PROGRAM.replace(
    "await shell.run(sys.argv[2])",
    "while True:\n            await asyncio.gather(*(shell.run('true') for _ in range(4)))",
)


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1, 0.15, 0.25, 0.4])
def test_process_killed_while_it_starts_commands_leaves_nothing(project: Path, seconds: float) -> None:
    program()
    process = start(project, "", STARTS)
    time.sleep(seconds)
    process.kill()
    process.wait()
    assert eventually(lambda: not running(str(project)), 20)


def test_forked_process_has_a_guard_of_its_own() -> None:
    name = guarded_name()
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.write(writer, guarded_name().encode())
        os._exit(0)
    os.waitpid(process, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        other = pipe.read()
    assert other != name == guarded_name()
    assert running(name)
    assert eventually(lambda: not running(other))


def test_interrupt_is_not_for_commands(project: Path) -> None:
    """Ctrl-C on a terminal reaches its session: the process that runs commands, which have their own."""
    program()
    process = start(project, "sleep 7317")
    # The first is the guard.
    assert eventually(lambda: len(children(process.pid)) == 2)
    bubblewrap = children(process.pid)[-1]
    assert eventually(lambda: os.getsid(bubblewrap) == bubblewrap)
    process.kill()
    process.wait()
    assert eventually(lambda: not running("sleep 7317"))


def can_group() -> bool:
    with subprocess.Popen(["sleep", "30"]) as process:
        group = ProcessGroup.around(process.pid, 2)
        process.kill()
    if group is not None:
        group.remove()
    return group is not None


@pytest.fixture
def few_processes(monkeypatch: pytest.MonkeyPatch) -> int:
    """A lower limit, which is easier on the machine that the tests run on."""
    if not are_processes_counted() and not can_group():
        pytest.skip("root without control groups: a look now and then is all that bounds processes")
    for module in ("resource_limits", "sandbox_process"):
        monkeypatch.setattr(f"claude_force.tools.{module}.MOST_PROCESSES", 200)
    return 200


async def test_fork_bomb_is_stopped(shell: Shell, few_processes: int) -> None:
    begin = time.monotonic()
    result = await shell.run("f() { f | f & }; f; sleep 30", timeout=20_000)
    assert result.is_error or time.monotonic() - begin > 29
    assert time.monotonic() - begin < 60
    assert await shell.text("echo usable") == "usable"


async def test_many_processes_are_too_many(shell: Shell, few_processes: int) -> None:
    text = await shell.text(f"for i in $(seq {few_processes + 50}); do (sleep 7318 &); done; sleep 20")
    assert "fork" in text
    assert running("sleep 7318") == []


async def test_endless_output_is_stopped(shell: Shell) -> None:
    text = await shell.text("yes | head -c 10G", timeout=60_000)
    assert text.startswith(
        "Exit code 137\nCommand was stopped: it wrote more than 1,000,000,000 bytes\ny\ny\n"
    )
    assert "bytes left out" in text
    assert len(text) < 31_000


async def test_events_go_on_during_output(shell: Shell) -> None:
    """The loop is not blocked by a command that writes as fast as it can."""
    gaps = []

    async def measure() -> None:
        while True:
            begin = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - begin)

    task = asyncio.ensure_future(measure())
    await shell.run("yes | head -c 500M")
    task.cancel()
    assert sorted(gaps)[len(gaps) // 2] < 0.5


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("ulimit -f; ulimit -c", "4194304\n0"),
        (
            "head -c 300M /dev/zero >/dev/shm/x; test $(stat -c %s /dev/shm/x) -lt 300000000 && echo full",
            "full",
        ),
        ("head -c 20M /dev/zero >/run/x; test $(stat -c %s /run/x) -lt 20000000 && echo full", "full"),
        ("cat /proc/self/oom_score_adj", "1000"),
        ("nice", "10"),
    ],
)
async def test_limits_are_set(shell: Shell, command: str, text: str) -> None:
    assert (await shell.text(command)).splitlines()[-len(text.splitlines()) :] == text.splitlines()


async def test_memory_is_bounded(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_force.tools.resource_limits.MOST_MEMORY_SHARE", 0.01)
    text = await shell.text("x=$(head -c 900M /dev/zero | tr '\\0' x); sleep 20", timeout=30_000)
    assert text == "Exit code 137\nCommand was stopped: it used more than half of the machine's memory"


async def test_full_disk_is_prevented(shell: Shell, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "claude_force.tools.sandbox_process.is_disk_full",
        lambda before, now: before - now > 30_000_000,
    )
    text = await shell.text("head -c 100M /dev/zero >b; sync b; sleep 20", timeout=30_000)
    assert text == "Exit code 137\nCommand was stopped: it left too little room on the disk"


@pytest.mark.parametrize(
    ("before", "now", "full"),
    [(9, 2, False), (9, 0.5, True), (1.2, 0.5, False), (0.5, 0.4, False), (2, 0.9, True), (0.5, 3, False)],
)
def test_disk_is_full_by_the_command(before: float, now: float, full: bool) -> None:
    assert is_disk_full(int(before * 1024**3), int(now * 1024**3)) == full


async def test_temporary_folders_are_new_each_time(shell: Shell) -> None:
    assert await shell.text("touch /tmp/x ~/x /run/x; ls /tmp ~ /run | grep -c x") == "3"
    assert await shell.text("ls -A /tmp ~ /run | grep -c x; true") == "0"


async def test_folder_is_carried_over(shell: Shell, project: Path) -> None:
    await shell.run("mkdir -p 'sub dir'; cd 'sub dir'")
    assert shell.workspace.cwd == str(project / "sub dir")
    assert await shell.text("pwd") == str(project / "sub dir")
    assert await shell.text("cd /tmp") == f"Shell cwd was reset to {project}"
    assert await shell.text("pwd") == str(project)


async def test_removed_folder_gives_the_project(shell: Shell, project: Path) -> None:
    await shell.run("mkdir sub; cd sub")
    (project / "sub").rmdir()
    assert await shell.text("pwd") == str(project)


async def test_folder_that_became_a_link_is_not_followed(shell: Shell, project: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    await shell.run("mkdir sub; cd sub")
    (project / "sub").rmdir()
    (project / "sub").symlink_to(tmp_path / "out")
    assert await shell.text("pwd") == str(project)


async def test_report_can_not_lead_out(shell: Shell, project: Path) -> None:
    """A command can write to the report as if it were process 1."""
    text = await shell.text("echo /etc >/proc/1/fd/2; echo done")
    assert text in ("done", f"done\nShell cwd was reset to {project}")
    assert shell.workspace.cwd == str(project)


async def test_long_command_is_run(shell: Shell, project: Path) -> None:
    body = "x" * 300_000
    assert await shell.text(f"cat <<'END' >b.txt\n{body}\nEND") == "(Bash completed with no output)"
    assert (project / "b.txt").read_text() == body + "\n"


@pytest.mark.parametrize("command", ["echo \0", "echo \ud800", "x" * 600_000])
async def test_impossible_command_is_refused(shell: Shell, command: str) -> None:
    assert (await shell.run(command)).is_error


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo ä", "ä"),
        ("if", "Exit code 2\n/bin/bash: eval: line 2: syntax error: unexpected end of file"),
        ("exec ls a.txt", "a.txt"),
        ("trap 'echo end' EXIT; exit 3", "Exit code 3\nend"),
        (
            "echo a; exec >&-; echo b",
            "Exit code 1\na\n/bin/bash: line 1: echo: write error: Bad file descriptor",
        ),
        ("set -e; false; echo x", "Exit code 1"),
        (
            "cd .claude-x || true; false && true",
            "Exit code 1\n/bin/bash: line 1: cd: .claude-x: No such file or directory",
        ),
        ("echo a\\\n b", "a b"),
        ("cat; cat -", "(Bash completed with no output)"),
        ("echo $0 $# $$", "/bin/bash 0 2"),
        ("exit 137", "Exit code 137"),
        ("kill -TERM $$", "Exit code 1"),
        ("install -m 750 a.txt b; chmod 711 b; mkdir -m 700 c; stat -c %a b c", "711\n700"),
        ("hostname; whoami", "sandbox\n" + ("user" if os.geteuid() else "root")),
        ("", "(Bash completed with no output)"),
    ],
)
async def test_results_of_commands(shell: Shell, command: str, text: str) -> None:
    assert await shell.text(command) == text


async def test_project_may_only_be_read(project: Path) -> None:
    shell = Shell(project, is_writable=False)
    assert await shell.text("cat a.txt; echo x >a.txt") == (
        "Exit code 1\none\ntwo\n/bin/bash: line 1: a.txt: Read-only file system"
    )
    shell.close()


async def test_extra_folders_are_seen(project: Path, tmp_path: Path) -> None:
    extra, only = tmp_path / "extra", tmp_path / "only"
    for folder in (extra, only):
        folder.mkdir()
        (folder / "x").write_text("x\n")
    shell = Shell(project, extra_folders=[extra], read_only=[Mount(only, project / "lib")])
    await shell.run(f"cd {extra} && echo y >>x; echo z >>'{project}/lib/x'; cat '{project}/lib/x' >>x")
    assert (extra / "x").read_text() == "x\ny\nx\n"
    assert (only / "x").read_text() == "x\n"
    assert shell.workspace.cwd == str(extra)
    shell.close()


async def test_worktree_is_shown_as_the_project(project: Path, tmp_path: Path) -> None:
    worktree = tmp_path / "tree"
    worktree.mkdir()
    (worktree / "b.txt").write_text("b\n")
    shell = Shell(worktree, shown_as=project)
    assert await shell.text("pwd; ls; mkdir c; cd c; touch d.txt") == f"{project}\nb.txt"
    assert shell.workspace.cwd == str(project / "c")
    assert (worktree / "c" / "d.txt").exists()
    shell.close()


@pytest.mark.parametrize("name", [".git", ".claude", ".claude-plugin", ".mcp.json"])
async def test_new_protected_names_are_set_aside(shell: Shell, project: Path, name: str) -> None:
    assert await shell.text(f"mkdir {name}") == (
        f"{name} was renamed to {name}.untrusted: {name} may not be made without a grant of its own."
    )
    assert sorted(one.name for one in project.iterdir()) == [f"{name}.untrusted", "a.txt"]


async def test_protected_names_can_be_granted(project: Path) -> None:
    shell = Shell(project, granted=(".claude",))
    assert await shell.text("mkdir .claude; touch .claude/x") == "(Bash completed with no output)"
    assert (project / ".claude" / "x").exists()
    shell.close()


async def test_commits_work(project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    shell = Shell(project)
    commit = "git -c user.name=n -c user.email=e commit -qm m"
    assert await shell.text(f"git add -A && {commit} && git log --format=%s") == "m"
    shell.close()


async def test_hooks_path_is_protected(project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "config", "core.hooksPath", "my hooks"], cwd=project, check=True)
    (project / "my hooks").mkdir()
    shell = Shell(project)
    assert "Read-only file system" in await shell.text("touch 'my hooks/pre-commit'")
    shell.close()


async def test_copy_has_the_repository_of_the_project(project: Path, tmp_path: Path) -> None:
    commit = "git init -q && git add -A && git -c user.name=n -c user.email=e commit -qm m"
    subprocess.run(["bash", "-c", commit], cwd=project, check=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.txt").write_text("other\n")
    shell = Shell(copy, shown_as=project, read_only=[Mount(project / ".git", project / ".git")])
    assert await shell.text("touch b.txt; git status --short") == " M a.txt\n?? b.txt"
    assert "Read-only file system" in await shell.text("git add -A")
    assert sorted(one.name for one in copy.iterdir()) == [".git", "a.txt", "b.txt"]
    assert list((copy / ".git").iterdir()) == []
    shell.close()


async def test_cancelled_calls_do_not_wait_for_their_turn(shell: Shell) -> None:
    tasks = [asyncio.ensure_future(shell.run("sleep 7319")) for _ in range(MOST_AT_ONCE + 8)]
    while len(running("sleep 7319")) < 8:
        await asyncio.sleep(0.05)
    begin = time.monotonic()
    for task in reversed(tasks):
        task.cancel()
    await asyncio.wait(tasks)
    assert time.monotonic() - begin < 30
    assert running("sleep 7319") == []
    assert await shell.text("echo free") == "free"


async def test_linked_worktree_has_its_repository(project: Path, tmp_path: Path) -> None:
    commit = "git init -q && git add -A && git -c user.name=n -c user.email=e commit -qm m"
    subprocess.run(["bash", "-c", f"{commit} && git worktree add -q ../tree"], cwd=project, check=True)
    shell = Shell(tmp_path / "tree")
    assert await shell.text("touch b; git status --short; git log --format=%s") == "?? b\nm"
    assert "Read-only file system" in await shell.text(f"touch '{project}/.git/x'")
    assert "No such file" in await shell.text(f"cat '{project}/a.txt'")
    shell.close()


async def test_many_at_once(shell: Shell) -> None:
    texts = await asyncio.gather(*(shell.text(f"sleep 0.1; echo {number}") for number in range(40)))
    assert texts == [str(number) for number in range(40)]


async def test_descriptors_are_closed(shell: Shell) -> None:
    await shell.run("true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await shell.run("true")
        await shell.run("sleep 5", timeout=50)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_background_is_refused(shell: Shell) -> None:
    result = await shell.run("echo x", run_in_background=True)
    assert result.is_error
    assert str(result.content).startswith("Commands can't run in the background here")


@pytest.mark.parametrize("root", ["/", "~"])
def test_home_and_root_are_no_projects(root: str) -> None:
    with pytest.raises(ToolSandboxError, match="no project"):
        Sandbox(Path(root).expanduser())


async def test_project_in_the_home(clean_environment: Path) -> None:
    (clean_environment / "private").write_text("x")
    (clean_environment / "work").mkdir()
    shell = Shell(clean_environment / "work")
    assert await shell.text("touch a; ls ~; ls -A ..") == "work\nwork"
    assert (clean_environment / "work" / "a").exists()
    shell.close()


async def test_home_in_the_project_is_hidden(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "home").mkdir()
    (project / "home" / "private").write_text("x")
    monkeypatch.setenv("HOME", str(project / "home"))
    shell = Shell(project)
    assert await shell.text("ls -A ~") == "(Bash completed with no output)"
    shell.close()


async def test_network_is_shared_where_granted(project: Path, messages_server: Any) -> None:
    port = messages_server.base_url.rpartition(":")[2]
    command = f"echo >/dev/tcp/127.0.0.1/{port} && echo reached"
    alone, shared = Shell(project), Shell(project, has_network=True)
    assert "reached" not in await alone.text(command)
    assert await shared.text(command) == "reached"
    assert await shared.text("test -f /etc/resolv.conf && echo named") == "named"
    alone.close()
    shared.close()
