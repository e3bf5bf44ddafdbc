"""The display of a bulk run on a terminal: it fits, it is whole, and no server writes to the screen."""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import write_project

from claude_force.bulk import Finished, Paused, Progress, Retried
from claude_force.calling import Load, Rates
from claude_force.cli.board import Board
from claude_force.errors import ClosedError, OverloadedError, RateLimitError
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


def test_it_fits_the_terminal_and_shows_errors_without_what_a_terminal_obeys(seen):
    assert "of 40 rows done" in seen
    assert "! row" in seen
    assert "busy [2J[31m[bold] second" in seen
    assert "\x1b[2J" not in seen
    frames = re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "\n", seen.split("40 rows: 40 succeeded")[0])
    assert max(map(len, frames.splitlines())) <= COLUMNS


def test_attempts_that_failed_are_on_the_board_and_not_across_it(seen):
    assert "attempt 1 for" not in seen
    assert "40 rows: 40 succeeded" in seen


class TestLines:
    def board(self, load=None):
        return Board(lambda: load, kept=10, spent=1.5, quiet=True)

    def test_rows_speed_and_money_count_what_was_there_before(self):
        board = self.board(Load(3, 5, 12.0, Rates(60, None, 8_000)))
        progress = Progress(
            total=90,
            done=40,
            failed=2,
            cached=5,
            in_flight=4,
            cost=0.5,
            cost_expected=1.0,
            seconds_left=3_700,
        )
        board.on_event(Finished(1, "a", progress, AgentResult("a", True)))
        rows, speed, money = board.lines()
        assert rows == "50 of 100 rows done, 2 failed, 5 cached, 3 in flight of 5 at most, paused for 12 s"
        assert "0 of 60 requests" in speed
        assert "of 8,000 output tokens" in speed
        assert money == "$2.00 so far, about $2.50 in all; 1 h 1 min left"

    def test_rows_that_a_stop_left_unsent_have_neither_ended_nor_failed(self):
        board = self.board()
        progress = Progress(total=90, done=40, failed=3, cost_expected=1.0, seconds_left=2.0)
        board.on_event(Finished(1, "a", progress, AgentResult("a", False, error=ClosedError("stopped"))))
        rows, _, money = board.lines()
        assert rows.startswith("49 of 100 rows done, 2 failed")
        assert money == "$1.50 so far"
        assert "failed" not in board._drawn().plain.replace("2 failed", "")

    def test_its_first_line_has_a_speed(self):
        board = self.board()
        progress = Progress(done=40, attempts=40, input_tokens=1_000, output_tokens=500)
        board.on_event(Finished(1, "a", progress, AgentResult("a", True)))
        assert "each minute 0 requests" not in board.lines()[1]

    def test_the_last_errors_stay(self):
        board = self.board()
        for number in range(5):
            board.on_event(Retried(number, "a", Progress(), 1, 0.5, OverloadedError("busy")))
        board.on_event(Paused(7, "a", Progress(), 2.0, RateLimitError("later")))
        drawn = board._drawn().plain
        assert drawn.count("  ! ") == 3
        assert "row 5, attempt 1: busy" in drawn
        assert "all wait for 2.00 s: later" in drawn


def test_rows_that_workers_have_are_not_said_to_be_on_the_wire():
    board = Board(lambda: None, kept=0, spent=0.0, under_way="handed over")
    board.progress = Progress(total=9, done=2, in_flight=3)
    assert "2 of 9 rows done, 0 failed, 0 cached, 3 handed over" in board.lines()[0]
