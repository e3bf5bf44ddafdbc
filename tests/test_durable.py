"""Durable runs on Postgres: calls go to workers and come back, whatever dies on the way."""

import sys

import pytest

if sys.version_info < (3, 10):
    pytest.skip("durable runs need Python 3.10", allow_module_level=True)

from durable import AGENT, orchestrator, rows, working

from claude_force.testing import MessagesServer


def echo(body):
    return "you said: " + body["messages"][-1]["content"]


@pytest.fixture
def messages_server(monkeypatch):
    """A stand-in whose answers tell which question they are to."""
    with MessagesServer(answer=echo) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


async def test_a_call_is_made_by_a_worker(project, pg_url, messages_server: MessagesServer):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        result = await fleet.execute_agent(AGENT, "Explain lists")

    assert result.success and "Explain lists" in result.output
    assert result.attempts == 1 and not result.cached and result.cost > 0
    assert len(messages_server.requests) == 1
    assert rows(pg_url, "SELECT worker FROM claude_force.cf_calls") != []


async def test_many_calls_come_back_in_order(project, pg_url, messages_server: MessagesServer):
    tasks = [(AGENT, f"task number {number}") for number in range(40)]
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        results = await fleet.execute_multiple(tasks)

    assert all(f"task number {number}" in result.output for number, result in enumerate(results))
    assert len(messages_server.requests) == 40


async def test_a_run_that_is_given_again_costs_nothing(project, pg_url, messages_server):
    tasks = [(AGENT, f"task {number}") for number in range(5)]
    async with working(pg_url):
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            first = await fleet.execute_multiple(tasks, run_id="twice")
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            again = await fleet.execute_multiple(tasks, run_id="twice")

    assert len(messages_server.requests) == 5
    assert [result.output for result in again] == [result.output for result in first]
    assert all(result.cached and result.cost == 0 and result.saved_cost > 0 for result in again)
    assert sum(result.cost for result in first) == pytest.approx(sum(result.saved_cost for result in again))


async def test_on_sqlite_calls_are_made_in_this_process(project, tmp_path, messages_server):
    url = f"sqlite:///{tmp_path}/runs.db"
    tasks = [(AGENT, f"task {number}") for number in range(30)]
    async with orchestrator(project, url, enable_cache=False) as fleet:
        first = await fleet.execute_multiple(tasks, run_id="local")
    async with orchestrator(project, url, enable_cache=False) as fleet:
        again = await fleet.execute_multiple(tasks, run_id="local")

    assert len(messages_server.requests) == 30
    assert all(result.cost > 0 and not result.cached for result in first)
    assert [result.output for result in again] == [f"you said: task {number}" for number in range(30)]
    assert all(result.cached and result.cost == 0 for result in again)
