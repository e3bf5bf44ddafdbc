"""`run many` over standard streams, and over the results of another run."""

import json
import subprocess
import sys

import pytest
from fleet import write_project

from claude_force.cli.main import main
from claude_force.testing import MessagesServer, faults

COMMAND = [sys.executable, "-m", "claude_force", "run", "many"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    with MessagesServer(answer=lambda body: f"About {body['messages'][0]['content']}") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


def tasks(count, **more):
    rows = [
        {"agent": "python-expert", "task": f"Task {number}", "id": number, **more} for number in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def piped(text, *arguments):
    return subprocess.run([*COMMAND, *arguments], input=text, capture_output=True, text=True, timeout=60)


def rows_of(text):
    return {row["index"]: row for row in map(json.loads, text.splitlines())}


class TestStandardStreams:
    def test_stdin_to_stdout(self, project, server):
        done = piped(tasks(20), "-", "-o", "-")
        assert done.returncode == 0
        found = rows_of(done.stdout)
        assert sorted(found) == list(range(20))
        assert all(row["output"] == f"About Task {index}" for index, row in found.items())
        assert "20 rows: 20 succeeded" in done.stderr
        assert "continues" not in done.stderr

    def test_options_before_the_dash(self, project, server):
        done = piped(tasks(1), "-o", "-", "--max-concurrent", "2", "-")
        assert done.returncode == 0
        assert rows_of(done.stdout)[0]["success"]

    def test_resumes_with_same_stdin(self, project, server):
        assert piped(tasks(3), "-", "-o", "out.jsonl").returncode == 0
        done = piped(tasks(5), "-", "-o", "more.jsonl", "--limit", "3")
        assert done.returncode == 0
        done = piped(tasks(5), "-", "-o", "more.jsonl")
        assert done.returncode == 0
        assert "2 run now" in done.stderr

    def test_names_stdin_in_errors(self, project, server):
        done = piped('not json\n{"task": "x"}\n', "-", "-o", "-", "--agent", "python-expert")
        assert done.returncode == 3
        assert "standard input: line 1 is not JSON" in rows_of(done.stdout)[0]["error"]
        assert "claude-force-tasks" not in done.stdout + done.stderr

    def test_reads_task_from_file_and_stdin(self, project, server):
        (project / "a.txt").write_text("one")
        (project / "what.txt").write_text("Shorten")
        many = ["--files", "a.txt", "--agent", "python-expert", "-o", "-", "--task-file"]
        for name, text in (("what.txt", ""), ("-", "Shorten")):
            row = rows_of(piped(text, *many, name).stdout)[0]
            assert row["output"].startswith("About Shorten\n\n<file")

    def test_closed_pipe_ends_the_run(self, project, server):
        (project / "t.jsonl").write_text(tasks(300))
        command = [*COMMAND, "t.jsonl", "-o", "-", "--max-concurrent", "2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            process.stdout.close()
            errors = process.stderr.read()
        assert process.returncode == 1
        assert "standard output can't be written" in errors
        assert "Traceback" not in errors
        assert len(server.requests) < 300

    def test_stdout_suggests_no_retry(self, project, monkeypatch):
        plan = [faults.status(400, message="not like this")] * 3
        with MessagesServer(faults=plan) as running:
            for name, value in running.environment().items():
                monkeypatch.setenv(name, value)
            done = piped(tasks(3), "-", "-o", "-")
        assert done.returncode == 3
        assert "--retry-failed" not in done.stderr
        assert "the same command" not in done.stderr
        assert done.stderr.count("not like this") == 1

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["t.jsonl", "-o", "-", "--json"], "-o - and --json both write to standard output"),
            (["t.jsonl", "-o", "-", "--retry-failed"], "--retry-failed needs results that can be read again"),
            (["t.jsonl", "-o", "out.csv"], "use -o out.jsonl"),
            (["t.jsonl", "-o", "a/b.TSV"], "use -o a/b.jsonl"),
            (["t.jsonl", "-o", "x.parquet"], "only as JSON lines"),
            (["t.jsonl"], "(- for stdout)"),
            (["-", "--files", "*.md", "--agent", "python-expert", "-o", "x.jsonl"], "Give either"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_refuses_impossible_options(self, project, server, capsys, arguments, said):
        (project / "t.jsonl").write_text(tasks(1))
        assert main(["run", "many", *arguments]) == 2
        captured = capsys.readouterr()
        assert said in captured.out + captured.err
        assert not server.requests
        assert not [*project.glob("out*"), *project.glob("x.*")]


class TestResultsAsTasks:
    @pytest.fixture
    def first(self, project, server):
        (project / "t.jsonl").write_text(tasks(4, team="a"))
        assert main(["run", "many", "t.jsonl", "-o", "first.jsonl"]) == 0
        return project / "first.jsonl"

    def test_outputs_are_tasks_of_the_agent(self, first, server):
        assert main(["run", "many", "first.jsonl", "--agent", "code-reviewer", "-o", "second.jsonl"]) == 0
        before, after = rows_of(first.read_text()), rows_of((first.parent / "second.jsonl").read_text())
        assert {row["id"] for row in after.values()} == {0, 1, 2, 3}
        for row in after.values():
            assert row["agent"] == "code-reviewer"
            assert row["team"] == "a"
            (source,) = (one for one in before.values() if one["id"] == row["id"])
            assert row["task"] == source["output"]
            assert row["output"] == f"About {source['output']}"

    def test_the_same_command_resumes_it(self, first, server, capsys):
        for _ in range(2):
            assert main(["run", "many", "first.jsonl", "--agent", "code-reviewer", "-o", "second.jsonl"]) == 0
        assert "4 succeeded, 0 failed, 0 missing; 0 run now" in capsys.readouterr().err

    def test_an_agent_has_to_be_named(self, first, server, capsys):
        assert main(["run", "many", "first.jsonl", "-o", "second.jsonl"]) == 2
        assert "first.jsonl holds the results of a run" in capsys.readouterr().err

    def test_a_failed_row_stays_one(self, first, server):
        rows = [json.loads(line) for line in first.read_text().splitlines()]
        rows[1].update(success=False, output="", error="it broke")
        first.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sent = len(server.requests)
        assert main(["run", "many", "first.jsonl", "--agent", "code-reviewer", "-o", "second.jsonl"]) == 3
        assert (
            "is the result of a failed row"
            in rows_of((first.parent / "second.jsonl").read_text())[1]["error"]
        )
        assert len(server.requests) == sent + 3

    def test_runs_are_chained_by_a_pipe(self, project, server):
        first = piped(tasks(3), "-", "-o", "-")
        second = piped(first.stdout, "-", "-o", "-", "--agent", "code-reviewer")
        assert second.returncode == 0
        assert {row["output"] for row in rows_of(second.stdout).values()} == {
            f"About About Task {number}" for number in range(3)
        }


class TestErrorsAndWarnings:
    def test_summarizes_errors(self, project, monkeypatch, capsys):
        (project / "t.jsonl").write_text(tasks(40) + '{"agent": "nobody", "task": "x"}\n' * 3)
        plan = [faults.status(529, message="busy now") if number % 2 else None for number in range(30)]
        plan += [faults.status(400, message="prompt is too long: 12 tokens")] * 5
        with MessagesServer(faults=plan) as running:
            for name, value in running.environment().items():
                monkeypatch.setenv(name, value)
            code = main(["run", "many", "t.jsonl", "-o", "o.jsonl", "--max-retries", "9"])
        assert code == 3
        lines = capsys.readouterr().err.splitlines()
        text = "\n".join(lines)
        refused = "RequestRefusedError: The API answered 400 invalid_request_error: prompt is too long"
        assert f"failed: 5 x {refused}: 12 tokens (rows " in text
        assert "failed: 3 x AgentNotFoundError: Agent 'nobody' not found" in text
        overloaded = "OverloadedError: The API answered 529 overloaded_error: busy now"
        assert f"tried again: 15 x {overloaded} (rows " in text
        assert len(lines) <= 8

    def test_fail_fast_starts_no_further_row(self, project, monkeypatch, capsys):
        (project / "t.jsonl").write_text(tasks(50))
        with MessagesServer(faults=[None, None, faults.status(400)]) as running:
            for name, value in running.environment().items():
                monkeypatch.setenv(name, value)
            command = ["run", "many", "t.jsonl", "-o", "o.jsonl", "--max-concurrent", "1", "--fail-fast"]
            assert main(command) == 3
            assert 3 <= len(running.requests) < 50
            assert "continues this run" in capsys.readouterr().err
            assert main([*command[:-1], "--retry-failed"]) == 0
        assert len(rows_of((project / "o.jsonl").read_text())) == 50
