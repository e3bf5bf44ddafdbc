"""Errors speak of arguments to Python and of options to the shell."""

import copy
import json
import pickle
import re

import pytest
from fleet import write_project

from claude_force import AgentOrchestrator, errors
from claude_force.cli.arguments import OPTIONS
from claude_force.cli.main import main
from claude_force.engine.result_json import error_fields, error_from
from claude_force.testing import MessagesServer, faults

ASK = ["run", "agent", "python-expert", "--task", "x"]
KINDS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.CallError)]
ARGUMENTS = re.compile(r"\b(max_\w+|timeout_seconds|deadline_seconds|budget_usd|api_key|base_url|prices=)")
FLAGS = {flag for one in OPTIONS.values() for flag in one.flags}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
class TestAdvice:
    def test_advice_names_real_options(self, kind):
        text = kind("It failed").for_shell()
        assert not ARGUMENTS.search(text)
        assert set(re.findall(r"--[a-z][\w-]+", text)) <= FLAGS

    def test_python_is_told_no_options(self, kind):
        assert "--" not in str(kind("It failed"))

    def test_both_survive_serialization(self, kind):
        error = kind("It failed", request_id="req_1")
        ways = [pickle.loads(pickle.dumps(error)), copy.deepcopy(error)]
        ways.append(error_from(json.loads(json.dumps(error_fields(error))), errors.CallError))
        for one in ways:
            assert str(one) == str(error)
            assert one.for_shell() == error.for_shell()


WRONG = [
    ([*ASK, "--max-retries", "0"], {"max_retries": 0}, "--max-retries is 0", "max_retries is 0"),
    ([*ASK, "--timeout", "0"], {"timeout_seconds": 0}, "--timeout is 0", "timeout_seconds is 0"),
    ([*ASK, "--rpm", "-1"], {"rpm": -1}, "--rpm is -1", "rpm is -1"),
    ([*ASK, "--max-concurrent", "0"], {"max_concurrent": 0}, "--max-concurrent is 0", "max_concurrent is 0"),
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("command", "arguments", "shell", "python"), WRONG, ids=[one[2] for one in WRONG])
def test_wrong_limits_name_their_option(project, capsys, command, arguments, shell, python):
    assert main(command) == 2
    assert f"error: {shell}; it must be" in capsys.readouterr().err
    with pytest.raises(errors.InvalidOptionError, match=f"^{python}; it must be"):
        AgentOrchestrator(**arguments)


def test_unknown_price_names_option(project, messages_server, capsys):
    assert main([*ASK, "--model", "mine", "--budget", "1"]) == 2
    text = capsys.readouterr().err
    assert "Give --price mine=INPUT,OUTPUT" in text
    assert "prices=" not in text
    with AgentOrchestrator(budget_usd=1.0) as orchestrator:
        with pytest.raises(errors.UnknownPriceError) as raised:
            orchestrator.run_agent("python-expert", "x", model="mine")
    assert "prices={'mine'" in str(raised.value)
    assert "--price" not in str(raised.value)


def test_outputs_name_options(project, monkeypatch, capsys, tmp_path):
    plan = [faults.status(429, message="slow down")] * 40
    (tmp_path / "t.jsonl").write_text('{"agent": "python-expert", "task": "a"}\n')
    with MessagesServer(faults=plan) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        assert main([*ASK, "--max-retries", "2"]) == 1
        assert main([*ASK, "--max-retries", "1", "--json"]) == 1
        main(["run", "many", "t.jsonl", "-o", "o.jsonl", "--max-retries", "1"])
        assert main(["metrics", "errors"]) == 0
    captured = capsys.readouterr()
    rows = (tmp_path / "o.jsonl").read_text()
    text = captured.out + captured.err + rows
    assert "Lower --max-concurrent, raise --max-retries" in rows
    assert "Lower --max-concurrent" in captured.out
    assert "Lower --max-concurrent" in captured.err
    assert not ARGUMENTS.search(text)
