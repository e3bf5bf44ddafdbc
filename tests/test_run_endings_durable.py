"""Errors that every other call would meet end a durable run, and nothing is sent after them."""

import asyncio

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

from durable import orchestrator, working
from fleet import write_project

from claude_force import errors
from claude_force.testing import MessagesServer, faults

TASKS = [("python-expert", f"Task {number}") for number in range(150)]


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


async def test_401_ends_sqlite_run(project, tmp_path):
    with MessagesServer(faults=lambda _: faults.status(401)) as server:
        url = f"sqlite:///{tmp_path}/runs.db"
        async with orchestrator(project, url, base_url=server.base_url, max_concurrent=4) as fleet:
            results = await fleet.execute_multiple(TASKS)
    assert {type(one.error) for one in results} == {errors.AuthenticationError}
    assert len(server.requests) <= 4


async def test_401_ends_worker_run(project, pg_url):
    wrong = [True]
    with MessagesServer(faults=lambda _: faults.status(401) if wrong[0] else None) as server:
        async with working(pg_url, concurrency=4, api_key="k", base_url=server.base_url):
            async with orchestrator(project, pg_url) as fleet:
                results = await fleet.execute_multiple(TASKS, run_id="the-run")
                assert {type(one.error) for one in results} == {errors.AuthenticationError}
                assert len(server.requests) <= 4
                wrong[0] = False
                # The worker forgets what ended a run some seconds after its last call.
                await asyncio.sleep(2.5)
                again = await fleet.execute_multiple(TASKS[:20], run_id="the-run")
    assert all(one.success for one in again)
