"""Callbacks of the sync face that end the program: what they raise reaches the caller."""

import subprocess
import sys

import pytest
from fleet import write_project

from claude_force import AgentOrchestrator
from claude_force.bulk import Finished

TASKS = [("python-expert", f"Task {number}") for number in range(8)]


@pytest.fixture
def orchestrator(tmp_path, messages_server):
    path = write_project(tmp_path)
    with AgentOrchestrator(path, "k", base_url=messages_server.base_url, max_concurrent=2) as running:
        yield running


def ends(reason):
    def callback(*_):
        raise reason

    return callback


def observed(orchestrator, callback):
    orchestrator.observers.append(callback)
    try:
        orchestrator.run_agent("python-expert", "an observer ends it")
    finally:
        orchestrator.observers.clear()


def from_tasks(orchestrator, callback):
    def tasks():
        yield TASKS[0]
        callback()

    orchestrator.run_multiple(tasks())


def streamed(orchestrator, callback):
    for _ in orchestrator.stream_multiple(TASKS, on_event=callback):
        pass


WAYS = {
    "on_result": lambda one, callback: one.run_multiple(TASKS, callback),
    "on_event": lambda one, callback: one.run_multiple(TASKS, on_event=callback),
    "on_event of a stream": streamed,
    "the last event": lambda one, callback: one.run_multiple(
        TASKS, on_event=lambda event: callback() if isinstance(event, Finished) else None
    ),
    "tasks": from_tasks,
    "an observer": observed,
    "on_step": lambda one, callback: one.run_workflow("review", "x", on_step=callback),
    "on_result of a workflow": lambda one, callback: one.run_workflow("review", "x", on_result=callback),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reason", [SystemExit(7), KeyboardInterrupt("enough")], ids=["exit", "interrupt"])
def test_reaches_the_caller(orchestrator, way, reason):
    with pytest.raises(type(reason)) as raised:
        WAYS[way](orchestrator, ends(reason))
    assert raised.value is reason
    assert orchestrator.run_agent("python-expert", "after it").success


@pytest.mark.timeout(60)
def test_failing_observer_fails_no_call(orchestrator):
    orchestrator.observers.append(ends(ValueError("mine")))
    assert orchestrator.run_agent("python-expert", "x").success


def test_exit_code_of_callback(tmp_path, messages_server):
    path = write_project(tmp_path)
    source = f"""
import sys
from claude_force import AgentOrchestrator
running = AgentOrchestrator({str(path)!r}, "k", base_url={messages_server.base_url!r})
running.run_multiple([("python-expert", "x")], on_result=lambda *_: sys.exit(7))
"""
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (7, b"")
