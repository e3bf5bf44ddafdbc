"""The sync face: the same engine, from ordinary code, threads, running loops and forks."""

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleet import until, write_project

from claude_force.errors import AuthenticationError, ClosedError
from claude_force.orchestrator import AgentOrchestrator
from claude_force.testing import MessagesServer, faults


@pytest.fixture
def project(tmp_path, messages_server):
    return write_project(tmp_path)


def test_runs_an_agent(project):
    with AgentOrchestrator(project) as orchestrator:
        result = orchestrator.run_agent("python-expert", "Explain lists")
    assert result.success


def test_takes_arguments_of_1x(project):
    with AgentOrchestrator(
        config_path=str(project),
        anthropic_api_key="test-key",
        enable_tracking=True,
        enable_memory=True,
        validate_api_key=True,
    ) as orchestrator:
        result = orchestrator.run_agent(
            "python-expert", "x", model="haiku", max_tokens=50, workflow_name="w", workflow_position=1
        )
    assert result.success
    assert result.metadata["workflow_name"] == "w"


def test_runs_many_in_order(project):
    with AgentOrchestrator(project) as orchestrator:
        results = orchestrator.run_multiple([("python-expert", "a"), ("nobody", "b"), ("code-reviewer", "c")])
    assert [(result.agent_name, result.success) for result in results] == [
        ("python-expert", True),
        ("nobody", False),
        ("code-reviewer", True),
    ]


def test_runs_a_workflow(project):
    with AgentOrchestrator(project) as orchestrator:
        assert [result.agent_name for result in orchestrator.run_workflow("review", "x")] == [
            "python-expert",
            "code-reviewer",
        ]


def test_works_inside_a_running_loop(project):
    async def main():
        with AgentOrchestrator(project) as orchestrator:
            return orchestrator.run_agent("python-expert", "x")

    assert asyncio.run(main()).success


def test_serves_16_threads_at_once(project, messages_server):
    with AgentOrchestrator(project, max_concurrent=16) as orchestrator:
        with ThreadPoolExecutor(16) as pool:
            results = list(
                pool.map(lambda n: orchestrator.run_agent("python-expert", f"task {n}"), range(64))
            )
    assert all(result.success for result in results)
    assert len(messages_server.requests) == 64


def test_estimate_sends_nothing(project, messages_server):
    with AgentOrchestrator(project) as orchestrator:
        estimate = orchestrator.estimate([("code-reviewer", f"Task {number}") for number in range(3)])
    assert (estimate.rows, estimate.cached) == (3, 0)
    assert estimate.output_tokens.high == 3 * 4096
    assert messages_server.requests == []


def test_bad_input_is_a_value_error(project, messages_server):
    with AgentOrchestrator(project) as orchestrator:
        with pytest.raises(ValueError, match="^Invalid agent name"):
            orchestrator.run_agent("../../etc/passwd", "x")
    assert messages_server.requests == []


def test_lists_agents_and_workflows(project):
    with AgentOrchestrator(project) as orchestrator:
        assert [agent["name"] for agent in orchestrator.list_agents()] == ["python-expert", "code-reviewer"]
        assert set(orchestrator.list_agents()[0]) == {"name", "file", "domains", "priority"}
        assert set(orchestrator.list_workflows()) == {"review", "graph", "broken"}
        info = orchestrator.get_agent_info("code-reviewer")
    assert set(info) == {"name", "file", "contract", "domains", "priority", "description"}
    assert info["description"] == "Reviews: all code"


def test_no_loop_is_an_error(project, monkeypatch):
    orchestrator, met = AgentOrchestrator(project), []

    def no_descriptor_left():
        raise OSError(errno.EMFILE, "Too many open files")

    def ask():
        try:
            orchestrator.run_agent("python-expert", "x")
        except OSError as error:
            met.append(error.errno)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "new_event_loop", no_descriptor_left)
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(5)
    assert met == [errno.EMFILE]
    assert orchestrator.run_agent("python-expert", "x").success
    orchestrator.close()


def test_validates_credentials(project, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(AuthenticationError, match="ANTHROPIC_API_KEY"):
        AgentOrchestrator(project, validate_api_key=True)


def test_callback_can_not_wait_for_engine(project):
    with AgentOrchestrator(project) as orchestrator:
        with pytest.raises(RuntimeError, match="callback"):
            orchestrator.run_multiple(
                [("python-expert", "x")],
                on_result=lambda index, result: orchestrator.run_agent("python-expert", "y"),
            )


def test_reopens_after_close(project):
    orchestrator = AgentOrchestrator(project)
    orchestrator.run_agent("python-expert", "x")
    orchestrator.close()
    assert "claude-force" not in {thread.name for thread in threading.enumerate()}
    assert orchestrator.run_agent("python-expert", "x").success
    orchestrator.close()


def test_close_ends_waiting_call(project):
    with MessagesServer(faults=[faults.silence_before_first_byte()]) as server, ThreadPoolExecutor(
        1
    ) as other:
        orchestrator = AgentOrchestrator(project, base_url=server.base_url, api_key="test-key")
        call = other.submit(orchestrator.run_agent, "python-expert", "x")
        until(lambda: server.requests)
        orchestrator.close()
        with pytest.raises(ClosedError, match="closed during the call"):
            call.result(timeout=10)


def run_script(source, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source, *arguments], capture_output=True, text=True, timeout=60
    )


def test_exit_without_close(project):
    source = (
        "import sys\nfrom claude_force import AgentOrchestrator\n"
        "print(AgentOrchestrator(sys.argv[1]).run_agent('python-expert', 'x').success)\n"
    )
    done = run_script(source, str(project))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child(project, messages_server):
    source = (
        "import os, sys\nfrom claude_force import AgentOrchestrator\n"
        "orchestrator = AgentOrchestrator(sys.argv[1])\n"
        "orchestrator.run_agent('python-expert', 'parent')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if orchestrator.run_agent('python-expert', 'child').success else 1)\n"
        "_, status = os.waitpid(child, 0)\n"
        "sys.exit(status)\n"
    )
    # Python 3.12 warns of every fork beside threads; that it works all the same is the point.
    options = ["-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *options, "-c", source, str(project)], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(messages_server.requests) == 2


def test_interrupt_closes_connection(project):
    source = """
import json, signal, sys, threading, time
from claude_force import AgentOrchestrator
from claude_force.testing import MessagesServer, faults

with MessagesServer(faults=[faults.silence_before_first_byte()]) as server:
    orchestrator = AgentOrchestrator(sys.argv[1], base_url=server.base_url)
    def interrupt():
        while not server.in_flight:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        orchestrator.run_agent("python-expert", "x")
    except KeyboardInterrupt:
        orchestrator.close()
        end = time.monotonic() + 30
        while server.in_flight and time.monotonic() < end:
            time.sleep(0.01)
        print(json.dumps({"interrupted": True, "in_flight": server.in_flight}))
"""
    done = run_script(source, str(project))
    assert json.loads(done.stdout) == {"interrupted": True, "in_flight": 0}, done.stderr
