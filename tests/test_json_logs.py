"""JSON logs: each event is one whole line without secrets."""

import io
import json
import logging
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from fleet import fleet, write_project
from hypothesis import given
from hypothesis import strategies as st

from claude_force.engine.result_builder import log_result
from claude_force.integrations.json_logs import JsonFormatter, log_as_json
from claude_force.testing import faults
from claude_force.types import AgentResult, ToolCall, Turn

PACKAGE = logging.getLogger("claude_force")
logger = logging.getLogger("claude_force.tests")


class Unshowable:
    def __str__(self):
        raise ValueError("no")


class Seven(int):
    def __repr__(self):
        return "seven"


@pytest.fixture
def written():
    """The parsed lines that are written during the test."""
    stream = io.StringIO()
    with log_as_json(stream, logging.DEBUG):
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_call_is_a_line(tmp_path, written):
    async with fleet(write_project(tmp_path)) as (orchestrator, _):
        result = await orchestrator.execute_agent("python-expert", "Explain decorators")
    (line,) = [line for line in written() if line["logger"] == "claude_force.engine.result_builder"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "claude_force.engine.result_builder",
        "message": "python-expert answered",
        "agent": "python-expert",
        "model": result.model,
        "success": True,
        "attempts": 1,
        "duration_seconds": result.duration,
        "total_tokens": result.usage.total_tokens,
        "cost_usd": result.cost,
        "request_id": result.request_id,
        "error_type": None,
    }


async def test_failure_has_its_type(tmp_path, written):
    async with fleet(write_project(tmp_path), {"faults": [faults.status(529)] * 2}, max_retries=2) as (
        orchestrator,
        _,
    ):
        await orchestrator.execute_agent("python-expert", "Explain decorators")
    retried, failed = (line for line in written() if line["level"] in ("WARNING", "ERROR"))
    assert (retried["attempt"], retried["error_type"]) == (1, "OverloadedError")
    assert retried["delay_seconds"] > 0
    assert (failed["success"], failed["attempts"]) == (False, 2)
    assert "The API answered 529" in failed["message"]


async def test_masks_keys(tmp_path, written):
    refused = faults.status(401, message="The key sk-ant-api03-0123456789 is not valid")
    async with fleet(write_project(tmp_path), {"faults": [refused]}) as (orchestrator, _):
        await orchestrator.execute_agent("python-expert", "Explain decorators")
    try:
        raise RuntimeError("sent Bearer 0123456789")
    except RuntimeError:
        logger.exception("with sk-ant-0123456789", extra={"header": {"Authorization": "0123456789"}})
    named = {"api_key": b"0123456789", "tried": ["sk-ant-0123456789"]}
    logger.info("more", extra=named, stack_info=True)
    text = json.dumps(written())
    assert "0123456789" not in text
    assert text.count("***") >= 5


def test_time_is_in_utc():
    record = logging.makeLogRecord({"created": 1_700_000_000.25, "msg": "x"})
    assert json.loads(JsonFormatter().format(record))["timestamp"] == "2023-11-14T22:13:20.250Z"


def test_time_always_has_milliseconds():
    record = logging.makeLogRecord({"created": 0.0, "msg": "x"})
    parsed = json.loads(JsonFormatter().format(record))["timestamp"]
    assert parsed == "1970-01-01T00:00:00.000Z"
    assert datetime.strptime(parsed, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp() == 0


def test_exception_is_text(written):
    try:
        raise KeyError("missing")
    except KeyError:
        logger.exception("that failed")
    (line,) = written()
    assert line["message"] == "that failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("KeyError: 'missing'")


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),
        st.binary(),
        st.builds(Unshowable),
        st.just(Path("here")),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner), st.dictionaries(st.text(st.characters()) | st.integers(), inner)
    ),
)


@given(message=st.text(st.characters()), value=VALUES)
def test_any_event_is_one_line(message, value):
    record = logging.makeLogRecord({"msg": "%s", "args": (message,), "value": value})
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert "\n" not in line
    parsed = json.loads(line, parse_constant=pytest.fail)
    assert "value" in parsed


def test_keeps_json_values(written):
    extra = {"number": 3, "part": 0.5, "flag": True, "nothing": None, "list": [1, "two"], "dict": {"a": [{}]}}
    logger.info("x", extra=extra)
    (line,) = written()
    assert {name: line[name] for name in extra} == extra


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**80, str(2**80)),
        (Seven(7), 7),
        (Path("here"), "here"),
        ((1, 2), [1, 2]),
        ({1: "one"}, {"1": "one"}),
        (Unshowable(), "<Unshowable>"),
        ("\ud800", "\ud800"),
        ("one\r\n\u2028two", "one\r\n\u2028two"),
    ],
)
def test_other_values_become_text(written, value, shown):
    logger.info("x", extra={"value": value})
    assert written()[0]["value"] == shown


def test_recursive_value_ends(written):
    loop = {}
    loop["loop"] = [loop]
    logger.info("x", extra={"value": loop})
    assert "<" in json.dumps(written()[0]["value"])


def test_keeps_mismatched_arguments():
    def message(text, *arguments):
        record = logging.makeLogRecord({"msg": text, "args": arguments})
        return json.loads(JsonFormatter().format(record))["message"]

    assert message("%d calls", "many") == "%d calls ('many',)"
    assert message("no %s", Unshowable()).startswith("no %s (<")


def test_renames_conflicting_fields(written):
    logger.info("x", extra={"level": 5, "timestamp": "yesterday"})
    (line,) = written()
    assert (line["level"], line["extra_level"], line["extra_timestamp"]) == ("INFO", 5, "yesterday")


def test_threads_write_whole_lines(written):
    def write(number):
        for _ in range(50):
            logger.info("x" * 500, extra={"number": number})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["number"] for line in written()) == sorted(list(range(8)) * 50)


def test_filters_by_level():
    stream = io.StringIO()
    with log_as_json(stream, logging.WARNING):
        logger.info("not this")
        logger.warning("this")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["this"]


def test_stop_restores_the_logger():
    before = (list(PACKAGE.handlers), PACKAGE.level)
    stream = io.StringIO()
    logs = log_as_json(stream)
    assert PACKAGE.isEnabledFor(logging.INFO)
    logs.stop()
    logs.stop()
    logger.error("to nobody here")
    assert stream.getvalue() == ""
    assert (list(PACKAGE.handlers), PACKAGE.level) == before


def test_stop_keeps_the_apps_level():
    PACKAGE.setLevel(logging.DEBUG)
    try:
        with log_as_json(io.StringIO(), logging.INFO):
            assert PACKAGE.level == logging.DEBUG
        assert PACKAGE.level == logging.DEBUG
        with log_as_json(io.StringIO(), logging.DEBUG):
            PACKAGE.setLevel(logging.ERROR)
        assert PACKAGE.level == logging.ERROR
    finally:
        PACKAGE.setLevel(logging.NOTSET)


def test_default_stream_is_stderr():
    program = (
        "import logging\n"
        "from claude_force.integrations.json_logs import log_as_json\n"
        "logger = logging.getLogger('claude_force')\n"
        "assert not logger.handlers and logger.level == logging.NOTSET\n"
        "log_as_json()\n"
        "logger.info('Grüße')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert json.loads(done.stderr)["message"] == "Grüße"


def test_tools_are_counted(written):
    failed, denied = ToolCall(1, "Read", {}, error="no"), ToolCall(1, "Bash", {}, error="no", is_denied=True)
    log_result(
        AgentResult("a", True, turns=(Turn(), Turn()), tool_calls=(failed, denied), stopped_by="max_turns")
    )
    (line,) = written()
    counts = {name: line[name] for name in ("turns", "tool_calls", "failed_tool_calls", "denied_tool_calls")}
    assert counts == {"turns": 2, "tool_calls": 2, "failed_tool_calls": 2, "denied_tool_calls": 1}
    assert line["stopped_by"] == "max_turns"
