"""Code and commands written for claude-force 1.x go on working: each as 1.x documented it."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from claude_force import AgentOrchestrator, AgentResult, AsyncAgentOrchestrator, ResponseCache
from claude_force.cli.main import main
from claude_force.cli.parser import parse
from claude_force.performance_tracker import PerformanceTracker
from claude_force.testing import faults

QUESTION = {"agent_name": "python-expert", "task": "What are decorators?", "model": "claude-3-5-sonnet"}


@pytest.fixture
def project(workplace):
    return workplace


@pytest.fixture
def cache(tmp_path):
    with ResponseCache(tmp_path / "cache") as opened:
        yield opened


# As the documentation of the older package shows them, with names for what it leaves out.
PROGRAMS = {
    "async": """
import asyncio
from claude_force.async_orchestrator import AsyncAgentOrchestrator

async def main():
    orchestrator = AsyncAgentOrchestrator(
        max_concurrent=10,
        timeout_seconds=30,
        max_retries=3
    )
    # Execute single agent
    result = await orchestrator.execute_agent("python-expert", "Explain decorators")
    # Execute multiple agents concurrently
    tasks = [
        ("python-expert", "Explain lists"),
        ("code-reviewer", "Review: def foo(): pass"),
        ("bug-investigator", "Debug 500 error")
    ]
    results = await orchestrator.execute_multiple(tasks)
    await orchestrator.close()
    print(result.success, [one.success for one in results])

asyncio.run(main())
""",
    "cache": """
from claude_force.response_cache import ResponseCache

def call_claude_api():
    return "They wrap functions."

cache = ResponseCache(
    ttl_hours=24,
    max_size_mb=100,
    cache_secret="your-secret-here",
    exclude_agents=["random-agent"]
)
for _ in range(2):
    # Check cache
    cached = cache.get("python-expert", "What are decorators?", "claude-3-5-sonnet")
    if cached:
        print(f"Cache hit! Response: {cached['response']}")
    else:
        # Call API and cache result
        response = call_claude_api()
        cache.set(
            "python-expert",
            "What are decorators?",
            "claude-3-5-sonnet",
            response,
            input_tokens=100,
            output_tokens=50,
            estimated_cost=0.001
        )
# Get statistics
stats = cache.get_stats()
print(f"Hit rate: {stats['hit_rate']}")
print(f"Cache size: {stats['size_mb']} MB")
""",
    "both": """
import asyncio
from claude_force.async_orchestrator import AsyncAgentOrchestrator
from claude_force.response_cache import ResponseCache

async def test_integration():
    cache = ResponseCache()
    orchestrator = AsyncAgentOrchestrator()
    # First call - cache miss
    result1 = await orchestrator.execute_agent("python-expert", "What are lists?")
    cache.set("python-expert", "What are lists?", "model", result1.output, 100, 50, 0.001)
    # Second call - cache hit
    cached = cache.get("python-expert", "What are lists?", "model")
    assert cached is not None
    print(cached["response"] == result1.output)

asyncio.run(test_integration())
""",
    "sync": """
from claude_force.orchestrator import AgentOrchestrator
orchestrator = AgentOrchestrator()
result = orchestrator.run_agent("python-expert", "task")
print(result.success, result.metadata["cached"])
""",
}
PRINTED = {
    "async": ["True [True, True, True]"],
    "cache": ["Cache hit! Response: They wrap functions.", "Hit rate: 50.0%", "Cache size: "],
    "both": ["True"],
    "sync": ["True False"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_runs_program_of_1x_unchanged(project, name):
    (project / ".claude" / "agents" / "bug-investigator.md").write_text(
        "---\nname: bug-investigator\ndescription: Finds bugs.\n---\nYou find bugs.\n", encoding="utf-8"
    )
    words = [sys.executable, "-W", "error::DeprecationWarning", "-c", PROGRAMS[name]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(PRINTED[name])
    assert all(line.startswith(expected) for line, expected in zip(lines, PRINTED[name])), lines


class TestResponseCache:
    def test_get_and_set_by_the_names_of_1x(self, cache):
        cache.set(**QUESTION, response="Functions.", input_tokens=100, output_tokens=50, estimated_cost=0.001)
        hit = cache.get(**QUESTION)
        assert (hit["response"], hit["input_tokens"], hit["output_tokens"]) == ("Functions.", 100, 50)
        assert (hit["estimated_cost"], hit["cached"], hit["hit_count"]) == (0.001, True, 1)

    def test_set_many_takes_both_agent_keys(self, cache):
        answer = {"task": "t", "model": "m", "response": "r"}
        assert cache.set_many([{**answer, "agent": "a"}, {**answer, "agent_name": "b"}]) == 2
        assert cache.get("a", "t", "m")["response"] == cache.get("b", "t", "m")["response"] == "r"

    def test_folder_may_come_first(self, tmp_path):
        with ResponseCache(tmp_path / "c", 2, 5, True, "secret", ["random-agent"], True) as cache:
            assert (cache.cache_dir, cache.ttl_hours, cache.max_size_mb) == (tmp_path / "c", 2, 5)
            assert "random-agent" in cache.exclude_agents
            assert cache.set("a", "t", "m", "r")
        with ResponseCache(str(tmp_path / "c"), ttl_hours=2, cache_secret="secret") as again:
            assert again.get("a", "t", "m")["response"] == "r"

    def test_none_first_is_the_default_folder(self):
        with ResponseCache(None, 2) as cache:
            assert (cache.cache_dir, cache.ttl_hours) == (Path.home() / ".claude" / "cache", 2)

    def test_refuses_argument_given_twice(self, tmp_path):
        with pytest.raises(TypeError, match="twice"):
            ResponseCache(tmp_path / "c", 2, ttl_hours=3)
        with pytest.raises(TypeError, match="too many"):
            ResponseCache(tmp_path / "c", 2, 5, True, "secret", [], True, "more")

    def test_hours_first_stays_the_order_of_2(self, tmp_path):
        with ResponseCache(2, 5, "secret", ["a"], tmp_path / "c") as cache:
            assert (cache.ttl_hours, cache.cache_dir) == (2, tmp_path / "c")

    def test_verify_integrity_is_ignored(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, "claude_force"):
            ResponseCache(cache_dir=tmp_path / "c", verify_integrity=True).close()
            assert not caplog.records
            ResponseCache(cache_dir=tmp_path / "c", verify_integrity=False).close()
        assert "always checked" in caplog.text

    def test_stats_size_and_folder_can_be_read(self, cache, tmp_path):
        cache.set(**QUESTION, response="Functions.", input_tokens=1, output_tokens=1, estimated_cost=0.0)
        cache.get(**QUESTION)
        cache.get("python-expert", "Another", "m")
        stats = cache.stats
        assert (stats["hits"], stats["misses"], stats["evictions"], stats["integrity_failures"]) == (
            1,
            1,
            0,
            0,
        )
        assert stats["size_bytes"] > 0
        assert (cache.size(), cache.cache_dir) == (1, tmp_path / "cache")

    def test_cache_that_is_off_has_no_folder(self):
        cache = ResponseCache(enabled=False)
        assert (cache.cache_dir, cache.size(), cache.stats["size_bytes"]) == (None, 0, 0)


class TestOrchestrators:
    def test_use_memory_is_ignored(self, project, messages_server):
        async def run():
            async with AsyncAgentOrchestrator() as orchestrator:
                one = await orchestrator.execute_agent("python-expert", "a", use_memory=False)
                by_place = await orchestrator.execute_agent(
                    "python-expert", "b", "sonnet", 4096, None, None, None, True
                )
                many = await orchestrator.execute_multiple([("python-expert", "c")], use_memory=False)
                await orchestrator.estimate([("python-expert", "d")], use_memory=True)
                return [one, by_place, *many]

        assert [result.error for result in asyncio.run(run())] == [None] * 3
        assert not any("use_memory" in request.body for request in messages_server.requests)

    def test_use_memory_of_the_sync_face(self, project):
        with AgentOrchestrator() as orchestrator:
            assert orchestrator.run_agent("python-expert", "a", use_memory=False).success
            assert all(one.success for one in orchestrator.run_workflow("review", "a", use_memory=False))
            assert [one.success for one in orchestrator.stream_multiple(TASKS, use_memory=True)] == [True]

    def test_sync_attributes_are_readable(self, project):
        config = ".claude/claude.json"
        with AgentOrchestrator(
            config_path=config, anthropic_api_key="k", enable_memory=False
        ) as orchestrator:
            assert (orchestrator.config_path, orchestrator.api_key) == (config, "k")
            assert (orchestrator.enable_tracking, orchestrator.enable_memory) == (True, False)

    def test_success_has_an_empty_list_of_errors(self, project):
        with AgentOrchestrator() as orchestrator:
            fresh, kept = (orchestrator.run_agent("python-expert", "a") for _ in range(2))
        assert kept.cached
        assert fresh.errors == kept.errors == [] == fresh.to_dict()["errors"]
        assert AgentResult(agent_name="a", success=True).errors == []
        assert AgentResult(success=True, output="Mine", errors=[], metadata={}).agent_name == ""
        assert fresh.errors is not kept.errors

    def test_failure_has_its_errors(self, another_server):
        another_server(faults=[faults.status(400)])
        with AgentOrchestrator() as orchestrator:
            result = orchestrator.run_agent("python-expert", "a")
        assert not result.success and len(result.errors) == 1

    def test_missing_config_is_file_not_found(self, tmp_path):
        for kind in (FileNotFoundError, ValueError):
            with pytest.raises(kind, match="nothing.json not found"):
                AgentOrchestrator(config_path=str(tmp_path / "nothing.json"))
            with pytest.raises(kind):
                AsyncAgentOrchestrator(tmp_path / "nothing.json")

    def test_missing_key_is_a_value_error(self, project, monkeypatch):
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        with pytest.raises(ValueError, match="ANTHROPIC_API_KEY"):
            AgentOrchestrator(validate_api_key=True)

    def test_unknown_names_are_value_errors(self, project):
        with AgentOrchestrator() as orchestrator:
            with pytest.raises(ValueError, match="^Agent 'nobody' not found"):
                orchestrator.run_agent("nobody", "a")
            with pytest.raises(ValueError, match="^Agent 'nobody' not found"):
                orchestrator.get_agent_info("nobody")
            with pytest.raises(ValueError, match="not found"):
                orchestrator.run_workflow("nothing", "a")


@pytest.fixture
def measured(project, another_server):
    """An orchestrator that made four calls: two answers, one of them kept, and two failures."""
    another_server(faults=[None, faults.status(400), faults.status(400)])
    prices = {"claude-sonnet-5-5": {"input": 3.0, "output": 15.0}}
    with AgentOrchestrator(prices=prices) as orchestrator:
        for agent, task in (
            ("python-expert", "a"),
            ("code-reviewer", "b"),
            ("code-reviewer", "c"),
            ("python-expert", "a"),
        ):
            orchestrator.run_agent(agent, task)
        yield orchestrator


class TestMetrics:
    def test_summary_has_keys_of_1x(self, measured):
        summary = measured.get_performance_summary(hours=24)
        assert (summary["total_executions"], summary["executions"]) == (4, 4)
        assert (summary["successful_executions"], summary["failed_executions"]) == (2, 2)
        assert f"{summary['success_rate']:.1%}" == "50.0%"
        assert summary["total_tokens"] == summary["total_input_tokens"] + summary["total_output_tokens"]
        assert summary["total_tokens"] == summary["tokens"]["total"] > 0
        assert f"${summary['total_cost']:.4f}" == f"${summary['cost_usd']:.4f}"
        assert summary["avg_cost_per_execution"] == summary["cost_usd"] / 4 > 0
        assert summary["avg_execution_time_ms"] == summary["wall_ms"]["mean"] > 0
        assert summary["time_period"] == "last 24 hours"
        assert measured.get_performance_summary()["time_period"] == "all time"

    def test_agents_by_the_argument_of_1x(self, measured):
        stats = measured.get_agent_performance(agent_name="code-reviewer")
        assert stats == measured.get_agent_performance("code-reviewer")
        assert (stats["executions"], stats["success_rate"]) == (2, 0.0)
        # 1.x had the figures of one agent under its name too.
        assert stats["code-reviewer"]["executions"] == 2
        every = measured.get_agent_performance()
        assert {name: one["success_rate"] for name, one in every.items()} == {
            "code-reviewer": 0.0,
            "python-expert": 1.0,
        }
        assert all(one["avg_execution_time_ms"] > 0 and one["total_tokens"] >= 0 for one in every.values())

    def test_costs_count_as_numbers(self, measured):
        costs = measured.get_cost_breakdown()
        known = costs["total"]["cost_usd"]
        assert known > 0
        assert f"{costs['total']:.4f}" == f"{known:.4f}"
        assert costs["total"] > 0 and costs["total"] == known and float(costs["total"]) == known
        assert sum(costs["by_agent"].values()) == pytest.approx(known)
        assert sum(cost / costs["total"] for cost in costs["by_model"].values()) == pytest.approx(1)
        ranked = sorted(costs["by_agent"].items(), key=lambda one: one[1], reverse=True)
        assert [name for name, _ in ranked] == ["python-expert", "code-reviewer"]
        assert json.loads(json.dumps(costs))["total"]["cost_usd"] == known

    def test_export_by_the_argument_of_1x(self, measured, tmp_path):
        measured.export_performance_metrics(output_path=str(tmp_path / "m.json"), format="json")
        assert len(json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))) == 4
        measured.tracker.export_performance_metrics(output_path=tmp_path / "m.csv", format="csv")
        assert len((tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()) == 5
        with pytest.raises(ValueError, match="path"):
            measured.export_performance_metrics()

    def test_tracker_by_the_argument_of_1x(self, measured, project):
        measured.close()
        tracker = PerformanceTracker(metrics_dir=".claude/metrics")
        assert tracker.get_performance_summary()["total_executions"] == 4
        assert tracker.get_summary()["total_executions"] == 4
        assert PerformanceTracker().get_agent_stats("python-expert")["python-expert"]["executions"] == 2
        assert tracker.get_agent_stats("nobody") == {}

    def test_empty_ledger_has_zeros_of_1x(self, tmp_path):
        tracker = PerformanceTracker(metrics_dir=str(tmp_path / "none"))
        summary = tracker.get_performance_summary()
        assert (summary["total_executions"], summary["success_rate"], summary["total_cost"]) == (0, 0, 0)
        assert summary["error_rate"] is None
        assert tracker.get_cost_breakdown()["total"] == 0


def json_of(capsys):
    return json.loads(capsys.readouterr().out)


TASKS = [("python-expert", "b")]
ASK = ("run", "agent", "python-expert", "--task", "x")


class TestCommand:
    def test_runs_as_module_cli(self, project):
        words = [sys.executable, "-m", "claude_force.cli", "list", "agents"]
        ran = subprocess.run(words, capture_output=True, timeout=60, check=True)
        assert ran.stdout.splitlines()[0] == b"python-expert\t1\t\tpython.md"

    @pytest.mark.parametrize("words", [("list", "agents"), ("list", "workflows"), ("info", "review"), ASK])
    def test_format_json_is_json(self, project, capsys, words):
        assert main([*words, "--json"]) == 0
        expected = json_of(capsys)
        for spelling in (("--format", "json"), ("--format=json",)):
            assert main([*words, *spelling]) == 0
            found = json_of(capsys)
            assert found.keys() == expected.keys() if isinstance(found, dict) else found == expected
        assert main([*words, "--format", "text"]) == 0
        with pytest.raises(ValueError):
            json_of(capsys)

    def test_format_json_prints_workflow_and_errors(self, project, capsys):
        assert main(["run", "workflow", "review", "--task", "x", "--format", "json"]) == 0
        fields = json_of(capsys)
        assert fields["success"] and fields["total_tokens"] > 0
        assert [one["errors"] for one in fields["results"]] == [[], []]
        for words in (["run", "agent", "nobody", "--task", "x"], ["run", "agent"]):
            assert main([*words, "--format", "json"]) == 2
            assert json_of(capsys)["success"] is False

    def test_export_format_keeps_error_format(self, project, capsys):
        assert main(["metrics", "export", "--format", "json", "--hours", "0"]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and "hours" in captured.err

    def test_export_takes_the_file_as_a_word(self, project, capsys):
        assert main([*ASK]) == 0
        assert main(["metrics", "export", "m.csv", "--format", "csv"]) == 0
        assert main(["metrics", "export", "m.json"]) == 0
        assert len(Path("m.csv").read_text(encoding="utf-8").splitlines()) == 2
        assert len(json.loads(Path("m.json").read_text(encoding="utf-8"))) == 1
        assert main(["metrics", "export", "m.json", "-o", "n.json"]) == 2

    @pytest.mark.parametrize(
        ("verb", "instead"),
        [
            ("diagnose", "doctor"),
            ("setup", "init"),
            ("import", ".claude/agents"),
            ("recommend", "list agents"),
        ],
    )
    def test_verb_of_1x_names_replacement(self, project, capsys, verb, instead):
        assert main([verb, "x"]) == 2
        error = capsys.readouterr().err
        assert f"there is no '{verb}' since 2.0" in error and instead in error


class TestApiKey:
    KEY = "sk-ant-given-on-the-command-line"

    @pytest.fixture
    def keyless(self, project, monkeypatch):
        """An environment that names other credentials, which are not to be used."""
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "a-token-of-the-environment")
        return project

    @pytest.mark.parametrize("place", [0, 2, 5])
    def test_api_key_option_warns_in_both_places(self, keyless, messages_server, capsys, monkeypatch, place):
        words = [*ASK, "--cache", "off"]
        assert main([*words[:place], "--api-key", self.KEY, *words[place:]]) == 0
        (request,) = messages_server.requests
        assert self.KEY in (request.headers.get("x-api-key", "") + request.headers.get("authorization", ""))
        assert "a-token-of-the-environment" not in str(dict(request.headers))
        captured = capsys.readouterr()
        assert captured.err.count("ANTHROPIC_API_KEY") == 1 and self.KEY not in captured.err + captured.out
        assert "ANTHROPIC_API_KEY" not in os.environ
        assert os.environ["ANTHROPIC_AUTH_TOKEN"] == "a-token-of-the-environment"

    def test_api_key_option_is_never_shown(self, keyless, another_server, capsys):
        said = faults.status(400, message=f"no such key: {self.KEY}")
        another_server(faults=[said, said])
        assert main(["--verbose", "--api-key", self.KEY, *ASK]) == 1
        assert main(["--api-key", self.KEY, *ASK, "--json"]) == 1
        captured = capsys.readouterr()
        assert self.KEY not in captured.out + captured.err and "***" in captured.out
        for file in (path for top in (keyless, Path.home()) for path in top.rglob("*") if path.is_file()):
            assert self.KEY.encode() not in file.read_bytes(), file

    def test_is_not_repeated_by_a_usage_error(self, keyless, capsys):
        for words in ([*ASK, "--api-key", self.KEY, "--nothing"], [*ASK, f"--apikey={self.KEY}"]):
            assert main(words) == 2
            assert self.KEY not in capsys.readouterr().err

    def test_api_key_option_is_not_stored(self, keyless, capsys):
        for spelling in (("--api-key", self.KEY), (f"--api-key={self.KEY}",)):
            args = parse(["run", "many", "t.jsonl", *spelling, "-o", "r.jsonl"])
            assert args.words == ["run", "many", "t.jsonl", "-o", "r.jsonl"]


class TestOutput:
    def test_answer_is_in_the_file_and_on_stdout(self, project, capsys):
        Path("answer.txt").write_text("something longer that was there before" * 9, encoding="utf-8")
        assert main([*ASK, "-o", "answer.txt"]) == 0
        shown = capsys.readouterr().out
        assert Path("answer.txt").read_text(encoding="utf-8") == shown.rstrip("\n") != ""
        assert main([*ASK, "--json", "--output", "again.txt"]) == 0
        fields = json_of(capsys)
        assert Path("again.txt").read_text(encoding="utf-8") == fields["output"]

    def test_workflow_is_in_the_file_as_json(self, project, capsys):
        assert main(["run", "workflow", "review", "--task", "x", "-o", "steps.json"]) == 0
        found = json.loads(Path("steps.json").read_text(encoding="utf-8"))
        assert (found["workflow"], found["task"]) == ("review", "x")
        first = found["results"][0]
        assert (first["agent_name"], first["success"], first["errors"]) == ("python-expert", True, [])
        assert first["output"] and first["metadata"]["tokens_used"] > 0

    def test_failed_call_leaves_output_file(self, project, another_server, capsys):
        another_server(faults=[faults.status(400), faults.status(400)])
        Path("kept.txt").write_text("before", encoding="utf-8")
        assert main([*ASK, "-o", "kept.txt"]) == main([*ASK, "-o", "new.txt"]) == 1
        assert Path("kept.txt").read_text(encoding="utf-8") == "before"
        assert not Path("new.txt").exists()

    def test_sends_nothing_to_unwritable_output(self, project, messages_server, capsys):
        Path("folder").mkdir()
        Path("link").symlink_to(project / "elsewhere")
        for target in ("folder", "link", "nowhere/answer.txt"):
            assert main([*ASK, "-o", target]) == 2
            assert f"{target} can't be written" in capsys.readouterr().err
        assert not messages_server.requests and not (project / "elsewhere").exists()
