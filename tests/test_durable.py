"""Durable runs on Postgres: calls go to workers and come back, whatever dies on the way."""

import asyncio
import copy
import json
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

import anyio
import sqlalchemy as sa
from durable import AGENT, alive, crew, database, echo, orchestrator, rows, until, working
from fleet import MODEL

from claude_force import AgentOrchestrator, durable, errors
from claude_force.cli.main import main
from claude_force.durable import Runs, Worker, dbos_runtime, heartbeat
from claude_force.durable.calls import Enqueue, StartCall
from claude_force.durable.database import parse_url
from claude_force.durable.postgres_backend import PostgresBackend
from claude_force.durable.serialization import (
    CallRequest,
    dump_outcome,
    dump_request,
    load_outcome,
    load_request,
)
from claude_force.errors import (
    AuthenticationError,
    CallError,
    CancelledCallError,
    ClaudeForceError,
    ClosedError,
    DatabaseError,
    DeadlineExceededError,
    FileAccessError,
    InputError,
    InvalidOptionError,
    InvalidWorkflowError,
    RequestRefusedError,
    WorkerError,
)
from claude_force.limits.call_context import CallContext
from claude_force.testing import MessagesServer, faults
from claude_force.types import Attempt, Call, Reply, Usage

KINDS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ClaudeForceError)]


@pytest.fixture
def messages_server(monkeypatch):
    """A stand-in whose answers tell which question they are to."""
    with MessagesServer(answer=echo) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


async def test_a_call_is_made_by_a_worker(project, empty_pg_url, messages_server: MessagesServer):
    async with working(empty_pg_url), orchestrator(project, empty_pg_url) as fleet:
        result = await fleet.execute_agent(AGENT, "Explain lists")

    assert result.success and "Explain lists" in result.output
    assert result.attempts == 1 and not result.cached and result.cost > 0
    assert len(messages_server.requests) == 1
    assert rows(empty_pg_url, "SELECT worker FROM claude_force.cf_calls") != []


def test_those_that_find_an_empty_database_at_once_make_its_tables_one_time(empty_pg_url, caplog):
    def look(_):
        with closing(Runs(empty_pg_url)) as runs:
            return runs.list()

    with caplog.at_level(logging.INFO, "claude_force"), ThreadPoolExecutor(4) as looking:
        assert list(looking.map(look, range(4))) == [[]] * 4
    assert caplog.text.count("made the tables") == 1


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


def test_the_sync_face_has_durable_runs_too(project, tmp_path, messages_server):
    url = f"sqlite:///{tmp_path}/runs.db"
    tasks = [(AGENT, "one"), (AGENT, "two")]
    with AgentOrchestrator(project, durable=url, enable_cache=False, enable_tracking=False) as fleet:
        first = fleet.run_multiple(tasks, run_id="sync")
    # The file is free again.
    with AgentOrchestrator(project, durable=url, enable_cache=False, enable_tracking=False) as fleet:
        again = fleet.run_multiple(tasks, run_id="sync")
    assert [result.cached for result in (*first, *again)] == [False, False, True, True]
    assert len(messages_server.requests) == 2


async def test_the_sync_face_hands_calls_to_workers_too(project, pg_url, messages_server):
    def drive():
        with AgentOrchestrator(project, durable=pg_url, enable_tracking=False) as fleet:
            return fleet.run_agent(AGENT, "anything")

    async with working(pg_url):
        assert (await asyncio.to_thread(drive)).output == "you said: anything"


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


@pytest.fixture
def tables(pg_url):
    """A database that is ready, where nobody works."""
    runs = Runs(pg_url)
    runs.list()
    yield runs
    runs.close()


async def test_on_sqlite_a_fault_of_this_package_is_a_failed_call_that_can_be_made_again(
    project, tmp_path, messages_server, monkeypatch
):
    async def fails(*_):
        raise RuntimeError("a fault")

    async with orchestrator(project, f"sqlite:///{tmp_path}/runs.db") as driver:
        with monkeypatch.context() as patched:
            patched.setattr(driver._calls.pool, "sender", fails)
            with anyio.fail_after(10):
                (failed,) = await driver.execute_multiple([(AGENT, "x")], run_id="one", cache="off")
        (again,) = await driver.execute_multiple([(AGENT, "x")], run_id="one", cache="off")
    assert isinstance(failed.error, WorkerError)
    assert "RuntimeError: a fault" in str(failed.error)
    assert again.success


async def test_on_sqlite_a_database_that_refuses_fails_the_call(
    project, tmp_path, messages_server, monkeypatch
):
    def refuses(*_):
        raise DatabaseError("The database refuses: it is full")

    async with orchestrator(project, f"sqlite:///{tmp_path}/runs.db") as driver:
        monkeypatch.setattr(StartCall, "execute_batch", refuses)
        with anyio.fail_after(10):
            (failed,) = await driver.execute_multiple([(AGENT, "x")], run_id="one")
    assert "it is full" in str(failed.error)
    assert messages_server.requests == []


async def test_on_sqlite_who_comes_as_a_call_is_found_that_nobody_waits_for_gets_its_answer(
    project, tmp_path, messages_server
):
    class Late(dict):
        """As a thread sees it that looked a moment before."""

        looked = False

        def get(self, key, default=None):
            found, self.looked = super().get(key, default) if self.looked else default, True
            return found

    async with orchestrator(project, f"sqlite:///{tmp_path}/runs.db") as driver:
        driver._calls.backend._callers = Late()
        (result,) = await driver.execute_multiple([(AGENT, "x")], run_id="one")
    assert result.output == "you said: x"
    assert len(messages_server.requests) == 1


async def test_a_failed_call_has_its_typed_error(project, pg_url, monkeypatch):
    with MessagesServer(faults=[faults.status(400, message="no such thing")]) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with working(pg_url), orchestrator(project, pg_url) as fleet:
            result = await fleet.execute_agent(AGENT, "anything")

    assert isinstance(result.error, RequestRefusedError) and "no such thing" in str(result.error)
    assert result.attempts == 1 and result.error.status == 400 and len(result.timeline) == 1


async def test_a_failed_row_is_made_again_when_the_run_is(project, pg_url, monkeypatch):
    with MessagesServer(answer=echo, faults=[faults.status(400), None, None]) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with working(pg_url), orchestrator(project, pg_url) as fleet:
            first = await fleet.execute_multiple([(AGENT, "a row")], run_id="again")
            second = await fleet.execute_multiple([(AGENT, "a row")], run_id="again")

    assert not first[0].success and second[0].success
    assert len(server.requests) == 2


async def test_failures_that_nobody_was_told_of_are_told_and_not_made_again(project, pg_url, monkeypatch):
    tasks = [(AGENT, f"row {number}") for number in range(20)]
    with MessagesServer(answer=echo, faults=[faults.status(400)] * 20) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with working(pg_url):
            async with orchestrator(project, pg_url) as fleet:
                await fleet.execute_multiple(tasks, run_id="again")
            with database(pg_url) as opened, opened.begin() as connection:
                connection.execute(sa.text("UPDATE claude_force.cf_results SET delivered = false"))
            async with orchestrator(project, pg_url) as fleet:
                told = await fleet.execute_multiple(tasks, run_id="again")
    assert all(isinstance(result.error, RequestRefusedError) for result in told)
    assert len(server.requests) == 20


async def test_a_worker_has_credentials_of_its_own(project, pg_url, messages_server, monkeypatch):
    async with working(pg_url, api_key="the-workers-key"), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "anything")

    headers = messages_server.requests[0].headers
    assert "the-workers-key" in headers.get("authorization", "") + headers.get("x-api-key", "")
    bodies = rows(pg_url, "SELECT body FROM claude_force.cf_calls")
    assert "test-key" not in str(bodies)


async def test_each_driver_has_the_prices_that_it_gives(project, pg_url, messages_server):
    dear, cheap = ({MODEL: {"input": usd, "output": usd}} for usd in (1e6, 1e3))
    async with working(pg_url), orchestrator(project, pg_url, prices=dear) as one:
        async with orchestrator(project, pg_url, prices=cheap) as other, orchestrator(
            project, pg_url
        ) as third:
            first, second, usual = [
                await fleet.execute_agent(AGENT, "the same", cache="off") for fleet in (one, other, third)
            ]
    tokens = first.usage.prompt_tokens + first.usage.output_tokens
    assert first.cost == pytest.approx(tokens) and second.cost == pytest.approx(tokens / 1e3)
    assert usual.cost < second.cost


async def test_prices_that_make_no_sense_are_refused_before_anything_is_paid(
    project, pg_url, messages_server
):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "opens the worker's connections")
        fleet.prices = {MODEL: {"input": 3.0}}
        with pytest.raises(InvalidOptionError, match="give input and output"):
            await fleet.execute_agent(AGENT, "anything")
    assert len(messages_server.requests) == 1


async def test_a_worker_without_credentials_says_so(project, pg_url, messages_server, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        result = await fleet.execute_agent(AGENT, "anything")
    assert isinstance(result.error, AuthenticationError)


async def test_without_a_worker_a_deadline_ends_the_wait(project, pg_url):
    async with orchestrator(project, pg_url, deadline_seconds=0.3) as fleet:
        result = await fleet.execute_agent(AGENT, "anything")
    assert isinstance(result.error, DeadlineExceededError)
    # What nobody waits for is not made later.
    assert rows(pg_url, "SELECT success, cancelled FROM claude_force.cf_results") == [(False, True)]


async def test_a_deadline_ends_the_wait_for_a_database_that_is_away_too(project, pg_url, postgres):
    async with orchestrator(project, pg_url, deadline_seconds=0.5) as fleet:
        await fleet.explain_miss(AGENT, "connects")
        postgres.stop()
        try:
            with anyio.fail_after(20):
                result = await fleet.execute_agent(AGENT, "anything")
        finally:
            await asyncio.to_thread(postgres.start)
    assert isinstance(result.error, DeadlineExceededError)


async def test_a_deadline_of_a_run_holds_before_the_database_has_said_what_it_has(project, pg_url, postgres):
    async with orchestrator(project, pg_url, deadline_seconds=0.5, enable_cache=False) as fleet:
        await fleet.explain_miss(AGENT, "connects")
        postgres.stop()
        try:
            with anyio.fail_after(20):
                (result,) = await fleet.execute_multiple([(AGENT, "anything")], run_id="one")
        finally:
            await asyncio.to_thread(postgres.start)
    assert isinstance(result.error, DeadlineExceededError)


async def test_a_call_that_is_asked_for_again_has_the_time_that_it_is_given_then(
    project, pg_url, messages_server, tables
):
    hurried = orchestrator(project, pg_url, deadline_seconds=600)
    running = asyncio.ensure_future(hurried.execute_multiple([(AGENT, "one")], run_id="again"))
    await asyncio.to_thread(until, lambda: tables.list() and tables.get("again").open == 1)
    with database(pg_url) as opened, opened.begin() as connection:
        connection.execute(sa.text("UPDATE claude_force.cf_calls SET deadline = 1"))
    async with orchestrator(project, pg_url) as patient:
        waiting = asyncio.ensure_future(patient.execute_multiple([(AGENT, "one")], run_id="again"))
        deadline = "SELECT deadline FROM claude_force.cf_calls"
        await asyncio.to_thread(until, lambda: rows(pg_url, deadline) == [(None,)])
        async with working(pg_url):
            assert (await waiting)[0].success and (await running)[0].success
    await hurried.close()


async def test_a_call_that_is_cancelled_while_queued_is_never_sent(project, pg_url, messages_server, tables):
    async with orchestrator(project, pg_url) as fleet:
        running = asyncio.ensure_future(fleet.execute_agent(AGENT, "anything"))
        await asyncio.to_thread(until, lambda: tables.list() and tables.list()[0].open == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.to_thread(until, lambda: tables.list()[0].cancelled == 1)
        async with working(pg_url):
            assert (await fleet.execute_agent(AGENT, "another")).success

    assert len(messages_server.requests) == 1


async def test_a_run_that_is_cancelled_ends_for_its_driver_and_on_the_wire(
    project, pg_url, monkeypatch, tables
):
    with MessagesServer(time_to_first_token=60) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(50)]
        async with working(pg_url, concurrency=4), orchestrator(project, pg_url) as fleet:
            running = asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="mine"))
            await asyncio.to_thread(until, lambda: server.in_flight == 4)
            await asyncio.to_thread(until, lambda: tables.get("mine").open == 50)
            assert await asyncio.to_thread(tables.cancel, "mine") == 50
            results = await running
            await asyncio.to_thread(until, lambda: server.in_flight == 0)

    assert all(isinstance(result.error, CancelledCallError) for result in results)
    assert tables.get("mine")[2:7] == (50, 0, 0, 50, 0)


async def test_rows_that_were_not_handed_over_yet_are_not_begun_once_a_run_is_cancelled(
    project, pg_url, monkeypatch, tables
):
    monkeypatch.setattr(PostgresBackend, "most", 10)
    tasks = [(AGENT, f"row {number}") for number in range(50)]
    async with orchestrator(project, pg_url) as fleet:
        running = asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="mine"))
        await asyncio.to_thread(until, lambda: tables.list() and tables.get("mine").open == 10)
        await asyncio.to_thread(tables.cancel, "mine")
        results = await running

    assert len(results) == 50 and all(isinstance(result.error, CancelledCallError) for result in results)
    assert tables.get("mine").calls < 50


def test_a_call_that_is_handed_over_while_its_run_is_cancelled_is_no_orphan(pg_url, tables, monkeypatch):
    def withdraw(database, run_id):
        hand_over(database, "mine:2:b")
        withdrawn(database, run_id)

    withdrawn = dbos_runtime.cancel_queued
    monkeypatch.setattr(dbos_runtime, "cancel_queued", withdraw)
    with database(pg_url) as opened:
        hand_over(opened, "mine:1:a")
    assert tables.cancel("mine") == 2
    assert tables.get("mine").open == 0


def hand_over(database, call_id):
    with database.begin() as connection:
        Enqueue.execute_batch(database, connection, [Enqueue(call_id, AGENT, "{}", None)])


async def test_on_sqlite_a_run_that_another_command_cancels_ends_for_its_driver_and_on_the_wire(
    project, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path}/runs.db"
    tasks = [(AGENT, f"row {number}") for number in range(20)]
    with MessagesServer(time_to_first_token=60) as server, closing(Runs(url)) as tables:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with orchestrator(project, url, max_concurrent=4) as fleet:
            running = asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="mine"))
            await asyncio.to_thread(until, lambda: server.in_flight == 4)
            assert await asyncio.to_thread(tables.cancel, "mine") == tables.get("mine").calls
            results = await running
            await asyncio.to_thread(until, lambda: server.in_flight == 0)
            assert len(server.requests) == 4

    assert all(isinstance(result.error, CancelledCallError) for result in results)


async def test_runs_tells_how_far_each_is(project, pg_url, monkeypatch, tables):
    with MessagesServer(answer=echo, faults=[faults.status(400)]) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with working(pg_url, name="me", concurrency=1), orchestrator(project, pg_url) as fleet:
            await fleet.execute_multiple([(AGENT, "one"), (AGENT, "two")], run_id="a-run")
            workers = tables.workers()

    found = tables.get("a-run")
    assert (found.calls, found.succeeded, found.failed, found.open) == (2, 1, 1, 0)
    (failure,) = tables.failures("a-run")
    assert failure.agent == AGENT and failure.place in "01" and "400" in failure.error
    assert [(one.name, one.concurrency) for one in workers] == [("me", 1)]
    with pytest.raises(InputError, match="no run 'other'"):
        tables.get("other")


async def test_dbos_holds_no_bodies_and_nothing_pickled(project, pg_url, messages_server):
    secret = "a task that is nobody's business"
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, secret)

    inputs = rows(pg_url, "SELECT inputs FROM claude_force.workflow_input")
    outputs = rows(pg_url, "SELECT output FROM claude_force.workflow_output")
    for (text,) in (*inputs, *outputs):
        json.loads(text)
        assert secret not in text and len(text) < 300
    kinds = rows(pg_url, "SELECT DISTINCT serialization FROM claude_force.workflow_status")
    assert kinds == [("portable_json",)]


async def test_a_second_worker_of_one_name_is_refused(pg_url, messages_server, monkeypatch):
    monkeypatch.setattr("claude_force.durable.worker.DEAD_SECONDS", -1.0)
    async with working(pg_url, name="mine"):
        with pytest.raises(DatabaseError, match="mine is alive"):
            async with working(pg_url, name="mine"):
                pass


async def test_workers_without_a_name_have_stable_ones(pg_url, messages_server, tmp_path):
    async with working(pg_url) as worker:
        first = worker.name
    async with working(pg_url) as worker:
        assert worker.name == first and first.endswith("-1")


async def test_a_worker_is_not_started_beside_a_dbos_of_the_users_own(pg_url, postgres):
    theirs = postgres.new_database()
    program = f"""
import asyncio
from dbos import DBOS
from claude_force.durable import Worker
from claude_force.errors import DatabaseError

DBOS(config={{"name": "theirs", "system_database_url": {theirs!r}}})

@DBOS.workflow()
def theirs(x):
    return x + 1

DBOS.launch()

async def refused():
    try:
        async with Worker({pg_url!r}, name="mine"):
            pass
    except DatabaseError as error:
        return str(error)

print(asyncio.run(refused()))
print(theirs(41), DBOS.application_version != "claude-force-1")
DBOS.destroy()
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert "has a DBOS application of its own" in done.stdout, done.stderr
    assert "42 True" in done.stdout
    assert alive(pg_url) == set()


def test_runs_in_a_database_that_is_of_no_use_any_more_are_an_error_of_the_database(pg_url, tables):
    assert tables.list() == []
    with database(pg_url) as opened, opened.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA claude_force CASCADE"))
    with pytest.raises(DatabaseError, match="can't be used"):
        tables.list()


async def test_no_password_is_shown(project, pg_url, tmp_path, caplog, messages_server, tables):
    caplog.set_level(logging.DEBUG)
    password = "pg-secret-of-the-tests"
    with crew(pg_url, tmp_path, "a") as (worker,):
        await asyncio.to_thread(until, lambda: alive(pg_url) == {"a"})
        command = Path(f"/proc/{worker.process.pid}/cmdline").read_text()
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "anything")
        shown = repr(fleet) + str(vars(fleet)) + repr(vars(fleet._calls)) + repr(vars(fleet._calls.backend))
    with pytest.raises(DatabaseError) as refused:
        Runs(pg_url.replace(password, "wrong-" + password)).list()
    with pytest.raises(InvalidOptionError) as unreadable:
        parse_url(f"mysql://user:{password}@host/database")

    told = [worker.text(), command, shown, caplog.text, str(refused.value), str(unreadable.value)]
    assert all(password not in text for text in told)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://h/d", "sqlite://", "sqlite:///:memory:", 7])
def test_a_url_that_makes_no_sense_is_refused(url):
    with pytest.raises(InvalidOptionError, match="database's URL can't be used"):
        parse_url(url)


def test_a_url_is_shown_without_its_secrets():
    shown = str(parse_url("postgresql://me:secret@host:5432/db?sslpassword=other&sslmode=require"))
    assert shown == "postgresql://me:***@host:5432/db?sslmode=require"


def test_a_parameter_that_is_none_is_not_shown():
    assert str(parse_url("postgresql://me@host/db?pasword=secret")) == "postgresql://me@host/db"


@pytest.mark.parametrize("password", ["sec@ret", "sec@r/et", "@secret"])
def test_a_password_whose_at_sign_is_not_escaped_is_not_shown(password):
    with pytest.raises(InvalidOptionError, match="as %40") as refused:
        parse_url(f"postgresql://me:{password}@host/db")
    assert "et" not in str(refused.value).partition("Give")[0]


def test_a_file_may_have_an_at_sign_in_its_name():
    assert parse_url("sqlite:////tmp/a@b.db").url.database == "/tmp/a@b.db"


def test_as_many_runs_are_listed_as_are_asked_for(project, tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/runs.db"
    with closing(Runs(url)) as tables:
        tables.list()
    with database(url) as opened:
        for number in range(55):
            hand_over(opened, f"run-{number}:0:f")
    assert main(["runs", "list", "--last", "53", "--database", url, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 53


async def test_a_file_that_can_not_be_made_is_told_with_the_mend(project, tmp_path):
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(DatabaseError, match=r"taken is not a folder\. Give a file in a folder"):
        fleet = orchestrator(project, f"sqlite:///{tmp_path}/taken/x.db")
        (await fleet.execute_agent(AGENT, "anything")).unwrap()


@pytest.mark.parametrize(
    "wrong", [{"rpm": 0}, {"input_tpm": -5}, {"output_tpm": "many"}, {"grace_seconds": -1}]
)
def test_limits_that_make_no_sense_never_reach_the_database_that_all_workers_share(wrong):
    with pytest.raises(InvalidOptionError, match=f"{next(iter(wrong))} is"):
        Worker("postgresql://me@host/db", **wrong)


def test_a_worker_on_sqlite_is_refused(tmp_path):
    with pytest.raises(InvalidOptionError, match="needs Postgres"):
        Worker(f"sqlite:///{tmp_path}/x.db")


async def test_a_run_id_needs_a_durable_run(project):
    from claude_force import AsyncAgentOrchestrator

    with pytest.raises(InvalidOptionError, match="run_id names a durable run"):
        AsyncAgentOrchestrator(project).stream_multiple([], run_id="mine")


async def test_a_run_id_is_plain(project, tmp_path):
    fleet = orchestrator(project, f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(InvalidOptionError, match="letters, digits"):
        fleet.stream_multiple([], run_id="a:b")


def test_old_pythons_are_told_what_is_needed(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(DatabaseError, match="need Python 3.10 or newer, and this is 3.9"):
        durable.check_installed()


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(durable, "find_spec", lambda name: None if name == "dbos" else object())
    with pytest.raises(DatabaseError, match=r"need dbos.*\[durable\]"):
        durable.check_installed()


def test_a_call_comes_back_from_its_text_as_it_was():
    call = Call(AGENT, ("definition", "contract"), "täsk \ud83d and \x00", "a-model", 100, {"top_k": 3}, "1h")
    order = CallRequest(call, "refresh", True, ("a", "b"), {"input": 1.0, "output": 2.0})
    assert load_request(dump_request(order)) == order


def test_a_call_that_has_no_text_is_refused():
    call = Call(AGENT, ("definition",), "task", "a-model", 100, {"tools": [object()]})
    with pytest.raises(InvalidOptionError, match="can't be written to the database"):
        dump_request(CallRequest(call, "use"))


def test_an_answer_comes_back_with_its_figures_on_the_drivers_clock():
    timeline = (Attempt(101.0, 102.0, 5, "ServerError"), Attempt(103.0, 105.0, 5))
    reply = Reply(
        "text", "a-model", Usage(3, 4, 5, 6, 7), "end_turn", "req_1", 2, 0.5, 0.1, timeline=timeline
    )
    figures, text = dump_outcome(reply, began=100.0)
    back = load_outcome(figures, text, now=1000.0)
    shifted = (Attempt(996.0, 997.0, 5, "ServerError"), Attempt(998.0, 1000.0, 5))
    assert back.text == "text" and "text" not in json.loads(figures)["reply"]
    assert back.timeline == shifted and back.usage == reply.usage and back.wasted_cost == 0.1


def of(kind):
    """An error of this class, with all that it may say."""
    if kind is InvalidWorkflowError:
        return kind("review", ["no step", "a cycle"])
    if kind is FileAccessError:
        return kind("notes.md", "is a device", "Give a file.", is_outside=True)
    if not issubclass(kind, CallError):
        return kind("what happened")
    error = kind(
        "what happened", advice="Do this.", status=429, kind="a_kind", request_id="req_1", retry_after=1.5
    )
    error.attempts, error.cost = 2, 0.25
    error.timeline = (Attempt(101.0, 102.0, 5, "ServerError"), Attempt(103.0, 105.0, 5, kind.__name__))
    return error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_comes_back_as_what_it_was(kind):
    error = of(kind)
    back = load_outcome(*dump_outcome(error, began=100.0), now=105.0)
    assert type(back) is kind and str(back) == str(error)
    assert vars(back) == vars(error)
    # Single flight gives a copy to each who joined, and processes pass errors on.
    for other in (copy.copy(back), pickle.loads(pickle.dumps(back))):
        assert (type(other), str(other), vars(other)) == (kind, str(error), vars(error))


def test_what_an_error_holds_that_has_no_written_form_does_not_keep_it_back():
    error = DatabaseError("what happened")
    error.at = Path("/a/place")
    assert load_outcome(*dump_outcome(error, 0.0), now=0.0).at == "/a/place"


def test_an_error_that_this_version_does_not_know_is_still_one():
    figures = json.dumps({"error": {"type": "SomethingNewError", "message": "what happened"}})
    assert "what happened" in str(load_outcome(figures, '""', 0.0))


def test_nothing_but_errors_comes_back_by_name():
    figures = json.dumps({"error": {"type": "Any", "message": "x"}})
    assert type(load_outcome(figures, '""', 0.0)).__name__ == "CallError"


async def test_tickets_of_one_run_are_one_call(project, pg_url, messages_server):
    context = CallContext(call_id="one-run:step")
    async with working(pg_url), orchestrator(project, pg_url, enable_cache=False) as fleet:
        first = await fleet._calls.execute(context, AGENT, "same")
        again = await fleet._calls.execute(context, AGENT, "same")
        other = await fleet._calls.execute(context, AGENT, "other text")
    assert (first.cached, again.cached, other.cached) == (False, True, False)
    assert len(messages_server.requests) == 2


async def test_a_workflow_goes_to_workers_and_is_resumed(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        result = await fleet.execute_workflow("review", "Look at this")
        again = await fleet.execute_workflow("review", "Look at this", resume=result.run_id)
    assert result.success and again.success
    assert [one.output for one in again] == [one.output for one in result]
    assert len(messages_server.requests) == 2


async def test_a_worker_does_not_judge_right_after_the_databases_start(pg_url, tables, postgres):
    stale = "INSERT INTO claude_force.cf_workers VALUES ('gone', 'x', 1, 0, 0)"
    postgres.sql(pg_url.rpartition("/")[2], stale)
    tables.close()
    postgres.stop()
    postgres.start()
    assert heartbeat.requeue_dead(tables._database) == []
    assert alive(pg_url) == {"gone"}


@pytest.mark.parametrize("text", ["a NUL \x00 in it", "ünïcödé \U0001f600"])
async def test_any_text_comes_through(text, project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url, enable_cache=False) as fleet:
        result = await fleet.execute_agent(AGENT, text)
    assert result.output == f"you said: {text}", result.error


async def test_a_driver_that_drains_keeps_what_is_on_the_wire_and_takes_the_rest_back(
    project, pg_url, monkeypatch, tables
):
    with MessagesServer(answer=echo, time_to_first_token=0.5) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(30)]
        async with working(pg_url, concurrency=2), orchestrator(project, pg_url) as fleet:
            running = asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="drained"))
            await asyncio.to_thread(until, lambda: server.in_flight == 2)
            await fleet.drain(60)
            results = await running

    assert all(result.success or isinstance(result.error, ClosedError) for result in results)
    assert 2 <= sum(result.success for result in results) < 30
    assert len(server.requests) == sum(result.success for result in results)


async def test_a_driver_that_is_closed_ends_its_calls(project, pg_url, monkeypatch, tables):
    with MessagesServer(time_to_first_token=60) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with working(pg_url):
            fleet = orchestrator(project, pg_url)
            running = asyncio.ensure_future(fleet.execute_agent(AGENT, "anything"))
            await asyncio.to_thread(until, lambda: server.in_flight == 1)
            await fleet.close()
            result = await running
            await asyncio.to_thread(until, lambda: server.in_flight == 0)
    assert isinstance(result.error, ClosedError)


async def test_a_worker_that_is_told_to_stop_twice_gives_back_what_is_on_the_wire(
    project, pg_url, monkeypatch
):
    with MessagesServer(time_to_first_token=600) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        worker = Worker(pg_url, grace_seconds=600, timeout_seconds=600)
        working = asyncio.ensure_future(worker.run())
        async with orchestrator(project, pg_url) as fleet:
            call = asyncio.ensure_future(fleet.execute_agent(AGENT, "anything"))
            await asyncio.to_thread(until, lambda: server.in_flight == 1)
            for _ in range(2):
                worker.stop()
            with anyio.fail_after(40):
                await working
            assert rows(pg_url, "SELECT worker, starts FROM claude_force.cf_calls") == [(None, 0)]
            call.cancel()


async def test_closes_while_database_is_away(project, pg_url, postgres, tables):
    fleet = orchestrator(project, pg_url)
    waiting = asyncio.ensure_future(fleet.execute_agent(AGENT, "anything"))
    await asyncio.to_thread(until, lambda: tables.list() and tables.list()[0].open == 1)
    tables.close()
    postgres.stop()
    try:
        with anyio.fail_after(20):
            await fleet.close()
            assert isinstance((await waiting).error, ClosedError)
    finally:
        await asyncio.to_thread(postgres.start)


async def test_old_runs_are_removed_and_open_ones_stay(project, pg_url, messages_server, tables):
    async with orchestrator(project, pg_url) as fleet:
        async with working(pg_url):
            await fleet.execute_multiple([(AGENT, "one"), (AGENT, "two")], run_id="old")
        waiting = asyncio.ensure_future(fleet.execute_multiple([(AGENT, "three")], run_id="open"))
        await asyncio.to_thread(until, lambda: len(tables.list()) == 2)
        assert tables.prune(days=1) == 0
        assert tables.prune(days=0) == 1
        assert [run.run_id for run in tables.list()] == ["open"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert rows(
        pg_url, "SELECT count(*) FROM claude_force.workflow_status WHERE workflow_uuid LIKE 'old%'"
    ) == [(0,)]


async def test_an_old_run_stays_while_new_answers_of_it_wait_for_their_driver(
    project, pg_url, messages_server, tables
):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_multiple([(AGENT, "one")], run_id="old")
    with database(pg_url) as opened, opened.begin() as connection:
        connection.execute(sa.text("UPDATE claude_force.cf_runs SET created = created - 200000"))
        connection.execute(sa.text("UPDATE claude_force.cf_results SET delivered = false"))
    assert tables.prune(days=1) == 0
    with database(pg_url) as opened, opened.begin() as connection:
        connection.execute(sa.text("UPDATE claude_force.cf_results SET created = created - 100000"))
    assert tables.prune(days=1) == 1
