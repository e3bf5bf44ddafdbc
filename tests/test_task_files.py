"""Files of tasks: faults are reported with line and suggestion before anything is sent."""

import json
import os
import time

import pytest
from fleet import write_project

from claude_force.cli.main import main
from claude_force.testing import MessagesServer

GOOD = "python-expert,fine,1\n"
HEAD = "agent,task,id\n"


@pytest.fixture
def server():
    with MessagesServer() as running:
        yield running


@pytest.fixture
def project(tmp_path, monkeypatch, server):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def many(project, server, capsys):
    """Runs a file; returns the exit code, the results, stderr and the number of requests."""

    def run(name, content, *options):
        path = project / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        before = len(server.requests)
        code = main(["run", "many", name, "-o", "out.jsonl", *options])
        output = project / "out.jsonl"
        lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
        results = sorted(map(json.loads, lines), key=lambda result: result["index"])
        return code, results, capsys.readouterr().err, len(server.requests) - before

    return run


class TestTable:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                f'{HEAD}{GOOD}python-expert,"open,2\n{GOOD}{GOOD}',
                "lines 3 to 5 has a quote that is never closed",
            ),
            (f'{HEAD}{GOOD}python-expert,"a"b,2\n{GOOD}', "line 3 has text behind a closing quote"),
            (f'{HEAD}{GOOD}python-expert,a "b" c,2\n', "line 3 has a quote inside a cell"),
            (f'{HEAD}python-expert, "b",2\n', "line 2 has a quote inside a cell"),
            (f"{HEAD}{GOOD}python-expert,a\0b,2\n", "line 3 has a NUL byte"),
            ("agent,task,task\nx,y,z\n", "line 1 has two columns 'task'"),
            ("agent,task,id,id\nx,y,z,z\n", "line 1 has two columns 'id'"),
            ("agent,task,,\nx,y,,\n", "line 1 has two columns without a name"),
            ("agent;task;id\nx;y;1\n", "cells seem to be separated by ';'"),
            ("agent|task\nx|y\n", "cells seem to be separated by '|'"),
            ("agent\ttask\nx\ty\n", "separated by a tab: name the file .tsv"),
            ("agent;prompt\nx;y\n", "cells seem to be separated by ';'"),
            ("agent,Task\nx,y\n", "If 'Task' is the task, rename that column to 'task'"),
            ("agent, task\nx,y\n", "If ' task' is the task, rename"),
            ("agent,prompt\nx,y\n", "If 'prompt' is the task, rename"),
            ("python-expert,Explain lists\n", "The first line has to name the columns"),
            ("", "The first line has to name the columns"),
        ],
    )
    def test_refused_as_a_whole(self, many, text, said):
        code, results, err, requests = many("t.csv", text)
        assert (code, results, requests) == (2, [], 0)
        assert said in err
        assert len(err) < 1000

    def test_tab_separated_names_its_own(self, many):
        code, _, err, requests = many("t.tsv", "agent,task\nx,y\n")
        assert (code, requests) == (2, 0)
        assert "separated by ',': name the file .csv" in err

    @pytest.mark.parametrize(
        ("line", "cells"), [("python-expert,one, two,3", 4), ("python-expert,one", 2), ("python-expert", 1)]
    )
    def test_wrong_number_of_cells_fails_row(self, many, line, cells):
        code, results, _, requests = many("t.csv", f"{HEAD}{GOOD}{line}\n")
        assert (code, requests) == (3, 1)
        assert (
            f"line 3 has another number of cells than the first line ({cells}, not 3)" in results[1]["error"]
        )

    def test_reads_quoted_line_breaks(self, many):
        code, results, _, _ = many(
            "t.csv", f'{HEAD}python-expert,"a ""b"",\r\nc",1\r\n\r\npython-expert,"",2\r\npython-expert,d,3'
        )
        assert code == 3
        assert [result["task"] for result in results] == ['a "b",\r\nc', "", "d"]
        assert "empty" in results[1]["error"]

    def test_quotes_in_a_tab_separated_file(self, many):
        code, results, _, _ = many("t.tsv", 'agent\ttask\npython-expert\tsay "hi"\n')
        assert (code, results[0]["task"]) == (0, 'say "hi"')

    def test_utf_16(self, many):
        code, _, err, requests = many("t.csv", f"{HEAD}{GOOD}".encode("utf-16"))
        assert (code, requests) == (2, 0)
        assert "it is UTF-16. Convert the file to UTF-8" in err

    def test_open_quote_is_found_soon(self, many):
        began = time.monotonic()
        code, _, err, requests = many(
            "t.csv", f'{HEAD}python-expert,"open,1\n' + "python-expert,x,1\n" * 1_500_000
        )
        assert (code, requests) == (2, 0)
        assert "lines 2 to" in err
        assert time.monotonic() - began < 30


class TestJson:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ('{"task": "a", "task": "b"}', "line 2 is not JSON (it has 'task' twice)"),
            ('{"task": "a", "n": {"x": 1, "x": 2}}', "it has 'x' twice"),
            ('{"task": "a", "n": NaN}', "NaN is not a number in JSON"),
            ('{"task": "a", "n": -Infinity}', "-Infinity is not a number in JSON"),
            ('{"task": "a", "n": 1e999}', "1e999 is too large a number"),
            ('{"task": 5}', 'row 2 has a number as its "task"'),
            ('{"task": null}', 'row 2 has null as its "task"'),
            ('{"task": ["a"]}', 'row 2 has a list as its "task"'),
            ('{"Task": "a"}', "rename 'Task' to 'task'"),
            ('{"prompt": "a"}', "rename 'prompt' to 'task'"),
            ("5", "row 2 is a number, and not an object"),
            ('["python-expert", "a"]', "row 2 is a list, and not an object"),
            ('{"task": "a"', "line 2 is not JSON"),
            ('{"task": "half a \\ud83d pair"}', "half a surrogate pair"),
            ('{"task": "a", "agent": 5}', 'has no "agent"'),
        ],
    )
    def test_row_that_is_wrong_fails_alone(self, many, line, said):
        code, results, _, requests = many(
            "t.jsonl", f'{{"task": "fine"}}\n{line}\n{{"task": "too"}}\n', "--agent", "python-expert"
        )
        assert (code, requests) == (3, 2)
        assert [result["success"] for result in results] == [True, False, True]
        assert said in results[1]["error"]

    def test_bom_crlf_and_blank_lines(self, many):
        text = '\ufeff\r\n{"task": "a"}\r\n\r\n   \r\n{"task": "b"}\r\n'
        code, results, _, _ = many("t.jsonl", text, "--agent", "python-expert")
        assert (code, [result["task"] for result in results]) == (0, ["a", "b"])

    def test_copies_lone_surrogates(self, many):
        text = '{"task": "a", "note": "\\ud83d"}\n'
        code, results, _, _ = many("t.jsonl", text, "--agent", "python-expert")
        assert (code, results[0]["note"]) == (0, "\ud83d")

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("t.jsonl", '[\n{"task": "a"}\n]\n', "line 1 begins a list"),
            ("t.jsonl", '[{"task": "a"},\n{"task": "b"}]\n', "line 1 begins a list"),
            ("t.jsonl", '{\n"task": "a"\n}\n', "line 1 begins an object of several lines"),
            ("t.json", '{"task": "a"}\n{"task": "b"}\n', "an object in each line .jsonl"),
            ("t.json", '{"tasks": [{"task": "a"}]}', "its 'tasks' is one: save that list alone"),
            ("t.json", '[{"task": "a", "n": NaN}]', "NaN is not a number"),
            ("t.json", '[{"task": "a", "task": "b"}]', "it has 'task' twice"),
        ],
    )
    def test_file_of_another_form(self, many, name, text, said):
        code, results, err, requests = many(name, text, "--agent", "python-expert")
        assert (code, results, requests) == (2, [], 0)
        assert said in err


class TestManyInvalidRows:
    @pytest.mark.parametrize(
        ("line", "kind"),
        [('{"tsk": "x"}', 'no text "task"'), ("no JSON", "no JSON"), ('{"task": "x"}', 'no "agent"')],
    )
    def test_counts_200000_broken_rows(self, many, line, kind):
        began = time.monotonic()
        code, results, err, requests = many("t.jsonl", f"{line}\n" * 200_000)
        assert time.monotonic() - began < 30
        assert (code, results, requests) == (2, [], 0)
        assert f"200,000 rows with {kind}" in err
        assert len(err) < 1000

    def test_each_kind_is_counted(self, many):
        _, _, err, _ = many("t.jsonl", 'x\n{"a": 1}\nx\n{"task": "y"}\n')
        assert (
            'No row can be run: 2 rows with no JSON, 1 row with no text "task", 1 row with no "agent"' in err
        )

    def test_one_good_row_is_run(self, many):
        text = '{"tsk": "x"}\n' * 2000 + '{"task": "good"}\n'
        code, results, err, requests = many("t.jsonl", text, "--agent", "python-expert")
        assert (code, len(results), requests) == (3, 2001, 1)
        assert "2,000 failed" in err
        assert len(err) < 3000

    @pytest.mark.parametrize(
        ("row", "kind"),
        [
            ({"task": ""}, "an empty task"),
            ({"task": " \n"}, "an empty task"),
            ({"task": "x" * 100_001}, "a task that is too long"),
            ({"task": "x\ud83d"}, "a task that is not valid Unicode"),
            ({"task": "x", "agent": "nobody"}, "an unknown agent"),
            ({"task": "x", "agent": "../../etc/passwd"}, "an invalid agent name"),
        ],
    )
    def test_counts_refused_rows(self, many, row, kind):
        lines = f"{json.dumps({'agent': 'python-expert', **row})}\n"
        code, results, err, requests = many("t.jsonl", lines * 300)
        assert (code, results, requests) == (2, [], 0)
        assert f"No row can be run: 300 rows with {kind}. The first: row 1: " in err
        assert len(err.splitlines()) == 1

    def test_refused_rows_read_no_folders(self, many, monkeypatch):
        looks = []
        lstat = os.lstat
        monkeypatch.setattr(
            os, "lstat", lambda *given, **named: looks.append(given) or lstat(*given, **named)
        )
        rows = "".join(f'{{"task": "x", "agent": "agent-{number}"}}\n' for number in range(2000))
        code, _, err, _ = many("t.jsonl", rows)
        assert (code, "2,000 rows with an unknown agent" in err) == (2, True)
        assert len(looks) < 1000

    def test_suggests_agent_of_row(self, many):
        _, _, err, _ = many("t.jsonl", '{"task": "x"}\n' * 9, "--agent", "python-exprt")
        assert "row 1: Agent 'python-exprt' not found. Did you mean: python-expert?\n" in err

    def test_unreadable_agents_warn_once(self, project, many):
        (project / ".claude" / "claude.json").write_text("{", encoding="utf-8")
        code, results, err, _ = many("t.jsonl", '{"task": "x"}\n' * 9, "--agent", "python-expert")
        assert (code, results, err.count("is not valid JSON")) == (2, [], 1)

    def test_counts_unrunnable_rows_by_kind(self, many):
        _, _, err, _ = many("t.jsonl", 'x\n{"task": ""}\n', "--agent", "python-expert")
        assert "1 row with no JSON, 1 row with an empty task. The first: t.jsonl: line 1 is not JSON" in err

    def test_refused_rows_fail_alone(self, many):
        text = '{"task": ""}\n{"task": "x", "agent": "nobody"}\n{"task": "good"}\n'
        code, results, _, requests = many("t.jsonl", text, "--agent", "python-expert")
        assert (code, [result["success"] for result in results], requests) == (3, [False, False, True], 1)

    def test_keeps_results_of_removed_agent(self, project, many):
        assert many("t.jsonl", '{"task": "good"}\n', "--agent", "python-expert")[0] == 0
        (project / ".claude" / "claude.json").write_text('{"agents": {}}', encoding="utf-8")
        code, results, _, requests = many("t.jsonl", '{"task": "good"}\n', "--agent", "python-expert")
        assert (code, [result["success"] for result in results], requests) == (0, [True], 0)
