"""Agents with tools on the command line: grants, bounds, what is shown, and what is sent."""

import csv
import io
import json
import shlex
from pathlib import Path

import pytest

from claude_force.cli.main import main
from claude_force.cli.tool_lines import call_text, denied_text
from claude_force.testing import Script, faults, tool_calls

LOOK = tool_calls(
    ("Read", {"file_path": "src/a.py"}), ("Grep", {"pattern": "TODO", "path": "src"}), text="I look."
)
PRICES = ["--price", "claude-sonnet-5-5=3,15"]
READER = "---\nname: reader\ndescription: Reads\ntools: Read, Grep\n---\nYou read.\n"


@pytest.fixture
def reader(workplace):
    """A project with an agent that declares tools, and a file for it."""
    (workplace / ".claude" / "agents" / "reader.md").write_text(READER, encoding="utf-8")
    (workplace / "src").mkdir()
    (workplace / "src" / "a.py").write_text("x = 1  # TODO\n", encoding="utf-8")
    return workplace


@pytest.fixture
def script(reader, another_server):
    """Plays a script for each conversation; returns the server."""

    def start(*answers):
        return another_server(answer=Script([*answers, "One TODO."]))

    return start


def run(capsys, *arguments, code=0):
    """Runs a command that ends with `code`; returns its stdout and stderr."""
    assert main(["run", *arguments, *PRICES]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def agent(capsys, *arguments, **more):
    return run(capsys, "agent", "reader", "--task", "Look", *arguments, **more)


def set_default(home, grant):
    (home / ".claude").mkdir(exist_ok=True)
    file = home / ".claude" / "claude-force.toml"
    file.write_text(f'tools = "{grant}"\n', encoding="utf-8")
    file.chmod(0o600)


def tools_of(server, number=-1):
    return [one["name"] for one in server.requests[number].body.get("tools", [])]


class TestGrants:
    def test_answer_alone_is_on_stdout(self, script, capsys):
        server = script(LOOK)
        out, err = agent(capsys, "--tools", "read")
        assert out == "One TODO.\n"
        assert "2 turns, 2 tool calls" in err
        assert tools_of(server) == ["Read", "Grep"]

    def test_without_grant_one_line_names_the_option(self, script, capsys):
        server = script()
        for _ in range(2):  # the second answer is from the cache
            _, err = agent(capsys)
            assert err.count("add --tools read") == 1
            assert "reader declares tools (Read, Grep) and runs without them" in err
        assert [tools_of(server, number) for number in range(len(server.requests))] == [[]]

    def test_default_is_in_the_users_file(self, script, capsys, clean_environment):
        server = script(LOOK)
        set_default(clean_environment, "Read")
        agent(capsys)
        assert tools_of(server) == ["Read"]
        agent(capsys, "--tools", "none")
        assert tools_of(server) == []

    def test_default_of_a_project_grants_nothing(self, script, capsys, reader):
        server = script()
        (reader / ".claude" / "claude-force.toml").write_text('tools = "bash"\n', encoding="utf-8")
        agent(capsys)
        assert tools_of(server) == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--tools", "raed"], "--tools: 'raed' is not a tool. Did you mean read?"),
            (["--tools", "read,Gerp"], "Did you mean Grep?"),
            (["--tools", ""], "--tools: '' names nothing"),
            (
                ["--tools", "read", "--max-turns", "0"],
                "--max-turns is 0; it must be a whole number",
            ),
            (["--tools", "read", "--add-dir", "nowhere"], "--add-dir is nowhere, which is not a folder"),
            (
                ["--max-turns", "3"],
                "--max-turns is for agents that use tools: add --tools",
            ),
            (["--add-dir", "src", "--tools", "none"], "--add-dir is for agents that use tools"),
        ],
    )
    def test_wrong_grant_is_exit_code_2(self, script, capsys, arguments, said):
        server = script()
        _, err = agent(capsys, *arguments, code=2)
        assert said in err and not server.requests

    @pytest.mark.parametrize("verb", [["worker"], ["demo"], ["cache", "stats"]], ids=" ".join)
    def test_other_verbs_name_those_that_have_it(self, reader, capsys, verb):
        assert main([*verb, "--tools", "read"]) == 2
        assert "run agent" in capsys.readouterr().err

    def test_database_and_tools_exclude_each_other(self, reader, capsys, monkeypatch):
        (reader / "t.jsonl").write_text('{"task": "Look"}\n', encoding="utf-8")
        many = ["many", "t.jsonl", "--agent", "reader", "-o", "o.jsonl", "--tools", "read"]
        for database in (["--database", "sqlite:///d.sqlite"], ["--durable"]):
            monkeypatch.setenv("CLAUDE_FORCE_DATABASE_URL", "sqlite:///d.sqlite")
            _, err = run(capsys, *many, *database, code=2)
            assert "--tools is for runs without a database" in err

    def test_added_folder_can_be_read(self, script, capsys, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        (other / "b.txt").write_text("outside\n", encoding="utf-8")
        server = script(tool_calls(("Read", {"file_path": str(other / "b.txt")})))
        agent(capsys, "--tools", "read", "--add-dir", str(other))
        assert "outside" in json.dumps(server.requests[-1].body["messages"])


class TestBounds:
    def test_reached_bound_is_one_line(self, script, capsys):
        server = script(LOOK, LOOK)
        _, err = agent(capsys, "--tools", "read", "--max-turns", "2")
        assert err.count("--max-turns was reached") == 1
        assert server.requests[-1].body["tool_choice"] == {"type": "none"}

    def test_bound_of_calls_is_one_line(self, script, capsys):
        script(LOOK, LOOK)
        _, err = agent(capsys, "--tools", "read", "--max-tool-calls", "1")
        assert err.count("--max-tool-calls was reached") == 1

    def test_budget_of_a_call_is_within_that_of_the_run(self, script, capsys, reader):
        script(LOOK)
        (reader / "t.jsonl").write_text('{"task": "Look"}\n', encoding="utf-8")
        many = ["many", "t.jsonl", "--agent", "reader", "-o", "o.jsonl", "--tools", "read"]
        _, err = run(capsys, *many, "--call-budget", "0.0001", code=3)
        assert "BudgetExceededError" in err
        run(capsys, *many, "--call-budget", "0", code=2)


class TestShown:
    def test_denied_calls_are_counted(self, script, capsys, reader):
        rules = {"permissions": {"deny": ["Read(src/**)"]}}
        (reader / ".claude" / "settings.json").write_text(json.dumps(rules), encoding="utf-8")
        script(tool_calls(("Read", {"file_path": "src/a.py"})))
        _, err = agent(capsys, "--tools", "read")
        assert "1 tool call was not permitted: Read 1" in err

    def test_verbose_lists_the_calls(self, script, capsys):
        script(LOOK)
        _, err = agent(capsys, "--tools", "read", "-v")
        assert "turn 1: Read src/a.py, " in err and "turn 1: Grep TODO in src, " in err

    def test_text_of_a_model_orders_nothing(self):
        evil = {"command": "echo \x1b[2J\x1b]0;title\x07 \u202e " + "x" * 500 + "\nrm -r /"}
        text = call_text("Ba\x1bsh", evil)
        assert text.isprintable() and len(text) < 100

    def test_input_of_any_form_has_a_text(self):
        for given in (None, [], "x", 3, {}, {"a": 1}, {"pattern": "x", "path": "src"}, {"file_path": ["a"]}):
            assert call_text("Tool", given).startswith("Tool")
        assert call_text("Grep", {"pattern": "x", "path": "src"}) == "Grep x in src"

    def test_denied_tools_are_bounded(self):
        text = denied_text({f"tool{number}": 1 for number in range(50)})
        assert text.startswith("50 tool calls were not permitted") and text.endswith("and 47 other tools")


class TestDryRun:
    def test_shows_request_with_tools_and_sends_nothing(self, script, capsys):
        server = script()
        out, err = agent(capsys, "--tools", "Read", "--dry-run")
        body = json.loads(out)
        assert [one["name"] for one in body["tools"]] == ["Read"]
        assert body["messages"][0]["content"][0]["text"] == "Look"
        assert "Grep is left out" in err and "--tools read would" in err
        assert not server.requests

    def test_request_is_the_one_that_is_sent(self, script, capsys):
        server = script()
        shown = json.loads(agent(capsys, "--tools", "read", "--dry-run", "--json")[0])["request"]
        agent(capsys, "--tools", "read")
        assert shown == server.requests[0].body

    def test_plain_request_has_no_tools(self, script, capsys):
        script()
        assert "tools" not in json.loads(agent(capsys, "--dry-run")[0])

    def test_rows_show_the_first_one(self, script, capsys, reader):
        server = script()
        (reader / "t.jsonl").write_text('{"task": "One"}\n{"task": "Two"}\n', encoding="utf-8")
        out, _ = run(capsys, "many", "t.jsonl", "--agent", "reader", "--tools", "read", "--dry-run")
        assert json.loads(out)["messages"][0]["content"][0]["text"] == "One"
        assert not server.requests

    def test_estimate_counts_the_tools(self, script, capsys):
        server = script()

        def tokens(*arguments):
            return json.loads(agent(capsys, "--estimate", "--json", *arguments)[0])["input_tokens"][
                "expected"
            ]

        assert tokens("--tools", "read") > tokens() + 200
        assert not server.requests

    def test_estimate_in_a_home_folder_is_refused(self, script, capsys, reader, monkeypatch):
        script()
        monkeypatch.setenv("HOME", str(reader))
        _, err = agent(capsys, "--tools", "read", "--estimate", code=2)
        assert "no tools" in err


class TestJson:
    def test_result_has_turns_calls_and_bound(self, script, capsys):
        script(LOOK, LOOK)
        fields = json.loads(agent(capsys, "--tools", "read", "--max-turns", "2", "--json")[0])
        assert fields["success"] and fields["output"]
        assert [one["stop_reason"] for one in fields["turns"]] == ["tool_use", "end_turn"]
        assert [(one["turn"], one["name"], one["input"]) for one in fields["tool_calls"]] == [
            (1, "Read", {"file_path": "src/a.py"}),
            (1, "Grep", {"pattern": "TODO", "path": "src"}),
        ]
        assert fields["stopped_by"] == "max_turns"

    def test_plain_result_has_none_of_it(self, script, capsys):
        script()
        fields = json.loads(agent(capsys, "--json")[0])
        assert not {"turns", "tool_calls", "stopped_by"} & set(fields)


class TestMany:
    @pytest.fixture
    def many(self, reader):
        (reader / "t.jsonl").write_text('{"task": "Look", "id": 7}\n{"task": "Again"}\n', encoding="utf-8")
        return ["many", "t.jsonl", "--agent", "reader", "-o", "o.jsonl"]

    def rows(self, name="o.jsonl"):
        with Path(name).open(encoding="utf-8") as lines:
            return sorted(map(json.loads, lines), key=lambda row: row["index"])

    def test_rows_have_turns_and_calls(self, script, capsys, many):
        script(LOOK)
        _, err = run(capsys, *many, "--tools", "read")
        for row in self.rows():
            assert len(row["turns"]) == 2 and row["stopped_by"] is None
            assert [one["name"] for one in row["tool_calls"]] == ["Read", "Grep"]
        assert "4 turns, 4 tool calls" in err

    def test_summary_counts_bounds_and_denials(self, script, capsys, many):
        script(LOOK, LOOK)
        run(capsys, *many, "--tools", "read", "--max-turns", "2")
        out, _ = run(capsys, *many[:-1], "p.jsonl", "--tools", "read", "--max-turns", "2", "--json")
        fields = json.loads(out)
        assert (fields["turns"], fields["tool_calls"]) == (4, 4)
        assert fields["stopped_by"] == {"max_turns": 2} and fields["denied_tool_calls"] == {}

    def test_results_are_tasks_of_another_run(self, script, capsys, many):
        script(LOOK)
        run(capsys, *many, "--tools", "read")
        run(capsys, "many", "o.jsonl", "--agent", "code-reviewer", "-o", "two.jsonl")
        rows = self.rows("two.jsonl")
        assert [row["task"] for row in rows] == ["One TODO."] * 2
        assert [row["id"] for row in rows if "id" in row] == [7]
        assert not any("turns" in row or "tool_calls" in row for row in rows)

    def test_another_grant_is_another_run(self, script, capsys, many):
        script(LOOK)
        run(capsys, *many, "--tools", "read")
        run(capsys, *many, "--tools", "Read,Grep,Glob")  # the same grant in other words
        _, err = run(capsys, *many, code=2)
        assert "other tasks or options" in err

    def test_field_of_a_row_is_not_overwritten(self, script, capsys, many, reader):
        script(LOOK)
        (reader / "t.jsonl").write_text('{"task": "Look", "turns": 7}\n', encoding="utf-8")
        _, err = run(capsys, *many, "--tools", "read", code=2)
        assert "'turns'" in err
        run(capsys, *many)
        assert self.rows()[0]["turns"] == 7

    def test_second_run_sends_nothing(self, script, capsys, many):
        server = script(LOOK)
        run(capsys, *many, "--tools", "read")
        sent = len(server.requests)
        run(capsys, *many[:-1], "p.jsonl", "--tools", "read")
        assert len(server.requests) == sent
        assert all(row["cached"] and row["cost"] == 0 for row in self.rows("p.jsonl"))


class TestWorkflow:
    @pytest.fixture
    def steps(self, reader):
        """Sets the workflow `look`."""

        def write(*steps):
            path = reader / ".claude" / "claude.json"
            config = json.loads(path.read_text(encoding="utf-8"))
            config["workflows"]["look"] = {"steps": list(steps)}
            path.write_text(json.dumps(config), encoding="utf-8")

        return write

    def offered(self, server):
        """The tools of the first request of each conversation, in order."""
        bodies = [one.body for one in server.requests]
        return [
            [tool["name"] for tool in body.get("tools", [])] for body in bodies if len(body["messages"]) == 1
        ]

    def flow(self, capsys, *arguments, **more):
        return run(capsys, "workflow", "look", "--task", "Look", *arguments, **more)

    def test_step_narrows_the_grant(self, script, capsys, steps):
        server = script(LOOK)
        steps(
            {"id": "all", "agent": "reader"},
            {"id": "some", "agent": "reader", "tools": "Read", "dependencies": ["all"]},
            {"id": "none", "agent": "reader", "tools": "none", "dependencies": ["some"]},
            {"id": "more", "agent": "reader", "tools": ["bash"], "dependencies": ["none"]},
        )
        self.flow(capsys, "--tools", "read")
        assert self.offered(server) == [["Read", "Grep"], ["Read"], [], ["Read", "Grep"]]

    def test_step_grants_nothing(self, script, capsys, steps):
        server = script()
        steps({"id": "a", "agent": "reader", "tools": "bash"})
        _, err = self.flow(capsys)
        assert self.offered(server) == [[]]
        assert "step 'a' names tools, and the run grants none" in err and "--tools read" in err

    def test_wrong_grant_is_a_fault(self, script, capsys, steps):
        server = script()
        steps({"id": "a", "agent": "reader", "tools": "raed"}, {"id": "b", "agent": "reader", "tools": 3})
        _, err = self.flow(capsys, "--tools", "read", code=2)
        assert "step 'a': \"tools\" is 'raed'; 'raed' is not a tool. Did you mean read?" in err
        assert "step 'b': \"tools\" is 3" in err
        assert not server.requests

    def test_misspelled_key_is_a_fault(self, script, capsys, steps):
        script()
        steps({"id": "a", "agent": "reader", "tool": "read"})
        _, err = self.flow(capsys, code=2)
        assert 'did you mean "tools"' in err

    def test_json_has_turns_and_calls(self, script, capsys, steps):
        script(LOOK)
        steps({"id": "a", "agent": "reader"})
        fields = json.loads(self.flow(capsys, "--tools", "read", "--json")[0])
        result = fields["results"][0]
        assert len(result["turns"]) == 2 and len(result["tool_calls"]) == 2

    def test_dry_run_shows_the_first_steps(self, script, capsys, steps):
        server = script()
        steps(
            {"id": "a", "agent": "reader", "tools": "Read"},
            {"id": "b", "agent": "reader", "dependencies": ["a"]},
        )
        fields = json.loads(self.flow(capsys, "--tools", "read", "--dry-run", "--json")[0])
        assert [one["step"] for one in fields["requests"]] == ["a"]
        assert [tool["name"] for tool in fields["requests"][0]["request"]["tools"]] == ["Read"]
        assert not server.requests

    def test_shown_command_resumes_with_the_grant(self, reader, another_server, capsys, steps):
        server = another_server(answer=Script([LOOK, "One TODO."]), faults=[None, faults.status(400)])
        steps({"id": "a", "agent": "reader"})
        _, err = self.flow(capsys, "--tools", "read", "--max-turns", "9", "--cache", "off", code=1)
        shown = next(line for line in err.splitlines() if "--resume" in line)
        words = shlex.split(shown.partition("claude-force: claude-force ")[2].partition(" requests only")[0])
        assert words[-4:] == ["--tools", "read", "--max-turns", "9"]
        # With another bound it is still the same run.
        assert main([*words[:-1], "8", *PRICES, "--cache", "off"]) == 0
        assert len(server.requests) == 3
        assert tools_of(server) == ["Read", "Grep"]

    def test_show_names_the_tools(self, reader, capsys, steps):
        steps({"id": "a", "agent": "reader", "tools": "Read"})
        assert main(["workflow", "show", "look"]) == 0
        assert "tools Read" in capsys.readouterr().out


class TestMetrics:
    def exported(self, capsys, form):
        assert main(["metrics", "export", "--format", form]) == 0
        return capsys.readouterr().out

    def test_prometheus_counts_turns_and_calls(self, script, capsys):
        script(LOOK)
        agent(capsys, "--tools", "read")
        lines = self.exported(capsys, "prometheus").splitlines()
        labels = '{agent="reader",model="claude-sonnet-5-5"'
        assert f"claude_force_turns_total{labels}}} 2" in lines
        assert f'claude_force_tool_calls_total{labels},outcome="success"}} 2' in lines

    def test_csv_has_the_calls_in_one_cell(self, script, capsys):
        script(LOOK)
        agent(capsys, "--tools", "read", "--max-turns", "2")
        rows = list(csv.DictReader(io.StringIO(self.exported(capsys, "csv"))))
        whole = next(row for row in rows if row["turns"] == "2")
        assert [call[:2] for call in json.loads(whole["tools"])] == [[1, "Read"], [1, "Grep"]]
        assert whole["stopped_by"] == "max_turns"
