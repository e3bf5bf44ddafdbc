"""`claude-force run many`: paid answers are saved, whatever ends the run, and never paid for twice."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from fleet import write_project

from claude_force.bulk import ResultsFile, ResumableRun, TaskFile
from claude_force.cli.durable_runs import run_id_for
from claude_force.cli.main import main
from claude_force.testing import MessagesServer, RateLimit, faults

MODEL = "claude-sonnet-5-5"
PRICE = f"{MODEL}=3,15"
OPTIONS = json.dumps({"model": MODEL})


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    with MessagesServer() as running:
        point_to(running, monkeypatch)
        yield running


def point_to(server, monkeypatch):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


def write_tasks(folder, count, agent="python-expert", name="tasks.jsonl"):
    path = folder / name
    rows = [{"agent": agent, "task": f"Task {number}", "id": f"row-{number}"} for number in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def many(*arguments):
    return main(["run", "many", *map(str, arguments)])


def results(path="out.jsonl"):
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def indexes(path="out.jsonl"):
    return sorted(result["index"] for result in results(path))


class TestRun:
    def test_copies_fields_of_rows(self, project, server, capsys):
        assert many(write_tasks(project, 30), "-o", "out.jsonl") == 0
        found = results()
        assert indexes() == list(range(30))
        for result in found:
            assert result["id"] == f"row-{result['index']}"
            assert result["task"] == f"Task {result['index']}"
            assert result["success"] is True
            assert result["output"]
            assert result["model"] == MODEL
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "30 rows: 30 succeeded, 0 failed, 0 missing" in captured.err

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            (
                "t.csv",
                'agent,task,id\npython-expert,"first, of two",1\ncode-reviewer,"a ""quoted""\nline",2\n',
            ),
            ("t.tsv", "agent\ttask\tid\npython-expert\tfirst, of two\t1\ncode-reviewer\tsecond\t2\n"),
            (
                "t.json",
                '[{"agent": "python-expert", "task": "first, of two", "id": "1"}, {"task": "y", "id": "2"}]',
            ),
            ("t.txt", "first, of two\r\n\r\nsecond\r\n"),
            ("t.jsonl", '\ufeff{"task": "first, of two"}\n\n"second"\n'),
        ],
    )
    def test_kinds_of_files(self, project, server, name, text):
        (project / name).write_bytes(text.encode("utf-8"))
        assert many(name, "-o", "out.jsonl", "--agent", "code-reviewer") == 0
        found = sorted(results(), key=lambda result: result["index"])
        assert found[0]["task"] == "first, of two"
        assert len(found) == 2
        assert found[1]["agent"] == "code-reviewer"

    def test_a_row_for_each_file(self, project, server):
        (project / "src" / "deep").mkdir(parents=True)
        (project / "src" / "a.py").write_text("print(1)\n", encoding="utf-8")
        (project / "src" / "deep" / "b.py").write_text("print(2)\n", encoding="utf-8")
        (project / "src" / "deep" / "c.bin").write_bytes(b"\xff\xfe\x00")
        code = many(
            "--files", "src/**/*.*", "--agent", "python-expert", "--task", "Review it", "-o", "out.jsonl"
        )
        assert code == 3
        found = sorted(results(), key=lambda result: result["file"])
        assert [result["file"] for result in found] == [
            str(Path("src", "a.py")),
            str(Path("src", "deep", "b.py")),
            str(Path("src", "deep", "c.bin")),
        ]
        assert "not UTF-8" in found[2]["error"]
        sent = [request.body["messages"][0]["content"] for request in server.requests]
        assert any(text.startswith("Review it\n\n<file path=") and "print(1)" in text for text in sent)

    def test_unrunnable_rows_fail_alone(self, project, server, capsys):
        lines = [
            '{"agent": "python-expert", "task": "good"}',
            '{"agent": "python-expert", "task": ',
            '{"agent": "nobody", "task": "x"}',
            '{"task": "no agent"}',
            '{"agent": "python-expert"}',
            "[1, 2]",
        ]
        (project / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
        assert many("t.jsonl", "-o", "out.jsonl") == 3
        found = {result["index"]: result for result in results()}
        assert [found[index]["success"] for index in range(6)] == [True, False, False, False, False, False]
        assert found[1]["error"] == "t.jsonl: line 2 is not JSON (Expecting value, column 37)"
        assert "nobody" in found[2]["error"]
        assert "--agent" in found[3]["error"]
        assert len(server.requests) == 1
        assert "5 failed" in capsys.readouterr().err

    def test_names_line_that_is_not_utf8(self, project, server, capsys):
        (project / "t.jsonl").write_bytes(b'{"task": "good"}\n{"task": "caf\xe9"}\n')
        assert many("t.jsonl", "-o", "out.jsonl", "--agent", "python-expert") == 2
        assert "t.jsonl can't be read: line 2 is not UTF-8. Convert the file" in capsys.readouterr().err
        assert server.requests == []

    @pytest.mark.parametrize("name", ["none.jsonl", "latin.jsonl"])
    def test_unreadable_tasks_leave_no_output(self, project, server, name):
        (project / "latin.jsonl").write_bytes(b'{"task": "caf\xe9"}\n')
        assert many(name, "-o", "out.jsonl", "--agent", "python-expert") == 2
        assert not (project / "out.jsonl").exists()

    def test_one_row_is_one(self, project, server, capsys):
        assert many(write_tasks(project, 1), "-o", "out.jsonl") == 0
        assert "1 row: 1 succeeded" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["missing.jsonl", "-o", "o"], "can't be read"),
            (["t.jsonl"], "-o RESULTS"),
            (["-o", "o"], "either a file"),
            (["t.jsonl", "--files", "*.py", "-o", "o"], "either a file"),
            (["--files", "*.py", "-o", "o"], "--agent"),
            (["--files", "*.nothing", "--agent", "a", "-o", "o"], "No file matches"),
            (["t.yaml", "-o", "o"], "not a kind of file"),
            (["t.csv", "-o", "o"], 'no column "task"'),
            (["t.jsonl", "-o", "no/such/folder/o"], "can't be written"),
            (["t.jsonl", "-o", "x" * 300], "x can't be written: File name too long."),
            (["t.jsonl", "-o", "x" * 300, "--estimate"], "x can't be written: File name too long."),
            (["t.jsonl", "-o", "o", "--price", "cheap"], "MODEL=INPUT,OUTPUT"),
            (["t.jsonl", "-o", "o", "--price", "m=-1,2"], "MODEL=INPUT,OUTPUT"),
            (["t.jsonl", "-o", "o", "--price", "m=nan,2"], "MODEL=INPUT,OUTPUT"),
            (["t.jsonl", "-o", "o", "--grace", "-5"], "--grace is -5"),
            (["t.jsonl", "-o", "o", "--max-concurrent", "many"], "whole number or auto"),
            (["t.jsonl", "-o", "o", "--rpm", "0"], "rpm"),
            (["taken.jsonl", "-o", "o"], "rename it"),
            (["t.jsonl", "-o", "o", "--limit", "0"], "--limit is 0"),
            (["t.jsonl", "-o", "o", "--budget", "-1"], "--budget is -1"),
            (["t.jsonl", "-o", "/dev/null"], "is not a file"),
            (["t.jsonl", "-o", "o", "--task", "Review"], "--task goes with --files"),
            (["no-list.json", "-o", "o"], "is not a list of tasks"),
        ],
    )
    def test_wrong_input_sends_nothing(self, project, server, capsys, arguments, what):
        write_tasks(project, 2, name="t.jsonl")
        (project / "t.csv").write_text("agent,question\na,b\n", encoding="utf-8")
        (project / "taken.jsonl").write_text('{"task": "x", "agent": "a", "output": "y"}\n', encoding="utf-8")
        (project / "no-list.json").write_text('{"task": "x"}', encoding="utf-8")
        assert many(*arguments) == 2
        assert what in capsys.readouterr().err
        assert not server.requests

    def test_invalid_option_fails_no_row(self, project, server, capsys):
        # Wrong input, as each other option of the kind: told before an output is made.
        assert many(write_tasks(project, 50), "-o", "out.jsonl", "--max-tokens", "0") == 2
        assert "--max-tokens is 0" in capsys.readouterr().err
        assert not (project / "out.jsonl").exists()
        assert not server.requests

    def test_long_or_deep_row_fails_alone(self, project, server):
        (project / "t.csv").write_text(
            f'agent,task\npython-expert,"{"x" * 200_000}"\npython-expert,good\n', encoding="utf-8"
        )
        (project / "t.jsonl").write_text(
            "[" * 200_000 + '\n{"agent": "python-expert", "task": "good"}\n', encoding="utf-8"
        )
        for name in ("t.csv", "t.jsonl"):
            assert many(name, "-o", f"{name}.out") == 3
            found = {result["index"]: result["success"] for result in results(f"{name}.out")}
            assert found == {0: False, 1: True}

    def test_output_is_not_a_source(self, project, server):
        (project / "docs").mkdir()
        (project / "docs" / "a.md").write_text("One", encoding="utf-8")
        for _ in range(2):
            assert many("--files", "docs/*", "--agent", "python-expert", "-o", "docs/out.jsonl") == 0
        assert [result["file"] for result in results("docs/out.jsonl")] == [str(Path("docs", "a.md"))]

    def test_json_is_one_object_on_stdout(self, project, server, capsys):
        assert (
            many(write_tasks(project, 5), "-o", "out.jsonl", "--json", "--price", PRICE, "--model", MODEL)
            == 0
        )
        captured = capsys.readouterr()
        found = json.loads(captured.out)
        assert (found["rows"], found["succeeded"], found["missing"], found["success"]) == (5, 5, 0, True)
        assert found["cost"] == pytest.approx(sum(result["cost"] for result in results()))
        assert captured.err == ""

    def test_the_first_rows_alone(self, project, server):
        tasks = write_tasks(project, 20)
        assert many(tasks, "-o", "out.jsonl", "--limit", "5") == 0
        assert indexes() == list(range(5))
        assert many(tasks, "-o", "out.jsonl") == 0
        assert indexes() == list(range(20))
        assert len(server.requests) == 20

    def test_options_reach_the_engine(self, project, server):
        tasks = write_tasks(project, 3)
        assert (
            many(tasks, "-o", "out.jsonl", "--max-concurrent", "auto", "--max-tokens", "7", "--model", "opus")
            == 0
        )
        assert {request.body["max_tokens"] for request in server.requests} == {7}
        assert all("opus" in request.body["model"] for request in server.requests)

    def test_wrong_key_ends_the_run(self, project, monkeypatch, capsys):
        with MessagesServer(faults=lambda received: faults.status(401)) as server:
            point_to(server, monkeypatch)
            assert many(write_tasks(project, 500), "-o", "out.jsonl", "--max-concurrent", "3") == 1
            assert len(server.requests) < 50
        assert results() == []
        assert "ANTHROPIC_API_KEY" in capsys.readouterr().err

    def test_the_servers_limits_are_kept(self, project, monkeypatch):
        with MessagesServer(rate_limit=RateLimit(requests_per_minute=30)) as server:
            point_to(server, monkeypatch)
            assert many(write_tasks(project, 28), "-o", "out.jsonl", "--max-concurrent", "28") == 0
            assert len(server.requests) == 28


class TestEstimate:
    def test_estimate_sends_nothing(self, project, server, capsys):
        assert many(write_tasks(project, 50), "--estimate", "--price", PRICE, "--model", MODEL) == 0
        out = capsys.readouterr().out
        assert "50 rows" in out
        assert "cost           about $" in out
        assert not server.requests

    def test_as_json_its_cost_is_a_range(self, project, server, capsys):
        assert many(write_tasks(project, 50), "--estimate", "--json", "--price", PRICE, "--model", MODEL) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["success"] is True
        assert found["cost"]["low"] < found["cost"]["expected"] < found["cost"]["high"]

    def test_an_unknown_price_is_said(self, project, server, capsys):
        assert many(write_tasks(project, 5), "--estimate", "--model", "my-own-model") == 0
        assert "unknown for my-own-model" in capsys.readouterr().out

    def test_estimate_skips_saved_rows(self, project, server, capsys):
        tasks = write_tasks(project, 20)
        assert many(tasks, "-o", "out.jsonl", "--limit", "5", "--cache", "off") == 0
        before = (project / "out.jsonl").read_bytes()
        for more, rows in (([], "15 rows"), (["--no-resume"], "20 rows"), (["--limit", "8"], "3 rows")):
            assert many(tasks, "-o", "out.jsonl", "--estimate", "--cache", "off", *more) == 0
            assert rows in capsys.readouterr().out
        assert many(tasks, "-o", "other.jsonl", "--estimate") == 0
        assert (project / "out.jsonl").read_bytes() == before
        assert not (project / "other.jsonl").exists()


class TestResume:
    def test_resumes_with_unpriced_answers(self, project, server, capsys):
        tasks = write_tasks(project, 3)
        for _ in range(2):
            assert many(tasks, "-o", "out.jsonl", "--cache", "off", "--model", "my-own-model") == 0
            said = capsys.readouterr().err
            assert "3 answers of unknown price" in said and "$0.00" not in said

    def test_a_second_run_pays_for_nothing(self, project, server):
        tasks = write_tasks(project, 20)
        for _ in range(2):
            assert many(tasks, "-o", "out.jsonl", "--cache", "off") == 0
        assert len(server.requests) == 20
        assert indexes() == list(range(20))

    def test_runs_appended_rows(self, project, server):
        assert many(write_tasks(project, 20), "-o", "out.jsonl", "--cache", "off") == 0
        assert many(write_tasks(project, 25), "-o", "out.jsonl", "--cache", "off") == 0
        assert indexes() == list(range(25))
        assert len(server.requests) == 25

    @pytest.mark.parametrize("change", ["row", "fewer", "options"])
    def test_refuses_other_tasks_or_options(self, project, server, capsys, change):
        tasks = write_tasks(project, 20)
        assert many(tasks, "-o", "out.jsonl") == 0
        before = (project / "out.jsonl").read_bytes()
        more = []
        if change == "row":
            tasks.write_text(
                tasks.read_text(encoding="utf-8").replace("Task 7", "Task seven"), encoding="utf-8"
            )
        elif change == "fewer":
            write_tasks(project, 19)
        else:
            more = ["--max-tokens", "9"]
        sent = len(server.requests)
        assert many(tasks, "-o", "out.jsonl", *more) == 2
        assert "other tasks or options" in capsys.readouterr().err
        assert (project / "out.jsonl").read_bytes() == before
        assert many(tasks, "-o", "out.jsonl", *more, "--no-resume") == 0
        assert len(results()) == (19 if change == "fewer" else 20)
        if change == "row":
            # Nineteen of them are the same, and kept.
            assert len(server.requests) == sent + 1

    def test_repairs_torn_line(self, project, server):
        tasks, out = write_tasks(project, 20), project / "out.jsonl"
        assert many(tasks, "-o", "out.jsonl", "--cache", "off") == 0
        whole = out.read_bytes()
        lines = whole.splitlines(keepends=True)
        for share in (0.0, 0.02, 0.5, 1.0):
            # Of the line that is last now: they differ in length, by the times in them.
            cut = max(1, int(share * len(lines[-1])) - 1)
            out.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
            sent = len(server.requests)
            assert many(tasks, "-o", "out.jsonl", "--cache", "off") == 0
            assert indexes() == list(range(20))
            assert len(server.requests) == sent + 1
            lines = out.read_bytes().splitlines(keepends=True)

    @pytest.mark.parametrize("start", ["--no-resume", "--retry-failed"])
    @pytest.mark.parametrize(
        "wrong",
        [
            ["missing.jsonl"],
            ["torn.json"],
            ["tasks.jsonl", "--price", "cheap"],
            ["tasks.jsonl", "--config", "missing.json"],
            ["tasks.jsonl", "--rpm", "0"],
        ],
    )
    def test_wrong_input_keeps_results(self, project, monkeypatch, start, wrong):
        with MessagesServer(faults=[faults.status(400)]) as server:
            point_to(server, monkeypatch)
            assert many(write_tasks(project, 5), "-o", "out.jsonl", "--max-concurrent", "1") == 3
        (project / "torn.json").write_text("[", encoding="utf-8")
        before = (project / "out.jsonl").read_bytes()
        assert many(*wrong, "-o", "out.jsonl", start) == 2
        assert (project / "out.jsonl").read_bytes() == before

    def test_repairs_trailing_zeros(self, project, server):
        tasks, out = write_tasks(project, 5), project / "out.jsonl"
        assert many(tasks, "-o", "out.jsonl") == 0
        whole = out.read_bytes()
        out.write_bytes(whole + b"\0" * 500)
        assert many(tasks, "-o", "out.jsonl") == 0
        assert out.read_bytes() == whole

    @pytest.mark.parametrize(
        "text",
        [
            "# My notes\n",
            '{"a": 1}\n',
            "no newline",
            '{"index": 1}\n{"index": 2}\n',
            '{"index": 1, "text": "mine"}\n',
            '{"index": 1, "text": "mine"}',
        ],
    )
    def test_leaves_foreign_file_alone(self, project, server, capsys, text):
        (project / "notes.md").write_text(text, encoding="utf-8")
        assert many(write_tasks(project, 2), "-o", "notes.md") == 2
        assert many(write_tasks(project, 2), "-o", "notes.md", "--no-resume") == 2
        assert (project / "notes.md").read_text(encoding="utf-8") == text
        assert not server.requests

    def test_failures_name_rows_of_the_input(self, project, server, capsys):
        tasks = write_tasks(project, 4)
        with tasks.open("a", encoding="utf-8") as file:
            file.write('{"agent": "nobody", "task": "x"}\n')
        assert many(tasks, "-o", "out.jsonl") == 3
        capsys.readouterr()
        assert many(tasks, "-o", "out.jsonl", "--retry-failed") == 3
        assert "(row 5)" in capsys.readouterr().err

    def test_retry_failed_reruns_failed_rows(self, project, monkeypatch):
        tasks, broken = write_tasks(project, 20), [True]

        def plan(received):
            number = int(received.body["messages"][0]["content"].split()[1])
            return faults.status(400) if broken[0] and number % 5 == 0 else None

        with MessagesServer(faults=plan) as server:
            point_to(server, monkeypatch)
            assert many(tasks, "-o", "out.jsonl", "--cache", "off") == 3
            assert many(tasks, "-o", "out.jsonl", "--cache", "off") == 3
            assert len(server.requests) == 20
            broken[0] = False
            assert many(tasks, "-o", "out.jsonl", "--cache", "off", "--retry-failed") == 0
            assert len(server.requests) == 24
        assert indexes() == list(range(20))
        assert all(result["success"] for result in results())
        assert sorted(path.name for path in project.iterdir() if path.is_file()) == [
            "out.jsonl",
            "tasks.jsonl",
        ]

    def failing(self, *numbers):
        def plan(received):
            number = int(received.body["messages"][0]["content"].split()[1])
            return faults.truncated_stream() if number in numbers else None

        return plan

    def test_retries_within_the_limit(self, project, monkeypatch):
        tasks = write_tasks(project, 10)
        more = ["-o", "out.jsonl", "--cache", "off", "--price", PRICE, "--model", MODEL, "--max-retries", "1"]
        with MessagesServer(faults=self.failing(2, 8)) as server:
            point_to(server, monkeypatch)
            assert many(tasks, *more) == 3
        lost = {result["index"]: result["cost"] for result in results() if not result["success"]}
        assert sorted(lost) == [2, 8]
        assert lost[2] > 0
        with MessagesServer() as server:
            point_to(server, monkeypatch)
            assert many(tasks, *more, "--retry-failed", "--limit", "5") == 0
            assert len(server.requests) == 1
        found = {result["index"]: result for result in results()}
        assert sorted(found) == list(range(10))
        assert not found[8]["success"]
        assert found[2]["success"]
        assert found[2]["cost"] > lost[2] + found[3]["cost"] / 2

    async def begun_and_killed(self, tasks, out):
        """Runs in an event loop, as Python 3.8 can't make an event without one."""
        with ResultsFile(out) as output:
            ResumableRun(TaskFile(tasks, None), output, OPTIONS, retry_failed=True).begin()

    @pytest.mark.parametrize("ends", ["by a wrong key", "by a kill"])
    def test_keeps_cost_of_failed_row(self, project, monkeypatch, ends):
        tasks = write_tasks(project, 5)
        more = ["-o", "out.jsonl", "--cache", "off", "--price", PRICE, "--model", MODEL, "--max-retries", "1"]
        with MessagesServer(faults=self.failing(2)) as server:
            point_to(server, monkeypatch)
            assert many(tasks, *more) == 3
        (lost,) = (result["cost"] for result in results() if not result["success"])
        wrong_key = [faults.status(401)] if ends == "by a wrong key" else []
        with MessagesServer(faults=wrong_key) as server:
            point_to(server, monkeypatch)
            if ends == "by a kill":
                asyncio.run(self.begun_and_killed(tasks, project / "out.jsonl"))
            else:
                assert many(tasks, *more, "--retry-failed") == 1
            (kept,) = (result for result in results() if not result["success"])
            assert (kept["index"], kept["cost"], kept["output"]) == (2, lost, "")
            assert many(tasks, *more) == 0
        assert indexes() == list(range(5))
        found = {result["index"]: result for result in results()}
        assert found[2]["cost"] == pytest.approx(lost + found[3]["cost"], rel=0.2)

    def test_newer_line_of_a_row_stays(self, project, server):
        tasks, out = write_tasks(project, 3), project / "out.jsonl"
        assert many(tasks, "-o", "out.jsonl") == 0
        whole = out.read_bytes()
        (first, *_) = results()
        older = {**first, "success": False, "output": "", "error_type": "CancelledCallError"}
        out.write_bytes(json.dumps(older).encode() + b"\n" + whole)
        assert many(tasks, "-o", "out.jsonl") == 0
        assert out.read_bytes() == whole
        assert len(server.requests) == 3

    def test_retries_corrected_row(self, project, server):
        tasks = write_tasks(project, 5)
        good = tasks.read_text(encoding="utf-8")
        tasks.write_text(good.replace("Task 3", ""), encoding="utf-8")
        assert many(tasks, "-o", "out.jsonl") == 3
        tasks.write_text(good, encoding="utf-8")
        assert many(tasks, "-o", "out.jsonl") == 2
        assert many(tasks, "-o", "out.jsonl", "--retry-failed") == 0
        assert indexes() == list(range(5))

    @pytest.mark.skipif(sys.platform == "win32", reason="modes and links are POSIX's")
    def test_keeps_mode_and_link_of_output(self, project, monkeypatch, tmp_path_factory):
        tasks, outside = write_tasks(project, 3), tmp_path_factory.mktemp("outside")
        real, link = outside / "real.jsonl", outside / "out.jsonl"
        real.touch(mode=0o600)
        link.symlink_to(real)
        with MessagesServer(faults=[faults.status(400)]) as server:
            point_to(server, monkeypatch)
            assert many(tasks, "-o", link) == 3
            assert many(tasks, "-o", link, "--retry-failed") == 0
        assert link.is_symlink()
        assert real.stat().st_mode & 0o777 == 0o600
        assert indexes(real) == list(range(3))


@pytest.mark.skipif(sys.platform != "linux", reason="only there a name may be any bytes")
def test_records_output_not_in_utf8(project):
    output = Path(os.fsdecode(b"caf\xe9.jsonl"))
    run = run_id_for(output, ["run", "many"], is_new=False)
    assert run_id_for(output, ["run", "many"], is_new=False) == run
    assert run_id_for(output, ["run", "many"], is_new=True) != run


class TestBudget:
    def test_budget_covers_all_runs(self, project, monkeypatch, capsys):
        tasks = write_tasks(project, 100)
        base = [
            tasks,
            "-o",
            "out.jsonl",
            "--model",
            MODEL,
            "--price",
            PRICE,
            "--cache",
            "off",
            "--max-tokens",
            "50",
        ]
        with MessagesServer(output_tokens=50) as server:
            point_to(server, monkeypatch)
            assert many(*base, "--budget", "0.03") == 4
            spent = sum(result["cost"] for result in results())
            assert 0 < spent <= 0.03
            assert "--budget" in capsys.readouterr().err
            first = len(server.requests)
            assert many(*base, "--budget", "0.03") == 4
            assert sum(result["cost"] for result in results()) <= 0.03
            assert many(*base, "--budget", "10") == 0
            assert len(server.requests) == 100
            assert 0 < first < 100
        assert indexes() == list(range(100))

    def test_budget_needs_a_known_price(self, project, server, capsys):
        code = many(write_tasks(project, 10), "-o", "out.jsonl", "--model", "my-own-model", "--budget", "1")
        assert code == 1
        assert "price of my-own-model" in capsys.readouterr().err
        assert results() == []
        assert not server.requests


class Run:
    """Runs the command in a process."""

    def __init__(self, folder, tasks, *more, output="out.jsonl"):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "claude_force", "run", "many", str(tasks), "-o", output, *more],
            cwd=str(folder),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def until(self, holds, seconds=60):
        end = time.monotonic() + seconds
        while not holds() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)

    def ended(self):
        _, err = self.process.communicate(timeout=120)
        return self.process.returncode, err


class TestKills:
    CONCURRENT = 20

    @pytest.fixture
    def slow(self, monkeypatch):
        with MessagesServer(time_to_first_token=0.05) as server:
            point_to(server, monkeypatch)
            monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
            yield server

    @pytest.fixture
    def place(self, tmp_path, slow):
        write_project(tmp_path)
        return tmp_path

    def start(self, place, tasks):
        return Run(place, tasks, "--cache", "off", "--max-concurrent", str(self.CONCURRENT))

    def test_kill_loses_only_in_flight(self, place, slow, soak):
        rows, kills = (2_000, 20) if soak else (600, 5)
        tasks, chance, killed = write_tasks(place, rows), random.Random(4), 0
        for _ in range(kills):
            target = len(slow.requests) + chance.randint(1, 2 * rows // kills)
            run = self.start(place, tasks)
            run.until(lambda target=target: len(slow.requests) >= target)
            if run.process.poll() is None:
                run.process.kill()
                killed += 1
            run.ended()
        assert self.start(place, tasks).ended()[0] == 0
        assert killed >= kills // 2
        assert Counter(indexes(place / "out.jsonl")) == Counter(range(rows))
        assert len(slow.requests) <= rows + killed * self.CONCURRENT

    def test_ctrl_c_pays_no_row_twice(self, place, slow, soak):
        rows, stops = (2_000, 20) if soak else (400, 3)
        tasks, chance = write_tasks(place, rows), random.Random(5)
        for _ in range(stops):
            target = len(slow.requests) + chance.randint(1, rows // stops)
            run = self.start(place, tasks)
            run.until(lambda target=target: len(slow.requests) >= target)
            with contextlib.suppress(ProcessLookupError):
                run.process.send_signal(signal.SIGINT)
            code, err = run.ended()
            assert code == 130
            assert "the same command continues" in err
        assert self.start(place, tasks).ended()[0] == 0
        assert indexes(place / "out.jsonl") == list(range(rows))
        assert len(slow.requests) == rows

    @pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX's")
    def test_resumes_after_full_disk(self, place, slow):
        import resource

        tasks, limits = write_tasks(place, 200), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
        try:
            run = self.start(place, tasks)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        code, err = run.ended()
        assert code == 1
        assert "out.jsonl can't be written: there is no room for an answer" in err
        whole = (place / "out.jsonl").read_bytes()
        assert whole.endswith(b"\n")
        assert len(whole) <= 60_000
        assert len(slow.requests) < 200
        assert self.start(place, tasks).ended()[0] == 0
        assert indexes(place / "out.jsonl") == list(range(200))

    def test_ctrl_c_ignores_other_processes(self, place, monkeypatch):
        def plan(received):
            task = received.body["messages"][0]["content"]
            return None if task == "Task 10" else faults.silence_before_first_byte()

        with MessagesServer(faults=plan) as server:
            point_to(server, monkeypatch)
            first = Run(place, write_tasks(place, 10, name="ten.jsonl"), output="first.jsonl")
            first.until(lambda: len(server.requests) == 10)
            second = Run(place, write_tasks(place, 11), "--grace", "0.1")
            # Its eleventh row is its own; the others, which came before that, are asked by the first.
            second.until(lambda: (place / "out.jsonl").exists() and results(place / "out.jsonl"))
            second.process.send_signal(signal.SIGINT)
            assert second.ended()[0] == 130
            assert len(server.requests) == 11
            first.process.kill()
            first.ended()

    def test_ctrl_c_twice_ends_it_now(self, place, monkeypatch):
        with MessagesServer(time_to_first_token=60) as server:
            point_to(server, monkeypatch)
            run = Run(place, write_tasks(place, 50), "--grace", "1000")
            run.until(lambda: server.requests)
            run.process.send_signal(signal.SIGINT)
            while "stopping" not in run.process.stderr.readline():
                assert run.process.poll() is None
            run.process.send_signal(signal.SIGINT)
            assert run.ended()[0] == 130

    @pytest.mark.parametrize("agent", ["python-expert", "explain"])
    def test_keeps_cost_of_interrupted_rows(self, place, monkeypatch, agent):
        def spent_by(run):
            code, err = run.ended()
            return code, float(re.search(r"\$([0-9.]+) in all", err)[1])

        # A command: what is sent is not the task of its row.
        (place / ".claude" / "commands").mkdir()
        (place / ".claude" / "commands" / "explain.md").write_text("Explain $ARGUMENTS in " + "a word " * 900)
        tasks = write_tasks(place, 2, agent)
        with MessagesServer(faults=[faults.silence_in_mid_stream()]) as server:
            point_to(server, monkeypatch)
            run = Run(place, tasks, "--grace", "0", "--price", PRICE)
            # The second is not sent before the answer of the first has begun.
            run.until(lambda: (place / "out.jsonl").exists() and results(place / "out.jsonl"))
            run.process.send_signal(signal.SIGINT)
            stopped, before = spent_by(run)
        (done, broken) = results(place / "out.jsonl")
        assert (stopped, broken["error_type"]) == (130, "CancelledCallError")
        assert before == pytest.approx(done["cost"] + broken["cost"], abs=1e-4)
        with MessagesServer() as server:
            point_to(server, monkeypatch)
            ended, after = spent_by(Run(place, tasks, "--price", PRICE))
        assert (ended, len(server.requests), indexes(place / "out.jsonl")) == (0, 1, [0, 1])
        rows = results(place / "out.jsonl")
        assert all(row["success"] for row in rows)
        (again,) = (row for row in rows if row["index"] == broken["index"])
        answered = (3 * again["input_tokens"] + 15 * again["output_tokens"]) / 1e6
        assert again["cost"] == pytest.approx(answered + broken["cost"])
        assert after == pytest.approx(sum(row["cost"] for row in rows), abs=1e-4)

    def test_refuses_second_run_on_output(self, place, slow):
        tasks = write_tasks(place, 400)
        first = self.start(place, tasks)
        first.until(lambda: slow.requests)
        code, err = self.start(place, tasks).ended()
        assert code == 2
        assert "Another run is writing" in err
        assert first.ended()[0] == 0
        assert len(slow.requests) == 400
