"""Ctrl-C, SIGTERM and SIGHUP: what they end, how repeated signals count, and which handlers are restored."""

import array
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest
from fleet import until, write_project

from claude_force.cli import signals
from claude_force.cli.main import main
from claude_force.storage.locks import try_lock
from claude_force.testing import MessagesServer

fcntl = pytest.importorskip("fcntl", reason="signals and pipes of POSIX")
termios = pytest.importorskip("termios")
ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TASKS = '{"agent": "python-expert", "task": "one"}\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.jsonl").write_text(TASKS)
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    """A stand-in that takes its time."""
    with MessagesServer(time_to_first_token=1.0) as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def mine():
    """What a program that uses the package does about them."""
    before = {number: signal.getsignal(number) for number in ALL}
    reported = []
    for number in ALL:
        signal.signal(number, lambda number, _: reported.append(number))
    yield reported
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def none_before(monkeypatch):
    monkeypatch.setattr(signals, "_last_termination", float("-inf"))


def started(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "claude_force", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        **{"stdout": subprocess.PIPE, **options},
    )


def test_restores_handlers(project, messages_server, mine):
    handlers = [signal.getsignal(number) for number in ALL]
    assert main(["run", "many", "tasks.jsonl", "-o", "out.jsonl"]) == 0
    assert [signal.getsignal(number) for number in ALL] == handlers


class TestCaught:
    async def seen(self, *numbers):
        """Returns how often the handler is called."""
        reported = []
        with signals.handle_interrupts(lambda: reported.append(1)):
            for number in numbers:
                os.kill(os.getpid(), number)
                await asyncio.sleep(0.05)
        return len(reported)

    async def test_tells_of_each_ctrl_c(self, mine, none_before):
        assert await self.seen(signal.SIGINT, signal.SIGINT) == 2
        assert mine == []

    async def test_merges_repeated_sigterm(self, mine, none_before):
        assert await self.seen(signal.SIGTERM, signal.SIGTERM) == 1

    async def test_merges_repeated_sighup(self, mine, none_before):
        assert await self.seen(signal.SIGHUP, signal.SIGHUP) == 1
        assert mine == []

    async def test_leaves_a_sighup_ignored(self, none_before):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert await self.seen(signal.SIGHUP) == 0
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    async def test_tells_of_a_later_one_again(self, mine, none_before, monkeypatch):
        monkeypatch.setattr(signals, "_DUPLICATE_SECONDS", 0.01)
        assert await self.seen(signal.SIGTERM, signal.SIGTERM) == 2

    def test_takes_nothing_in_another_thread(self):
        async def within():
            with signals.handle_interrupts(lambda: None):
                return "done"

        found = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(within())))
        thread.start()
        thread.join()
        assert found == ["done"]


def twice(process):
    """As `timeout` of GNU does: to the process, and to its group."""
    for _ in range(2):
        process.terminate()


def test_repeated_sigterm_keeps_grace(project, server):
    process = started("run", "many", "tasks.jsonl", "-o", "out.jsonl")
    until(lambda: server.in_flight == 1)
    twice(process)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "1 row: 1 succeeded" in said


def test_sighup_keeps_grace(project, server):
    process = started("run", "many", "tasks.jsonl", "-o", "out.jsonl")
    until(lambda: server.in_flight == 1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert is_done_with(project / "out.jsonl")


def test_nohup_ignores_sighup(project, server):
    process = started(
        *("run", "many", "tasks.jsonl", "-o", "out.jsonl"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    until(lambda: server.in_flight == 1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_repeated_sigterm_exits_130(project, server):
    process = started("run", "agent", "python-expert", "--task", "x")
    until(lambda: server.in_flight == 1)
    twice(process)
    assert (*process.communicate(timeout=60), process.returncode) == (
        "",
        "claude-force: error: interrupted\n",
        130,
    )


@pytest.mark.parametrize("number", ALL)
def test_signal_at_exit_is_silent(project, number):
    source = (
        "import threading, time\nfrom claude_force.cli.main import main\n"
        "import sys\nsys.argv = ['claude-force', '-q', 'list', 'agents']\ncode = main()\n"
        # A thread that Python waits for at its end, such as one that imports the SDK.
        "threading.Thread(target=time.sleep, args=(60,)).start()\nprint('ended', flush=True)\nsys.exit(code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "ended\n" in iter(process.stdout.readline, "")
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (-number, "")


class TestAReaderWhoHasStopped:
    """What is written to a full pipe waits for its reader, such as a pager that shows its first page."""

    @pytest.fixture
    def agents(self, project):
        """More of them than there is room for in the pipe."""
        for number in range(300):
            text = f"---\nname: agent-{number}\ndescription: One of many.\n---\nYou help.\n"
            (project / ".claude" / "agents" / f"agent-{number}.md").write_text(text)

    @pytest.fixture
    def pipe(self):
        """Both ends of one that is full."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, b"x" * PAGE)
        os.set_blocking(writer, True)
        yield reader, writer
        os.close(reader)
        os.close(writer)

    @pytest.mark.parametrize("number", ALL)
    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_keeps_no_command_from_its_end(self, agents, pipe, number, options):
        reader, writer = pipe
        full = unread(reader)
        os.read(reader, PAGE)
        process = started("list", "agents", *options, stdout=writer)
        until(lambda: full - unread(reader) < LONGEST_LINE)
        process.send_signal(number)
        _, error = process.communicate(timeout=20)
        assert process.returncode == 130
        assert error == ("" if options else "claude-force: error: interrupted\n")

    def test_does_not_block_run_many(self, project, pipe, messages_server):
        process = started("run", "many", "tasks.jsonl", "-o", "out.jsonl", "--json", stdout=pipe[1])
        until(lambda: is_done_with(project / "out.jsonl"))
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It has only to say so by now.
            process.wait(0.5)
        process.terminate()
        assert process.wait(20) == 130
        process.stderr.close()


PAGE, LONGEST_LINE = 4096, 100


def unread(pipe):
    found = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return found[0]


def is_done_with(output):
    """Whether nobody holds an output that has a row."""
    if not (output.exists() and output.read_text().endswith("\n")):
        return False
    with output.open("ab") as file:
        return try_lock(file.fileno())
