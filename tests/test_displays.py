"""The display of a bulk run on a terminal: it fits, it is whole, and no server writes to the screen."""

import io
import itertools
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import FakeClock, write_project

from claude_force.bulk import Finished, Paused, Progress, Retried
from claude_force.cli.bulk_report import ErrorSummary
from claude_force.cli.displays import ProgressDisplay
from claude_force.errors import (
    ClosedError,
    InvalidTaskError,
    OverloadedError,
    RateLimitError,
    RequestRefusedError,
)
from claude_force.limits.admission import Load
from claude_force.limits.rate_limiter import Rates
from claude_force.testing import MessagesServer, faults
from claude_force.types import AgentResult

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
COLUMNS = 90
EVIL = "busy \x1b[2J\x1b[31m[bold]\nsecond line " + "and so on " * 30


def on_a_terminal(command, folder):
    """The exit code and all that the command wrote to a terminal of COLUMNS columns."""
    import fcntl
    import pty
    import termios

    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=str(folder),
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path.cwd())},
    )
    os.close(its)
    seen = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:
            # Linux says so at the end.
            part = b""
        if not part:
            break
        seen += part
    os.close(mine)
    return process.wait(), seen.decode("utf-8")


@pytest.fixture
def seen(tmp_path, monkeypatch):
    write_project(tmp_path)
    rows = [{"agent": "python-expert", "task": f"Task {number}"} for number in range(40)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plan = [faults.status(529, message=EVIL) if number % 4 == 0 else None for number in range(40)]
    with MessagesServer(faults=plan, time_to_first_token=0.2) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-m", "claude_force", "run", "many", "t.jsonl", "-o", "out.jsonl"]
        code, text = on_a_terminal([*command, "--max-concurrent", "8"], tmp_path)
    assert code == 0
    return text


def test_fits_terminal_and_strips_codes(seen):
    assert "of 40 rows done" in seen
    assert "! tried again: " in seen
    assert re.search(r"█+░+ \d+ %", seen)
    assert "busy [2J[31m[bold] second" in seen
    assert "\x1b[2J" not in seen
    frames = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "\n", seen.split("40 rows: 40 succeeded")[0])
    assert max(map(len, frames.splitlines())) <= COLUMNS


def test_failed_attempts_are_on_display(seen):
    assert "attempt 1 for" not in seen
    assert "40 rows: 40 succeeded" in seen


class TestLines:
    def display(self, load=None, now=None):
        return ProgressDisplay(
            lambda: load, done_before=10, spent=1.5, pending=90, quiet=True, now=now or FakeClock().now
        )

    def finished(self, error=None, **progress):
        return Finished(1, "a", Progress(total=90, **progress), AgentResult("a", error is None, error=error))

    def test_counts_what_was_there_before(self):
        clock = FakeClock()
        display = self.display(Load(3, 5, 12.0, Rates(60, None, 8_000)), clock.now)
        progress = {"done": 40, "failed": 2, "cached": 5, "in_flight": 4}
        money = {"cost": 0.5, "cost_expected": 1.0, "seconds_left": 3_700, "elapsed": 75.0}
        clock.time += 75
        display.on_event(self.finished(**progress, **money))
        first, rows, money, speed = display.lines()
        assert first == "50 %, 1 min 15 s elapsed, 1 h 1 min left"
        assert money == "$2.00 so far, about $2.50 in all"
        assert rows == "50 of 100 rows done, 2 failed, 5 cached, 3 in flight (max 5), paused for 12 s"
        assert speed == "per minute: 0 of 60 requests, 0 tokens in, 0 of 8k tokens out"

    def test_hides_expired_estimate(self):
        clock = FakeClock()
        display = self.display(now=clock.now)
        display.on_event(self.finished(done=1, seconds_left=5.0, elapsed=0.0))
        clock.time += 3
        assert display.lines()[0] == "11 %, 3 s elapsed, 2 s left"
        clock.time += 2
        assert display.lines()[0] == "11 %, 5 s elapsed"

    def test_small_limit_keeps_fraction(self):
        display = self.display(Load(0, 5, 0.0, Rates(1.5, None, None)))
        assert display.lines()[3] == "per minute: 0 of 1.5 requests, 0 tokens in, 0 tokens out"

    def test_bar_shows_share(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "ascii"))
        display = self.display()
        display.on_event(self.finished(done=40))
        assert display.drawn().plain.startswith("############------------ 50 %, ")
        display.on_event(self.finished(done=90))
        assert display.drawn().plain.startswith("#" * 24 + " 100 %, ")

    def test_hundred_percent_is_all_of_them(self):
        display = ProgressDisplay(lambda: None, done_before=0, spent=0.0, pending=1000, quiet=True)
        display.on_event(Finished(1, "a", Progress(total=1000, done=999), AgentResult("a", True)))
        assert display.lines()[0].startswith("99 %, ")

    @pytest.mark.parametrize(("in_flight", "limit"), [(5, 1), (2, 1), (1, 1), (0, 1)])
    def test_limit_is_never_exceeded(self, in_flight, limit):
        display = self.display(Load(in_flight, limit, 0.0, Rates()))
        rows = display.lines()[1]
        assert f"{in_flight} in flight" in rows
        assert ("(max 1)" in rows) == (in_flight <= limit)

    def test_unsent_rows_are_not_counted(self):
        display = self.display()
        error = ClosedError("stopped")
        display.on_event(self.finished(error, done=40, failed=3, cost_expected=1.0, seconds_left=2.0))
        first, rows, money, _ = display.lines()
        assert rows.startswith("49 of 100 rows done, 2 failed")
        assert (first, money) == ("49 %, 0 s elapsed", "$1.50 so far")
        assert "failed" not in display.drawn().plain.replace("2 failed", "")

    def test_its_first_line_has_a_speed(self):
        clock = FakeClock()
        display = self.display(now=clock.now)
        display.on_event(self.finished(done=40, attempts=40, input_tokens=20_000, output_tokens=1_500))
        clock.time += 10
        assert display.lines()[3] == "per minute: 240 requests, 120k tokens in, 9k tokens out"

    def test_errors_are_summarised_by_kind(self):
        display = self.display()
        for number in range(50):
            error = OverloadedError(f"busy, request {number}", status=529)
            display.on_event(Retried(number, "a", Progress(), 1, 0.5, error))
            display.on_event(self.finished(RequestRefusedError("not like this", status=400)))
        drawn = display.drawn().plain
        assert drawn.count("  ! ") == 2
        assert "tried again: 50 x OverloadedError: busy, request 0 (rows 1, 2, 3 and 47 more)" in drawn
        assert "50 x RequestRefusedError: not like this (rows 2, 2, 2 and 47 more)" in drawn

    def test_a_pause_is_told_while_it_lasts(self):
        display = self.display(Load(0, 5, 2.0, Rates()))
        display.on_event(Paused(7, "a", Progress(), 2.0, RateLimitError("later")))
        assert "all requests wait for 2.00 s: later" in display.drawn().plain
        display._load = lambda: Load(0, 5, 0.0, Rates())
        assert "later" not in display.drawn().plain

    def test_every_line_fits_into_80_columns(self):
        clock = FakeClock()
        display = ProgressDisplay(
            lambda: Load(500, 1000, 0.0, Rates(4_000, 2_000_000, 400_000)), 10, 1.5, 50_000, now=clock.now
        )
        big = {"done": 12_345, "failed": 123, "cached": 4_567, "attempts": 9_999}
        tokens = {"input_tokens": 50_000_000, "output_tokens": 9_000_000, "cost": 12.5, "cost_expected": 50.0}
        clock.time += 5_000
        display.on_event(
            Finished(
                1, "a", Progress(total=50_000, **big, **tokens, seconds_left=9_000), AgentResult("a", True)
            )
        )
        assert max(map(len, display.drawn().plain.splitlines())) <= 80


def test_remote_rows_are_handed_over():
    display = ProgressDisplay(lambda: None, done_before=0, spent=0.0, in_flight_label="handed over")
    display.progress = Progress(total=9, done=2, in_flight=3)
    assert "2 of 9 rows done, 0 failed, 0 cached, 3 handed over" in display.lines()[1]


class TestErrorSummary:
    def test_counts_most_frequent_first(self):
        summary = ErrorSummary()
        for row in range(1, 8):
            summary.add(row, RateLimitError("too many tokens: 812", status=429))
        summary.add(9, InvalidTaskError("Task is empty: say what the agent is to do."))
        assert list(summary.lines()) == [
            "7 x RateLimitError: too many tokens: 812 (rows 1, 2, 3 and 4 more)",
            "1 x InvalidTaskError: Task is empty: say what the agent is to do. (row 9)",
        ]
        assert summary.total == 8

    def test_memory_and_lines_are_bounded(self):
        summary = ErrorSummary()
        words = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=4)]
        for row, word in enumerate(words):
            summary.add(row, RequestRefusedError(f"wrong {word} {'x' * 1000}", status=400))
        lines = list(summary.lines())
        assert len(lines) == 7
        assert lines[-1].startswith("and ")
        assert max(map(len, lines)) < 300
        assert len(summary._kinds) <= 101
        assert summary.total == len(words)
