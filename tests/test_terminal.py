"""Sessions on a real terminal: what a person sees, types and interrupts."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pexpect
import pytest
from extras import require_prices
from fleet import command, until

from claude_force.testing import faults

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")

ROOT = Path(__file__).parent.parent
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|4[0-7]|9[0-7])[0-9;]*m")
LONG = " ".join(f"word{number}" for number in range(400))


class Terminal:
    """A command on a terminal of its own; `seen` is all that it has written there."""

    def __init__(self, *arguments, columns=80, shell=None, **environment):
        command = [sys.executable, "-m", "claude_force", *arguments] if shell is None else ["sh", "-c", shell]
        self._session = pexpect.spawn(
            command[0],
            command[1:],
            encoding="utf-8",
            timeout=90,
            dimensions=(24, columns),
            use_poll=True,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
        )
        self.seen = ""

    def wait_for(self, text):
        """Until it stands on the terminal."""
        self._session.expect_exact(text)
        self.seen += self._session.before + self._session.after

    def interrupt(self):
        self._session.sendintr()

    def end(self):
        """The exit code, when all is written."""
        self._session.expect(pexpect.EOF)
        self.seen += self._session.before
        self._session.close()
        return self._session.exitstatus

    @property
    def text(self):
        """Without what moves the cursor or colours it."""
        return ESCAPE.sub("", self.seen).replace("\r\n", "\n")


@pytest.fixture
def tasks(workplace):
    """Writes a file of so many tasks."""

    def write(count):
        rows = [{"agent": "python-expert", "task": f"Task {number}"} for number in range(count)]
        path = workplace / "tasks.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path.name

    return write


ASK = ("run", "agent", "python-expert", "--task", "x")


class TestAnswer:
    def test_streams_with_figures_below(self, another_server):
        server = another_server(answer=lambda body: LONG, tokens_per_second=400)
        terminal = Terminal(*ASK)
        terminal.wait_for("word0")
        assert server.in_flight == 1
        assert terminal.end() == 0
        answer, _, figures = terminal.text.rpartition("claude-force: ")
        assert answer.partition("word0")[2].replace("\n", "") == LONG[len("word0") :].replace("\n", "")
        assert re.fullmatch(
            r"claude-sonnet-5-5, [\d,]+ tokens, (\$0\.\d+|cost unknown), [\d.]+ m?s, 1 attempt\n", figures
        )

    def test_that_is_kept_appears_at_once(self, workplace, messages_server):
        Terminal(*ASK).end()
        terminal = Terminal(*ASK)
        assert terminal.end() == 0
        assert terminal.text.startswith("This is the report of")
        assert "from the cache" in terminal.text
        assert len(messages_server.requests) == 1

    def test_retry_begins_anew(self, another_server):
        another_server(answer=lambda body: LONG, faults=[faults.truncated_stream(after_events=20)])
        terminal = Terminal(*ASK)
        assert terminal.end() == 0
        broken, _, whole = terminal.text.partition("\nclaude-force: the answer broke off and begins anew\n")
        assert "word0" in broken
        assert "word399" not in broken
        assert whole.partition("word0 ")[2].startswith("word1 ")
        assert "word399" in whole
        assert "2 attempts" in whole
        # Why, once and not twice.
        assert whole.startswith("claude-force: warning: attempt 1")
        assert terminal.text.count(" failed: ") == 1

    def test_failure_keeps_partial_text(self, another_server):
        another_server(answer=lambda body: LONG, faults=[faults.truncated_stream(after_events=20)])
        terminal = Terminal(*ASK, "--max-retries", "1")
        assert terminal.end() == 1
        assert re.search(r"word0 .*\nclaude-force: error: ", terminal.text, re.DOTALL)

    def test_strips_control_characters(self, another_server):
        another_server(answer=lambda body: "safe\x1b[2J\x1b]0;title\x07 and\x9b31m sound")
        terminal = Terminal(*ASK, TERM="dumb")
        assert terminal.end() == 0
        assert "safe[2J]0;title and31m sound" in terminal.seen

    def test_no_stream(self, workplace, messages_server):
        terminal = Terminal(*ASK, "--no-stream")
        assert terminal.end() == 0
        assert terminal.text.count("This is the report of") == 1
        assert messages_server.requests[0].body["stream"] is False

    def test_quiet_shows_answer_alone(self, workplace):
        terminal = Terminal(*ASK, "--quiet")
        assert terminal.end() == 0
        assert terminal.seen.startswith("This is the report of")
        assert "claude-force:" not in terminal.text

    def test_ctrl_c_keeps_partial_text(self, another_server):
        server = another_server(answer=lambda body: LONG, tokens_per_second=100)
        terminal = Terminal(*ASK)
        terminal.wait_for("word9 ")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "word9 " in terminal.text
        assert terminal.text.endswith("\nclaude-force: error: interrupted\n")
        assert "word399" not in terminal.text
        until(lambda: server.in_flight == 0)


class TestManyTasks:
    def test_shows_progress(self, another_server, tasks):
        another_server(time_to_first_token=0.4)
        terminal = Terminal("run", "many", tasks(30), "-o", "out.jsonl", "--max-concurrent", "10")
        terminal.wait_for("of 30 rows done")
        assert terminal.end() == 0
        assert "30 rows: 30 succeeded, 0 failed, 0 missing; 30 run now" in terminal.text

    def test_ctrl_c_and_resume(self, another_server, tasks, workplace):
        server = another_server(time_to_first_token=0.3)
        command = ("run", "many", tasks(40), "-o", "out.jsonl", "--max-concurrent", "4")
        terminal = Terminal(*command)
        until(lambda: len(server.requests) >= 8)
        terminal.interrupt()
        assert terminal.end() == 130
        assert "stopping; " in terminal.text
        assert "the same command continues this run" in terminal.text
        kept = [json.loads(line) for line in (workplace / "out.jsonl").read_text().splitlines()]
        sent = len(server.requests)
        again = Terminal(*command)
        assert again.end() == 0
        assert len(server.requests) - sent <= 40 - len(kept)
        assert "40 rows: 40 succeeded" in again.text

    def test_quiet_shows_nothing(self, workplace, tasks):
        terminal = Terminal("run", "many", tasks(5), "-o", "out.jsonl", "--quiet")
        assert terminal.end() == 0
        assert terminal.seen == ""


class TestNarrowWindow:
    COLUMNS = 40

    def widths(self, terminal):
        return [len(line) for line in ESCAPE.sub("\n", terminal.seen).splitlines()]

    def test_narrow_table_is_a_list(self, workplace):
        terminal = Terminal("list", "agents", columns=self.COLUMNS)
        assert terminal.end() == 0
        assert max(self.widths(terminal)) <= self.COLUMNS
        assert "\ncode-reviewer\n" in terminal.text and "  file: agents/code-reviewer.md\n" in terminal.text

    @pytest.mark.parametrize(("columns", "has_file"), [(80, False), (130, True)])
    def test_names_in_a_table_are_whole(self, workplace, columns, has_file):
        name = "a-reviewer-of-documents"
        text = f"---\nname: {name}\ndescription: {'Reads what others wrote. ' * 4}\n---\nYou read.\n"
        (workplace / ".claude" / "agents" / f"{name}.md").write_text(text)
        terminal = Terminal("list", "agents", columns=columns)
        assert terminal.end() == 0
        assert f"│ {name} │" in terminal.text
        assert (f"agents/{name}.md" in terminal.text) == has_file

    @pytest.mark.parametrize("columns", [30, 120])
    def test_table_strips_control_characters(self, workplace, columns):
        metrics = workplace / ".claude" / "metrics"
        metrics.mkdir()
        line = {"timestamp": "2026-11-25T08:00:00Z", "agent_name": "a", "model": "m\x1b[2J\x1b]0;title\x07"}
        (metrics / "executions.jsonl").write_text(json.dumps(line) + "\n")
        terminal = Terminal("metrics", "models", columns=columns)
        assert terminal.end() == 0
        assert "\x1b[2J" not in terminal.seen and "\x1b]0;" not in terminal.seen
        assert "m[2J]0;title" in terminal.text

    def test_a_table_is_drawn_where_it_fits(self, workplace):
        terminal = Terminal("list", "workflows", columns=self.COLUMNS + 10)
        assert terminal.end() == 0
        assert max(self.widths(terminal)) <= self.COLUMNS + 10
        assert "┏━" in terminal.text and "python-expert -> code-reviewer" in terminal.text

    def test_the_progress_of_many_tasks_fits(self, another_server, tasks):
        another_server(time_to_first_token=0.4)
        terminal = Terminal("run", "many", tasks(10), "-o", "out.jsonl", columns=self.COLUMNS)
        terminal.wait_for("rows done")
        assert terminal.end() == 0
        board = terminal.seen.partition("claude-force: ")[0]
        assert max(len(line) for line in ESCAPE.sub("\n", board).splitlines()) <= self.COLUMNS


class TestNoColour:
    @pytest.mark.parametrize("arguments", [("list", "agents"), ASK], ids=" ".join)
    def test_no_color_variable(self, workplace, arguments):
        terminal = Terminal(*arguments, NO_COLOR="1")
        assert terminal.end() in (0, 1)
        assert not COLOUR.search(terminal.seen)

    @pytest.mark.parametrize("arguments", [("list", "agents"), ASK], ids=" ".join)
    def test_dumb_terminal(self, workplace, arguments):
        terminal = Terminal(*arguments, TERM="dumb")
        assert terminal.end() in (0, 1)
        assert "\x1b" not in terminal.seen

    def test_nor_while_many_tasks_run_there(self, another_server, tasks):
        another_server(time_to_first_token=0.3)
        terminal = Terminal("run", "many", tasks(5), "-o", "out.jsonl", TERM="dumb")
        assert terminal.end() == 0
        assert "\x1b" not in terminal.seen


@pytest.mark.skipif(not shutil.which("sh"), reason="there is no shell")
class TestPipes:
    def test_json_is_parsable(self, workplace):
        program = f"'{sys.executable}' -m claude_force {' '.join(ASK)} --json"
        terminal = Terminal(shell=f"{program} | '{sys.executable}' -m json.tool | grep '\"success\": true'")
        assert terminal.end() == 0

    def test_terminal_gets_figures_of_pipe(self, workplace):
        program = f"'{sys.executable}' -m claude_force {' '.join(ASK)}"
        terminal = Terminal(shell=f"{program} > answer; echo; cat answer | wc -l")
        assert terminal.end() == 0
        assert "1 attempt" in terminal.text
        assert "This is the report of" not in terminal.text
        assert (workplace / "answer").read_text().startswith("This is the report of")
        assert "\x1b" not in (workplace / "answer").read_text()

    def test_head_ends_quietly(self, another_server):
        another_server(answer=lambda body: LONG * 50)
        terminal = Terminal(shell=f"'{sys.executable}' -m claude_force {' '.join(ASK)} -q | head -c 5")
        assert terminal.end() == 0
        assert terminal.text == "word0"


LONG_NAME = "a-reviewer-with-a-very-long-name-that-goes-on-and-on"


@pytest.mark.parametrize("columns", [80, 100, 130])
class TestTables:
    """Names may be broken, figures never; each column has a name; nothing is wider than the window."""

    @pytest.fixture
    def shown(self, workplace, columns):
        agents = workplace / ".claude" / "agents"
        described = "description: " + "Reviews long texts. " * 5
        text = f"---\nname: {LONG_NAME}\n{described}\nmodel: haiku\n---\nYou review.\n"
        (agents / "long.md").write_text(text, encoding="utf-8")
        for task in ("a", "b"):
            assert command("run", "agent", LONG_NAME, "--task", task).returncode == 0

        def show(*arguments):
            terminal = Terminal(*arguments, columns=columns, COLUMNS=str(columns))
            assert terminal.end() == 0
            lines = ESCAPE.sub("", terminal.text).splitlines()
            assert max(map(len, lines)) <= columns
            return lines

        return show

    @pytest.mark.parametrize(
        "what", [("list", "agents"), ("metrics", "agents"), ("metrics", "costs")], ids=" ".join
    )
    def test_hold(self, shown, what, columns):
        lines = shown(*what)
        heads = [line for line in lines if line.startswith("┃")]
        assert heads
        for line in heads:
            assert all(cell.strip() for cell in line.strip("┃").split("┃"))
        first = "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))
        assert LONG_NAME in first

    def test_figures_are_whole(self, shown, columns):
        require_prices("claude-sonnet-5-5")
        lines = shown("metrics", "agents")
        row = next(line for line in lines if line.startswith("│ a-rev"))
        assert re.search(r"│ 2 +│", row)
        assert re.search(r"\$0\.\d{4,6} +│", row)
