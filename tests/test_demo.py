"""The demo: its figures are measured, and they agree with each other."""

import json

import pytest

from claude_force.cli.main import main
from claude_force.types import AgentResult


@pytest.fixture
def figures(capsys, monkeypatch):
    from claude_force.cli import demo

    monkeypatch.setattr(demo, "FIRST_TOKEN_SECONDS", 0.05)
    monkeypatch.setattr(demo, "TOKENS_PER_SECOND", 2000.0)
    assert main(["demo", "--calls", "4", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_three_runs_whose_figures_agree(figures):
    one_by_one, at_once, four, again = figures["runs"]
    assert [run["calls"] for run in figures["runs"]] == [3, 3, 4, 4]
    assert all(run["answered"] == run["calls"] for run in figures["runs"])
    assert one_by_one["wall_seconds"] >= one_by_one["all_calls_seconds"]
    for run in (at_once, four, again):
        assert run["slowest_call_seconds"] <= run["wall_seconds"]
        assert run["speed_up"] == pytest.approx(run["all_calls_seconds"] / run["wall_seconds"])
    assert one_by_one["tokens"] == at_once["tokens"] < four["tokens"]


def test_last_round_is_cached(figures):
    *fresh, again = figures["runs"]
    assert [run["cached"] for run in figures["runs"]] == [0, 0, 0, 4]
    assert (again["tokens"], again["cost_usd"]) == (0, 0)
    assert again["saved_usd"] == fresh[-1]["cost_usd"]


def test_rows_differ():
    from claude_force.cli.demo import rows

    assert len(set(rows(100))) == 100


def test_agents_answer_on_files(figures):
    assert [one["agent"] for one in figures["answers"]] == [
        "code-reviewer",
        "security-specialist",
        "documentation-writer",
    ]
    assert all(one["output"] for one in figures["answers"])


def test_says_nothing_is_paid(capsys):
    assert main(["demo", "--calls", "1"]) == 0
    out = capsys.readouterr().out
    assert "No key is used and nothing is paid" in out
    assert "3 one by one" in out


def test_live_names_missing_key(capsys):
    assert main(["demo", "--live"]) != 0
    captured = capsys.readouterr()
    assert "ANTHROPIC_API_KEY" in captured.err
    assert "Traceback" not in captured.err


def test_unknown_cost_makes_sum_unknown():
    from claude_force.cli.demo import Round

    results = (
        AgentResult("a", True, cost=0.5, duration=1.0),
        AgentResult("b", True, cost=None, duration=1.0),
    )
    assert Round("x", 1.0, results).fields()["cost_usd"] is None


def test_senseless_calls_are_refused(capsys):
    assert [main(["demo", "--calls", calls]) for calls in ("0", "99999999999")] == [2, 2]


def test_leaves_example_unchanged(capsys):
    from claude_force.cli.demo import project

    before = set(project().rglob("*"))
    assert main(["demo", "--calls", "1", "--json"]) == 0
    assert set(project().rglob("*")) == before


def test_agents_use_tools_and_are_found_again(figures):
    first, again = figures["tools"]["runs"]
    assert (first["agents"], first["answered"]) == (5, 5)
    assert (first["turns"], first["tool_calls"], first["requests"]) == (15, 15, 15)
    assert (again["turns"], again["tool_calls"], again["requests"]) == (15, 15, 0)


def test_editor_shows_its_patch(figures):
    assert "-A fleet of agnets" in figures["tools"]["patch"]
    assert "+A fleet of agents" in figures["tools"]["patch"]
