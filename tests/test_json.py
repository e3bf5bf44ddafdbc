"""Each figure has one name in the JSON of all commands, in the rows of results, and on the page about it."""

import json
import re
from pathlib import Path

import pytest
from fleet import command

from claude_force.cli.streams import UNIT_NAMES, with_unit_names

PAGE = Path(__file__).resolve().parent.parent / "docs" / "json.md"
ASK = ("code-reviewer", "--task", "x")
# By what the page says of them: 1.x counts this time in milliseconds, and a round of the demo is no run.
OTHER_UNIT, OF_A_RUN = "execution_time_ms", "run"


@pytest.fixture
def used(workplace, messages_server):
    """A project in which everything has been run once."""
    (workplace / "tasks.jsonl").write_text('{"agent": "code-reviewer", "task": "x"}\n')
    assert command("run", "many", "tasks.jsonl", "-o", "results.jsonl").returncode == 0
    return workplace


def objects(value):
    """All objects in it, the outer ones first."""
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(one)


def check(value):
    for one in objects(value):
        for old, new in UNIT_NAMES.items():
            if old in one and not isinstance(one[old], (dict, list)):
                assert one[new] == one[old], (old, new)
        if OTHER_UNIT in one and "metadata" not in one:
            assert "duration_seconds" in one


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "agent", *ASK),
        ("run", "agent", *ASK, "--estimate"),
        ("run", "many", "tasks.jsonl", "-o", "again.jsonl"),
        ("run", "many", "tasks.jsonl", "--estimate"),
        ("run", "workflow", "review", "--task", "x"),
        ("run", "workflow", "review", "--task", "x", "--plan"),
        ("workflow", "show", "review"),
        ("report",),
        ("runs", "list"),
        ("metrics", "summary"),
        ("metrics", "agents"),
        ("metrics", "costs"),
        ("cache", "stats"),
        ("cache", "explain", *ASK),
        ("list", "agents"),
        ("info", "code-reviewer"),
        ("demo", "--calls", "2"),
    ],
    ids=" ".join,
)
def test_commands_add_unit_names(used, arguments):
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout))


def test_result_rows_add_unit_names(used):
    (line,) = (used / "results.jsonl").read_text().splitlines()
    row = json.loads(line)
    check(row)
    assert {"cost_usd", "cost_at_most_usd", "duration_seconds"} <= set(row)


def test_workflow_file_adds_unit_names(used):
    assert command("run", "workflow", "review", "--task", "x", "-o", "steps.json").returncode == 0
    fields = json.loads((used / "steps.json").read_text())
    check(fields)
    assert {"cost_usd", "saved_usd", "duration_seconds"} <= set(fields)


def test_agent_named_cost_is_no_cost():
    assert with_unit_names({"cost": {"executions": 1}, "saved": 0.5}) == {
        "cost": {"executions": 1},
        "saved": 0.5,
        "saved_usd": 0.5,
    }


def test_the_page_has_every_name():
    rows = re.findall(r"^\| (`.+?) \| .* \| ?(.*?) ?\|$", PAGE.read_text(encoding="utf-8"), re.M)
    reported = {old: new.strip("`") for new, olds in rows for old in re.findall(r"`(\w+)`", olds)}
    assert reported == {
        **UNIT_NAMES,
        OTHER_UNIT: "duration_seconds",
        OF_A_RUN: "run_id",
        "agent_name": "agent",
    }
