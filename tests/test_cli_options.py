"""Options that every command has, misspelled names, and secrets that are never shown."""

import json
import shlex
from importlib import import_module

import pytest
from extras import require_prices

from claude_force.cli.main import main
from claude_force.cli.parser import parse
from claude_force.cli.verbs import VERBS, walk
from claude_force.testing import faults

ASK = ("run", "agent", "python-expert", "--task", "x")


def error_of(capsys, *arguments):
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


class TestNearlyRight:
    @pytest.mark.parametrize(
        ("arguments", "meant"),
        [
            (["lst", "agents"], "did you mean list?"),
            (["ru", "agent", "x"], "did you mean run or runs?"),
            (["list", "agnets"], "did you mean agents?"),
            (["run", "worklfow", "review"], "did you mean workflow?"),
            (["cache", "stat"], "did you mean stats?"),
            ([*ASK, "--cache", "refrsh"], "did you mean refresh?"),
            ([*ASK, "--max-token", "5"], "did you mean --max-tokens"),
            ([*ASK, "--modle=opus"], "did you mean --model?"),
            (["run", "agent", "pyton-expert", "--task", "x"], "Did you mean: python-expert?"),
            (["run", "workflow", "reveiw", "--task", "x"], "Did you mean: review?"),
            (["info", "code-revewer"], "Did you mean: code-reviewer?"),
            (["info", "grahp"], "Did you mean the workflow graph?"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_suggests_near_names(self, workplace, capsys, arguments, meant):
        assert meant in error_of(capsys, *arguments)

    def test_lists_choices_without_near_name(self, workplace, capsys):
        assert "choose from use, refresh, off" in error_of(capsys, *ASK, "--cache", "zzz")
        assert "choose from init, doctor, list" in error_of(capsys, "zzz")


class TestInfo:
    def test_shows_the_steps_of_a_workflow(self, workplace, capsys):
        assert main(["info", "review"]) == 0
        out = capsys.readouterr().out
        assert "1. python-expert" in out
        assert "2. code-reviewer (after 1)" in out

    def test_same_shape_for_both_workflows(self, workplace, capsys):
        assert main(["info", "review", "--json"]) == 0
        in_turn = json.loads(capsys.readouterr().out)
        assert main(["info", "graph", "--json"]) == 0
        graph = json.loads(capsys.readouterr().out)
        assert in_turn["steps"][1] == {"id": "2", "agent": "code-reviewer", "dependencies": ["1"]}
        assert graph["steps"] == [{"id": "a", "agent": "python-expert", "dependencies": []}]
        assert list(in_turn) == list(graph) == ["name", "description", "steps"]


class TestEverywhere:
    @pytest.mark.parametrize("place", [0, 2, 5])
    def test_model_before_or_after_verb(self, workplace, messages_server, place):
        arguments = [*ASK[:place], "--model", "claude-opus-5-5", *ASK[place:]]
        assert main(arguments) == 0
        assert messages_server.requests[0].body["model"] == "claude-opus-5-5"

    @pytest.mark.parametrize("place", [0, 1, 5])
    def test_quiet_leaves_the_answer_alone(self, workplace, capsys, place):
        assert main([*ASK[:place], "--quiet", *ASK[place:]]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("This is the report of")
        assert captured.err == ""

    def test_quiet_shows_errors_only(self, workplace, another_server, capsys):
        (workplace / ".claude" / "agents" / "empty.md").write_text("")
        assert main(["-q", "list", "agents"]) == 0
        assert capsys.readouterr().err == ""
        another_server(faults=[faults.status(500), faults.status(400, message="not like this")])
        assert main([*ASK, "-q"]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("claude-force: error: ")
        assert len(captured.err.splitlines()) == 1

    def test_quiet_excludes_verbose(self, workplace, capsys):
        assert "exclude each other" in error_of(capsys, "-q", *ASK, "-v")


KEY, PASSWORD = "hunter2-the-key-of-no-known-form", "hunter2-the-password"


class TestLimits:
    @pytest.mark.parametrize("verb", [["run", "many", "tasks.jsonl"], ["worker"]], ids=" ".join)
    @pytest.mark.parametrize("spelling", ["--input-tpm", "--tpm"])
    def test_same_names_for_run_and_worker(self, verb, spelling):
        args = parse([*verb, "--rpm", "60", spelling, "5000", "--output-tpm", "1000"])
        assert (args.rpm, args.input_tpm, args.output_tpm) == (60, 5000, 1000)


class TestSecrets:
    @pytest.fixture
    def shown(self, workplace, monkeypatch, capsys):
        """Runs a command that fails, in its ways of telling so, and returns all that it wrote."""
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)

        def run(*arguments):
            texts = []
            for more in ((), ("-v",), ("--json",), ("--quiet",)):
                assert main([*arguments, *more]) in (1, 2)
                captured = capsys.readouterr()
                texts.append(captured.out + captured.err)
            return "\n".join(texts)

        return run

    def test_hides_key_in_server_message(self, shown, another_server):
        another_server(faults=[faults.status(401, message=f"invalid key {KEY}") for _ in range(4)])
        text = shown(*ASK)
        assert "invalid key ***" in text
        assert "hunter2" not in text

    def test_hides_password_in_url(self, shown, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://me:{PASSWORD}@127.0.0.1:9")
        text = shown(*ASK, "--max-retries", "1")
        assert "127.0.0.1:9" in text
        assert "hunter2" not in text

    def test_hides_key_in_arguments(self, shown):
        text = shown("run", "agent", KEY, "--task", "x")
        assert "not found" in text
        assert "hunter2" not in text

    def test_hides_cache_secret(self, shown, monkeypatch):
        monkeypatch.setenv("CLAUDE_CACHE_SECRET", PASSWORD)
        assert "hunter2" not in shown("cache", "explain", PASSWORD, "--task", "x")


class TestHelp:
    @pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]], ids=" ".join)
    def test_bare_command_prints_help(self, workplace, capsys, arguments):
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("usage: claude-force")
        assert "claude-force run agent code-reviewer" in captured.out
        assert captured.err == ""

    @pytest.mark.parametrize("verb", ["run", "run many", "cache", "worker"])
    def test_help_verb_is_the_verbs_help(self, workplace, capsys, verb):
        assert main(["help", *verb.split()]) == 0
        by_word = capsys.readouterr().out
        assert main([*verb.split(), "--help"]) == 0
        assert capsys.readouterr().out == by_word

    def test_help_suggests_near_verb(self, workplace, capsys):
        assert "did you mean worker" in error_of(capsys, "help", "wroker")
        assert "choose from agent, workflow, many" in error_of(capsys, "help", "run", "zzz")

    def test_shows_groups_and_defaults(self, workplace, capsys):
        assert main(["run", "many", "--help"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        for group in ("what to run:", "output and resuming:", "limits:", "cost:", "caches:", "examples:"):
            assert group in out
        of_tokens = "(default: 4096; 16384 for a model that thinks)"
        for default in (of_tokens, "(default: 30)", "(default: 3)", "(default: 10)"):
            assert default in out
        assert "claude-force run many tasks.jsonl -o results.jsonl" in out

    def test_every_example_parses(self, workplace):
        examples = [(name, one) for name, verb in walk() for one in verb.examples]
        assert examples
        for name, example in examples:
            words = shlex.split(example.rpartition("claude-force ")[2].partition(">")[0])
            args = parse(words)
            assert args.handler, name

    def test_every_handler_exists(self):
        for name, verb in walk():
            if verb.handler:
                module, _, function = verb.handler.partition(":")
                assert callable(getattr(import_module(f"claude_force.cli.{module}"), function)), name


class TestOptionsOfOtherVerbs:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (
                ["list", "agents", "--budget", "1"],
                "run agent, run workflow, run many and runs resume have",
            ),
            ([*ASK, "--resume", "x"], "run workflow has it"),
            (["run", "many", "t.jsonl", "--plan"], "run workflow has it"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_names_verb_with_option(self, workplace, capsys, arguments, said):
        text = error_of(capsys, *arguments)
        assert said in text
        assert "did you mean" not in text

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--buget", "3"], "no option --buget; did you mean --budget? (see"),
            (["--budget", "3"], "no option --budget; run agent, run workflow"),
            (["run", "--budget", "3"], "claude-force run has no option --budget; run agent"),
            (["--task", "x", "run", "agent", "python-expert"], "no option --task; run agent"),
            (["-qv", "--model", "opus", "--buget", "3", "run"], "no option --buget"),
            (["cache", "--dri", "x", "stats"], "no option --dri; did you mean --dir? (see"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_option_before_the_verb_is_named(self, workplace, capsys, arguments, said):
        assert said in error_of(capsys, *arguments)

    def test_common_options_before_verb(self, workplace):
        assert parse(["--model", "opus", "-q", "--config=x", "run", "agent", "a"]).config == "x"

    def test_only_near_options_are_offered(self, workplace, capsys):
        assert "did you mean --budget? (see" in error_of(capsys, *ASK, "--buget", "3")

    @pytest.mark.parametrize("address", ["foo", "http://"])
    def test_refuses_url_without_host(self, workplace, capsys, monkeypatch, address):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        assert "(for a cloud its own) or HTTPS_PROXY: write" in error_of(capsys, *ASK)

    def test_refusal_names_no_python_argument(self, workplace, capsys):
        text = error_of(capsys, "cache", "stats", "--dir", "/nowhere")
        assert text.endswith("or the project. Choose one inside.\n")

    def test_task_as_word_names_option(self, workplace, capsys):
        text = error_of(capsys, "run", "agent", "python-expert", "Explain this")
        assert "unexpected argument 'Explain this'; a task is given as --task 'Explain this'" in text

    def test_refuses_zero_max_tokens(self, workplace, capsys):
        rows = '{"agent": "python-expert", "task": "x"}'
        (workplace / "t.jsonl").write_text(rows, encoding="utf-8")
        text = error_of(capsys, "run", "many", "t.jsonl", "-o", "out.jsonl", "--max-tokens", "0")
        assert text == "claude-force: error: --max-tokens is 0; it must be a whole number from 1 up.\n"
        assert not (workplace / "out.jsonl").exists()


class TestEveryRun:
    @pytest.mark.parametrize("kind", ["agent", "workflow", "many"])
    def test_has_expected_options(self, kind):
        flags = set(VERBS["run"].kinds[kind].flags)
        wanted = "--task-file --budget --price --estimate --cache --cache-ttl --rpm --tpm --max-tokens"
        assert {*wanted.split(), "--temperature", "--max-concurrent", "--deadline", "--timeout"} <= flags

    def test_worker_takes_max_concurrent(self):
        assert parse(["worker", "--max-concurrent", "7"]).concurrency == 7
        assert parse(["worker", "--concurrency", "7"]).concurrency == 7

    def test_agent_budget_stops_call(self, workplace, messages_server, capsys):
        require_prices("claude-sonnet-5-5")
        assert main([*ASK, "--budget", "0.0001"]) == 1
        assert "budget" in capsys.readouterr().err
        assert messages_server.requests == []

    def test_agent_price_is_charged(self, workplace, capsys):
        priced = [*ASK, "--model", "my-model", "--price", "my-model=1,1000000"]
        assert main([*priced, "--json"]) == 0
        metadata = json.loads(capsys.readouterr().out)["metadata"]
        assert metadata["estimated_cost"] > metadata["output_tokens"] * 0.99

    def test_agent_estimate_sends_nothing(self, workplace, messages_server, capsys):
        assert main([*ASK, "--estimate", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == 1
        assert messages_server.requests == []
        assert "not found" in error_of(capsys, "run", "agent", "nobody", "--task", "x", "--estimate")

    def test_workflow_estimate_sends_nothing(self, workplace, messages_server, capsys):
        assert main(["run", "workflow", "review", "--task", "x", "--estimate", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == 2
        assert messages_server.requests == []


class TestJsonNames:
    def test_many_counts_failures_by_type(self, workplace, capsys):
        rows = [{"agent": name, "task": "x"} for name in ("nobody", "python-expert", "nobody")]
        (workplace / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        assert main(["run", "many", "t.jsonl", "-o", "o.jsonl", "--json"]) == 3
        reported = json.loads(capsys.readouterr().out)
        assert reported["errors_by_type"] == {"AgentNotFoundError": 2}
        assert reported["errors"][0].startswith("2 x AgentNotFoundError: Agent 'nobody' not found.")
        assert reported["errors"][0].endswith("(rows 1, 3)")
        (workplace / "good.jsonl").write_text(json.dumps(rows[1]), encoding="utf-8")
        assert main(["run", "many", "good.jsonl", "-o", "q.jsonl", "--json"]) == 0
        reported = json.loads(capsys.readouterr().out)
        assert (reported["errors"], reported["errors_by_type"]) == ([], {})

    def test_input_without_rows_is_told(self, workplace, capsys):
        (workplace / "t.jsonl").write_text("", encoding="utf-8")
        assert main(["run", "many", "t.jsonl", "-o", "o.jsonl"]) == 0
        assert "warning: there were no rows in the input" in capsys.readouterr().err

    def test_costs_have_one_name(self, workplace, capsys):
        require_prices("claude-sonnet-5-5")
        (workplace / "t.jsonl").write_text('{"agent": "python-expert", "task": "x"}\n')

        def shown(*arguments):
            assert main([*arguments, "--json"]) == 0
            return json.loads(capsys.readouterr().out)

        one = shown(*ASK)["metadata"]
        assert one["cost_usd"] == one["estimated_cost"] > 0
        assert one["duration_seconds"] * 1000 == one["execution_time_ms"]
        many = shown("run", "many", "t.jsonl", "-o", "o.jsonl", "--cache", "off")
        assert many["cost_usd"] == many["cost"] > 0
        assert shown(*ASK, "--estimate", "--cache", "off")["cost_usd"]["high"] > 0
        flow = shown("run", "workflow", "review", "--task", "x", "--cache", "off")
        assert flow["cost_usd"] == flow["cost"] > 0 and flow["saved_usd"] == flow["saved_cost"]
        assert flow["duration_seconds"] == flow["duration"]
        assert flow["steps"][0]["cost_usd"] == flow["steps"][0]["cost"] > 0
        listed = shown("runs", "list")[0]
        assert listed["cost_usd"] >= 0 and listed["run_id"] == flow["run_id"]
        assert shown("metrics", "costs")["total"]["cost_usd"] > 0
