"""The commands `run workflow`, `workflow show` and `runs`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pexpect
import pytest
from fleet import command

from claude_force.cli.displays import WorkflowDisplay
from claude_force.cli.main import main
from claude_force.testing import faults
from claude_force.types import AgentResult
from claude_force.workflow import StepEvent, StepResult

GRAPH = {
    "inputs": {"language": "English"},
    "steps": [
        {"id": "each", "agent": "code-reviewer", "foreach": {"files": "src/*.py"}},
        {"id": "sum", "agent": "python-expert", "dependencies": ["each"]},
        {
            "id": "talk",
            "agent": "python-expert",
            "dependencies": ["each"],
            "task": "In ${inputs.language}: ${steps.each}",
        },
        {
            "id": "alarm",
            "agent": "code-reviewer",
            "dependencies": ["sum"],
            "when": {"step": "sum", "contains": "no answer says this"},
        },
    ],
}
BROKEN = {
    "steps": [
        {"id": "a", "agent": "pyton-expert", "dependencies": ["b"]},
        {"id": "b", "agent": "code-reviewer", "dependencies": ["a"]},
        {"id": "c", "agent": "code-reviewer", "dependencies": ["a"]},
    ]
}


@pytest.fixture
def graph(workplace):
    """The project, with a graph and an invalid one besides its lists of agents."""
    path = workplace / ".claude" / "claude.json"
    config = json.loads(path.read_text())
    config["workflows"].update({"fan-out": GRAPH, "knot": BROKEN})
    path.write_text(json.dumps(config))
    (workplace / "src").mkdir()
    for name in ("one", "two", "three"):
        (workplace / "src" / f"{name}.py").write_text(f"print('{name}')\n")
    return workplace


def fields_of(capsys):
    return json.loads(capsys.readouterr().out)


# The price list of Python 3.8 knows neither.
PRICES = ["--price", "claude-sonnet-5-5=3,15", "--price", "claude-haiku-5-5=1,5"]


def ran(capsys, *arguments, code=0):
    """Runs a command that ends with `code`; returns the fields of its JSON."""
    assert main(["run", "workflow", *arguments, *PRICES, "--json"]) == code
    return fields_of(capsys)


class TestShow:
    def test_shows_steps_in_order(self, graph, capsys):
        assert main(["workflow", "show", "fan-out"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "1  each   code-reviewer  for each of the files src/*.py",
            "2  sum    python-expert  after each",
            "2  talk   python-expert  after each",
            "3  alarm  code-reviewer  after sum; when steps.sum contains 'no answer says this'",
        ]

    def test_draws_a_flowchart_for_mermaid(self, graph, capsys):
        assert main(["workflow", "show", "fan-out", "--format", "mermaid"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "flowchart TD"
        assert '    s1["each<br>code-reviewer<br>for each of the files src/*.py"]' in lines
        assert "    s1 --> s2" in lines
        assert "    s2 -.-> s4" in lines

    @pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
    def test_graphviz_reads_its_picture(self, graph, capsys):
        assert main(["workflow", "show", "fan-out", "--format", "dot"]) == 0
        picture = capsys.readouterr().out
        drawn = subprocess.run(["dot", "-Tplain"], input=picture, capture_output=True, text=True, check=True)
        assert drawn.stdout.count("\nnode") == 4

    def test_draws_for_graphviz(self, graph, capsys):
        assert main(["workflow", "show", "fan-out", "--format", "dot"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "digraph {"
        assert sum("label=" in line for line in lines) == 4
        assert [line.strip() for line in lines if "->" in line] == [
            "s1 -> s2;",
            "s1 -> s3;",
            "s2 -> s4 [style=dashed];",
        ]

    def test_shows_all_faults(self, graph, capsys):
        assert main(["workflow", "show", "knot", "--json"]) == 1
        found = fields_of(capsys)["faults"]
        assert "these steps wait for each other: a -> b -> a; take one of the dependencies out" in found
        assert "step 'c' is never reached: it waits for steps that wait for each other" in found
        assert "step 'a': Agent 'pyton-expert' not found. Did you mean: python-expert?" in found

    @pytest.mark.parametrize(
        ("steps", "fault"),
        [
            ([{"id": "a", "agent": "code-reviewer", "dependencies": ["zz"]}], "there is no step 'zz'"),
            ([{"id": "a", "agent": "code-reviewer"}] * 2, "2 steps have the id 'a'"),
            ([{"id": "a b", "agent": "code-reviewer"}], 'step 1: "id" is'),
        ],
    )
    def test_shows_faults_without_drawing(self, graph, capsys, steps, fault):
        path = graph / ".claude" / "claude.json"
        path.write_text(json.dumps({"workflows": {"w": {"steps": steps}}}))
        for form in ("text", "mermaid", "dot"):
            assert main(["workflow", "show", "w", "--format", form]) == 1
            captured = capsys.readouterr()
            assert (captured.out, fault in captured.err) == ("", True)

    def test_a_list_of_agents_is_a_chain(self, graph, capsys):
        assert main(["workflow", "show", "review"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "1  1  python-expert",
            "2  2  code-reviewer  after 1",
        ]


class TestRun:
    def test_shows_answers_by_file(self, graph, capsys):
        assert main(["run", "workflow", "fan-out", "--task", "Look"]) == 0
        out = capsys.readouterr().out
        assert out.index("== each. code-reviewer") < out.index("-- src/one.py") < out.index("== sum.")

    def test_says_what_was_skipped_and_why(self, graph, capsys):
        assert main(["run", "workflow", "fan-out", "--task", "Look"]) == 0
        error = capsys.readouterr().err
        assert "alarm is skipped: it runs only when steps.sum contains 'no answer says this'" in error
        assert "3 steps succeeded, 1 step skipped" in error

    def test_json_has_each_step(self, graph, capsys):
        fields = ran(capsys, "fan-out", "--task", "Look")
        assert [(step["id"], step["status"], step["calls"]) for step in fields["steps"]] == [
            ("each", "succeeded", 3),
            ("sum", "succeeded", 1),
            ("talk", "succeeded", 1),
            ("alarm", "skipped", 0),
        ]
        assert fields["cost"] == pytest.approx(sum(step["cost"] for step in fields["steps"]))

    def test_reads_inputs_from_options_and_file(self, graph, messages_server, capsys):
        (graph / "inputs.json").write_text('{"language": "Danish"}')
        ran(capsys, "fan-out", "--task", "Look", "--inputs", "inputs.json")
        ran(capsys, "fan-out", "--task", "Look", "--input", "language=Old Norse")
        reported = [one.body["messages"][0]["content"] for one in messages_server.requests]
        assert sum(text.startswith("In Danish: ") for text in reported) == 1
        assert sum(text.startswith("In Old Norse: ") for text in reported) == 1

    def test_plan_counts_calls(self, graph, messages_server, capsys):
        plan = ran(capsys, "fan-out", "--task", "Look", "--plan")
        assert messages_server.requests == []
        assert plan["levels"] == [["each"], ["sum", "talk"], ["alarm"]]
        assert plan["estimate"]["rows"] == 6
        assert main(["run", "workflow", "fan-out", "--task", "Look", "--plan"]) == 0
        assert "6 calls: 0 have a cached answer" in capsys.readouterr().out

    def test_plan_names_unmatched_pattern(self, graph, capsys):
        shutil.rmtree(graph / "src")
        plan = ran(capsys, "fan-out", "--task", "Look", "--plan")
        assert plan["steps"][0]["problem"].startswith("No file below")
        assert plan["estimate"]["unrunnable"] == 1
        assert main(["run", "workflow", "fan-out", "--task", "Look", "--plan"]) == 0
        assert "step 'each' would fail: No file below" in capsys.readouterr().err

    def test_says_how_to_resume_failed_run(self, graph, another_server, capsys):
        another_server(faults=[None, None, None, faults.status(400)])
        assert main(["run", "workflow", "fan-out", "--task", "Look", "--max-concurrent", "1", *PRICES]) == 1
        hint = next(line for line in capsys.readouterr().err.splitlines() if "--resume" in line)
        run_id = hint.partition("--resume ")[2].split()[0]
        healthy = another_server()
        fields = ran(capsys, "fan-out", "--resume", run_id, "--cache", "off")
        assert fields["success"] is True
        assert fields["task"] == "Look"
        assert (sum(step["resumed"] for step in fields["steps"]), len(healthy.requests)) == (4, 1)
        assert fields["cost_before"] > 0

    def test_counts_resumed_answers(self, graph, another_server, capsys):
        another_server(faults=[None, faults.status(400)])
        assert main(["run", "workflow", "review", "--task", "Look", *PRICES]) == 1
        run_id = capsys.readouterr().err.partition("--resume ")[2].split()[0]
        another_server()
        assert main(["run", "workflow", "review", "--resume", run_id, *PRICES]) == 0
        assert "2 steps succeeded; 1 answer from before" in capsys.readouterr().err.replace(",", ";")

    def test_says_why_step_was_skipped(self, graph, messages_server, capsys):
        budget = ["--budget", "0.000001"]
        assert main(["run", "workflow", "review", "--task", "Look", *budget, *PRICES]) == 1
        assert "budget" in capsys.readouterr().err
        assert messages_server.requests == []

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["knot", "--task", "x"], "Workflow 'knot' can't be run"),
            (["fan-out", "--resume", "nobody-1", "--plan"], "--plan is for a run that has not begun"),
            (["fan-out", "--task", "x", "--input", "nothing"], "write NAME=TEXT"),
            (["fan-out", "--task", "x", "--input", "langage=x"], "did you mean language?"),
            (["fan-out", "--task", "x", "--inputs", "none.json"], "none.json can't be read"),
            (["fan-out", "--task", "x", "--inputs", "torn.json"], "torn.json is not JSON"),
            (["fan-out", "--task", "x", "--inputs", "deep.json"], "deep.json is not JSON"),
            (["fan-out", "--task", "x", "--inputs", "list.json"], "list.json is not a JSON object"),
            (["fan-out", "--resume", "nobody-1"], "Run 'nobody-1' not found"),
            (["fan-out", "--task", "x", "--budget", "0"], "--budget is 0"),
        ],
    )
    def test_wrong_options_send_nothing(self, graph, messages_server, capsys, arguments, what):
        for name, text in {"torn": '{"language', "deep": "[" * 200_000, "list": '["English"]'}.items():
            (graph / f"{name}.json").write_text(text)
        assert main(["run", "workflow", *arguments]) == 2
        assert what in capsys.readouterr().err
        assert messages_server.requests == []

    def test_budget_ends_the_run(self, graph, capsys):
        fields = ran(capsys, "fan-out", "--task", "Look", "--budget", "0.0001", code=1)
        assert fields["steps"][0]["status"] == "failed"
        assert "budget" in fields["steps"][0]["reason"]


def test_files_are_relative_to_claude_json(tmp_path, messages_server, capsys):
    (tmp_path / "neighbour.txt").write_text("the neighbour's")
    project = tmp_path / "project"
    project.mkdir()
    (project / "own.txt").write_text("the project's")
    (project / "reader.md").write_text("You read.")
    steps = [{"id": "read", "agent": "reader", "foreach": {"files": "*.txt"}}]
    config = {"agents": {"reader": {"file": "reader.md"}}, "workflows": {"read": {"steps": steps}}}
    (project / "claude.json").write_text(json.dumps(config))
    words = ["run", "workflow", "read", "--task", "Look", "--json"]
    assert main([*words, "--config", str(project / "claude.json")]) == 0
    (request,) = messages_server.requests
    assert "the project's" in request.body["messages"][0]["content"]
    run = json.loads(capsys.readouterr().out)["run_id"]
    assert main(["runs", "resume", run]) == 0
    assert len(messages_server.requests) == 1


def test_resume_command_is_quoted(graph, another_server, capsys):
    config = graph / ".claude" / "claude.json"
    whole = json.loads(config.read_text())
    whole["workflows"]["my review"] = ["python-expert"]
    config.write_text(json.dumps(whole))
    another_server(faults=[faults.status(400)])
    assert main(["run", "workflow", "my review", "--task", "Look"]) == 1
    assert "claude-force run workflow 'my review' --resume my-review-" in capsys.readouterr().err


class TestAConfigurationThatIsNotTheProjectsOwn:
    """The project's own claude.json defines the same workflow differently."""

    @pytest.fixture
    def run_id(self, graph, another_server, capsys):
        """Returns the output of a run whose second step failed."""
        whole = json.loads((graph / ".claude" / "claude.json").read_text())
        steps = [
            {"id": "one", "agent": "python-expert"},
            {"id": "two", "agent": "python-expert", "dependencies": ["one"]},
        ]
        whole["workflows"]["review"] = {"steps": steps}
        (graph / ".claude" / "other.json").write_text(json.dumps(whole))
        another_server(faults=[None, faults.status(400)])
        words = ["run", "workflow", "review", "--task", "Look", *PRICES]
        assert main([*words, "--config", ".claude/other.json"]) == 1
        hint = next(line for line in capsys.readouterr().err.splitlines() if "--resume" in line)
        assert "claude-force --config .claude/other.json run workflow review --resume" in hint
        return hint.partition("--resume ")[2].split()[0]

    def test_resumes_from_any_folder(self, run_id, another_server, capsys, monkeypatch):
        healthy = another_server()
        monkeypatch.chdir("/")
        assert main(["runs", "resume", run_id, "--json", *PRICES]) == 0
        assert [step["id"] for step in fields_of(capsys)["steps"]] == ["one", "two"]
        assert len(healthy.requests) == 1

    def test_resumes_without_original_folder(self, run_id, graph, another_server, capsys, monkeypatch):
        elsewhere = graph / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        another_server(faults=[faults.status(400)])
        assert main(["run", "workflow", "review", "--task", "Again", "--config", "..", "--json"]) == 1
        begun = fields_of(capsys)["run_id"]
        monkeypatch.chdir("/")
        elsewhere.rmdir()
        another_server()
        assert main(["runs", "resume", begun, "--json"]) == 0
        assert main(["runs", "show", begun, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.partition("\n}\n")[2])["project"] == str(graph)

    def test_resumes_with_given_config(self, run_id, graph, another_server, capsys):
        healthy = another_server()
        (graph / ".claude" / "other.json").rename(graph / ".claude" / "renamed.json")
        assert main(["runs", "resume", run_id]) == 2
        assert f"{graph / '.claude' / 'other.json'}" in capsys.readouterr().err
        again = ["runs", "resume", run_id, "--config", ".claude/renamed.json", "--json", *PRICES]
        assert main(again) == 0
        assert [step["id"] for step in fields_of(capsys)["steps"]] == ["one", "two"]
        assert len(healthy.requests) == 1


class TestRuns:
    def test_lists_runs_with_cost(self, graph, capsys):
        ran(capsys, "fan-out", "--task", "Look")
        ran(capsys, "review", "--task", "Look")
        assert main(["runs", "list", "--json"]) == 0
        newest, oldest = fields_of(capsys)
        assert (newest["workflow"], newest["status"], newest["answers"]) == ("review", "succeeded", 2)
        assert (oldest["workflow"], oldest["answers"]) == ("fan-out", 5)
        assert oldest["spent"] > 0

    def test_shows_task_and_answers_of_run(self, graph, capsys):
        run_id = ran(capsys, "review", "--task", "Look")["run_id"]
        assert main(["runs", "show", run_id, "--json"]) == 0
        found = fields_of(capsys)
        assert (found["task"], found["project"]) == ("Look", str(graph))
        assert [one["agent"] for one in found["steps"]] == ["python-expert", "code-reviewer"]
        assert main(["runs", "show", run_id]) == 0
        assert f"run:       {run_id}" in capsys.readouterr().out

    def test_lists_runs_in_columns(self, graph, capsys):
        run_id = ran(capsys, "review", "--task", "Look")["run_id"]
        assert main(["runs", "list"]) == 0
        heads, row = capsys.readouterr().out.splitlines()
        assert heads.split() == ["run", "workflow", "status", "began", "answers", "paid"]
        assert row.split()[:3] == [run_id, "review", "succeeded"]
        assert " ago " in row and "$0.0" in row

    def test_resume_needs_the_project(self, graph, messages_server, capsys, monkeypatch):
        run_id = ran(capsys, "review", "--task", "Look")["run_id"]
        asked = len(messages_server.requests)
        monkeypatch.chdir(graph.parent)
        graph.rename(graph.parent / "moved")
        assert main(["runs", "resume", run_id]) == 2
        assert "is not there any more" in capsys.readouterr().err
        assert len(messages_server.requests) == asked

    def test_names_unreadable_store(self, graph, clean_environment, capsys):
        ran(capsys, "review", "--task", "Look")
        journal = clean_environment / ".claude" / "runs" / "journal.sqlite"
        journal.unlink()
        journal.mkdir()
        assert main(["runs", "list"]) == 2
        assert "The journal of runs can't be read" in capsys.readouterr().err

    def test_an_unknown_run_is_an_error(self, graph, capsys):
        assert main(["runs", "show", "nobody-1"]) == 2
        assert "Run 'nobody-1' not found" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
class TestBrokenOff:
    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "claude_force", "run", "workflow", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def broken_off(self, server, after, number):
        """Sends a signal to a run once the server has received `after` requests."""
        running = self.start("fan-out", "--task", "Look", "--cache", "off", "--json")
        end = time.monotonic() + 90
        while len(server.requests) < after and time.monotonic() < end:
            time.sleep(0.01)
        running.send_signal(number)
        out, error = running.communicate(timeout=60)
        return running.returncode, out, error

    def test_ctrl_c_keeps_finished_steps(self, graph, another_server, capsys):
        server = another_server(faults=[None, None, None, *[faults.silence_before_first_byte()] * 2])
        code, out, error = self.broken_off(server, 5, signal.SIGINT)
        fields = json.loads(out)
        assert (code, fields["error"], len(fields["results"])) == (130, "interrupted", 3)
        assert f"--resume {fields['run_id']}" in error
        healthy = another_server()
        resumed = ran(capsys, "fan-out", "--resume", fields["run_id"], "--cache", "off")
        assert (resumed["success"], len(healthy.requests)) == (True, 2)

    def test_resumes_killed_run(self, graph, another_server, capsys):
        server = another_server(faults=[None, None, None, *[faults.silence_before_first_byte()] * 2])
        self.broken_off(server, 5, signal.SIGKILL)
        assert main(["runs", "list", "--json"]) == 0
        (found,) = fields_of(capsys)
        assert (found["status"], found["answers"]) == ("interrupted", 3)
        healthy = another_server()
        resumed = ran(capsys, "fan-out", "--resume", found["run"], "--cache", "off")
        assert (resumed["success"], len(healthy.requests)) == (True, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
class TestTerminal:
    def test_tree_shows_running_steps(self, graph, another_server):
        server = another_server(time_to_first_token=0.6)
        session = pexpect.spawn(
            sys.executable,
            ["-m", "claude_force", "run", "workflow", "fan-out", "--task", "Look"],
            encoding="utf-8",
            timeout=90,
            dimensions=(40, 100),
            use_poll=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        session.expect_exact("of 3 parts")
        session.expect_exact("== each. code-reviewer")
        session.expect_exact("3 steps succeeded, 1 step skipped")
        session.expect(pexpect.EOF)
        session.close()
        assert session.exitstatus == 0
        assert len(server.requests) == 5


class TestTree:
    def tree(self, ended, running, cost=0.5):
        tree = WorkflowDisplay("many", True)
        for number in range(ended):
            result = AgentResult("a", True, "x", cost=cost)
            step = StepResult(f"s{number}", "an-agent", "succeeded", tries=(result,), began=0.0, ended=1.0)
            tree.on_step(StepEvent(f"s{number}", "an-agent", "succeeded", 1, 1, 0, step))
        for number in range(ended, ended + running):
            tree.on_step(StepEvent(f"s{number}", "an-agent", "running", 0, 1))
        return tree

    def test_tree_shows_all_steps(self):
        assert [line.split()[0] for line in self.tree(2, 1).lines(80, 24)] == ["many:", "s0", "s1", "s2"]

    def test_tree_shows_running_steps_first(self):
        lines = self.tree(20, 2).lines(80, 8)
        assert len(lines) == 7
        assert lines[1] == "  and 17 steps before"
        assert [line.split()[0] for line in lines[2:]] == ["s17", "s18", "s19", "s20", "s21"]

    def test_narrow_tree_omits_agents(self):
        _, line = self.tree(1, 0).lines(30, 24)
        assert line == "  s0  succeeded, 1.00 s, $0.5000"

    def test_unknown_price_is_not_zero(self):
        assert "cost unknown so far" in self.tree(2, 1, cost=None).lines(80, 24)[0]


def test_unpriced_run_is_not_free(graph, capsys):
    assert main(["run", "workflow", "fan-out", "--task", "T", "--model", "a-model-of-our-own"]) == 0
    capsys.readouterr()
    main(["runs", "list", "--json"])
    (run,) = fields_of(capsys)
    assert run["unpriced"] == run["answers"] > 0
    main(["runs", "list"])
    assert f"$0.00 and {run['answers']} answers of unknown cost" in capsys.readouterr().out


def test_plan_refuses_resume(graph, capsys):
    assert main(["run", "workflow", "fan-out", "--task", "T", "--plan", "--resume", "x"]) == 2
    assert "a run that has not begun" in capsys.readouterr().err


def test_piped_output_is_plain(graph):
    done = command("run", "workflow", "fan-out", "--task", "Look")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout + done.stderr
