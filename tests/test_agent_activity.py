"""What agents that use tools are doing, as a terminal shows it."""

import json
import re
import sys

import pytest
from fleet import write_project
from test_displays import on_a_terminal

from claude_force.bulk import Finished, Progress, Started, ToolEnded, ToolStarted, TurnBegan, TurnEnded
from claude_force.cli.agent_activity import ActivityBoard, AgentActivity
from claude_force.cli.displays import WorkflowDisplay
from claude_force.conversation import ToolUse
from claude_force.testing import MessagesServer, Script, tool_calls
from claude_force.types import AgentResult, ToolCall, Turn
from claude_force.workflow import ForEach, Step, StepEvent
from claude_force.workflow.step_calls import StepCall

EVIL = "src/\x1b[2J\x1b]0;owned\x07\u202ea.py\nrm"


def activity(seconds=3.0):
    times = iter([0.0, *[seconds] * 9])
    return AgentActivity("reviewer", lambda: next(times))


def use(name, **given):
    return ToolUse(f"t-{name}", name, given)


class TestLine:
    def test_has_turn_seconds_cost_and_tool(self):
        agent = activity()
        agent.turn_began(1)
        agent.turn_ended(1, Turn(cost=0.25))
        agent.turn_began(2)
        agent.tool_started(2, use("Read", file_path="a.py"))
        assert agent.line() == "reviewer: turn 2, 3 s, $0.2500: Read a.py"

    def test_counts_tools_that_run_at_once(self):
        agent = activity()
        agent.turn_began(1)
        for name in ("Read", "Grep", "Glob"):
            agent.tool_started(1, use(name, pattern="x"))
        assert agent.line().endswith("Read x and 2 more")
        agent.tool_ended(ToolCall(1, "Read", {"pattern": "x"}))
        assert agent.line().endswith("Grep x and 1 more")

    def test_says_what_it_waits_for(self):
        agent = activity()
        agent.turn_began(1)
        assert agent.line().endswith("waiting to send")
        agent.started(1)
        assert agent.line().endswith("waiting for the model")
        agent.retried(1, 1.0, ValueError())
        assert agent.line().endswith("trying again")

    def test_unknown_cost_is_told(self):
        agent = activity()
        agent.turn_began(1)
        agent.turn_ended(1, Turn(cost=None))
        assert "$0.00 and more" in agent.line()

    def test_nothing_in_it_orders_a_terminal(self):
        agent = AgentActivity(f"re{EVIL}")
        agent.turn_began(1)
        agent.tool_started(1, use(f"Re{EVIL}", file_path=EVIL * 50))
        assert agent.line().isprintable() and len(agent.line()) < 180


class TestBoard:
    def begun(self, board, number):
        for index in range(number):
            board.on_event(TurnBegan(index, "reviewer", Progress(), 1))
        return board

    def test_rows_have_a_line_until_they_end(self):
        board = self.begun(ActivityBoard(), 2)
        board.on_event(Started(0, "reviewer", Progress(), 1))
        board.on_event(ToolStarted(1, "reviewer", Progress(), 1, "Grep", {"pattern": "x"}))
        first, second = board.lines(5)
        assert first.startswith("row 1 reviewer: turn 1, ") and second.endswith("Grep x")
        board.on_event(ToolEnded(1, "reviewer", Progress(), ToolCall(1, "Grep", {"pattern": "x"})))
        board.on_event(TurnEnded(1, "reviewer", Progress(), 1, Turn(cost=1.0)))
        assert "$1.00" in board.lines(5)[1]
        board.on_event(Finished(0, "reviewer", Progress(), AgentResult()))
        assert len(board.lines(5)) == 1

    def test_rows_without_tools_have_none(self):
        board = ActivityBoard()
        board.on_event(Started(0, "reviewer", Progress(), 1))
        board.on_event(Finished(0, "reviewer", Progress(), AgentResult()))
        assert board.lines(5) == []

    def test_lines_are_bounded(self):
        board = self.begun(ActivityBoard(), 500)
        lines = board.lines(10)
        assert len(lines) == 10 and lines[-1] == "and 491 more agents"
        assert board.lines(0) == [] and board.lines(-3) == []
        assert len(board.lines(500)) == 500


def test_step_of_several_parts_has_a_line_for_each():
    display = WorkflowDisplay("flow", as_json=False)
    step = Step("each", "reviewer", foreach=ForEach("list", ("x", "y")))
    display.on_step(StepEvent("each", "reviewer", "running", 0, 2, 0))
    with display.watch(StepCall(step, 1, 1, "x")) as listener:
        listener.turn_began(1)
        listener.tool_started(1, use("Read", file_path=EVIL))
        lines = display.lines(80, 24)
        assert any("each part 2: turn 1" in line for line in lines)
        assert all(line.isprintable() for line in lines)
        assert len(display.lines(80, 4)) <= 4
    assert not any("part 2" in line for line in display.lines(80, 24))


def test_single_step_has_it_in_its_row():
    display = WorkflowDisplay("flow", as_json=False)
    step = Step("one", "reviewer")
    display.on_step(StepEvent("one", "reviewer", "running", 0, 1, 0))
    with display.watch(StepCall(step, 0, 1, "x")) as listener:
        listener.turn_began(2)
        assert "running, turn 2, " in display.lines(80, 24)[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
class TestTerminal:
    @pytest.fixture
    def command(self, tmp_path, monkeypatch):
        """Runs a command on a terminal, against a script with a hostile input; returns what was seen."""
        write_project(tmp_path)
        slow = tool_calls(("Read", {"file_path": EVIL}), ("Grep", {"pattern": "x"}), text=f"Look {EVIL}")
        rows = "".join(json.dumps({"task": f"Task {number}"}) + "\n" for number in range(30))
        (tmp_path / "t.jsonl").write_text(rows, encoding="utf-8")
        with MessagesServer(answer=Script([slow, "Done."]), time_to_first_token=0.7) as server:
            for name, value in server.environment().items():
                monkeypatch.setenv(name, value)

            def run(*arguments):
                words = [sys.executable, "-m", "claude_force", "run", *arguments, "--tools", "read"]
                code, text = on_a_terminal(words, tmp_path)
                assert code == 0, text
                return text

            yield run

    def check(self, text):
        assert "\x1b[2J" not in text and "owned\x07" not in text and "\u202e" not in text

    def test_agent_shows_turn_and_answer_alone(self, command):
        text = command("agent", "python-expert", "--task", "Look")
        assert "python-expert: turn 1, " in text
        assert "Done." in text and "Look src" not in text
        self.check(text)

    def test_rows_fit_the_terminal(self, command):
        text = command("many", "t.jsonl", "--agent", "python-expert", "-o", "o.jsonl")
        assert re.search(r"row \d+ python-expert: turn \d, ", text) and "more agents" in text
        self.check(text)
        frames = re.split(r"\x1b\[\?25l|elapsed", text)
        assert max(frame.count("row ") for frame in frames) <= 12
