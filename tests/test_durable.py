"""Durable runs: calls go to workers or an SQLite file, and come back."""

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
from types import SimpleNamespace

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

import anyio
import sqlalchemy as sa
from durable import AGENT, alive, database, echo, orchestrator, rows, until, worker_processes, working
from fleet import MODEL

from claude_force import AgentOrchestrator, durable, errors
from claude_force.bulk import Retried, Started
from claude_force.cli.main import main
from claude_force.conversation import ContentBlock, Conversation
from claude_force.durable import Runs, Worker, dbos_runtime
from claude_force.durable.calls import Enqueue
from claude_force.durable.database import parse_url
from claude_force.durable.heartbeat import requeue_dead
from claude_force.durable.serialization import (
    CallRequest,
    dump_outcome,
    dump_request,
    load_outcome,
    load_request,
)
from claude_force.engine.call_settings import CallSettings
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
from claude_force.options import Options
from claude_force.testing import MessagesServer, faults
from claude_force.types import Attempt, Call, Clock, Reply, Usage

KINDS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, ClaudeForceError)]


@pytest.fixture
def messages_server(monkeypatch):
    """A server that answers with the question."""
    with MessagesServer(answer=echo) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


async def test_worker_makes_call(project, empty_pg_url, messages_server: MessagesServer):
    async with working(empty_pg_url), orchestrator(project, empty_pg_url) as fleet:
        result = await fleet.execute_agent(AGENT, "Explain lists")

    assert result.success and "Explain lists" in result.output
    assert result.attempts == 1 and not result.cached and result.cost > 0
    assert len(messages_server.requests) == 1
    assert rows(empty_pg_url, "SELECT worker FROM claude_force.cf_calls") != []


def test_creates_tables_once(empty_pg_url, caplog):
    def look(_):
        with closing(Runs(empty_pg_url)) as runs:
            return runs.list()

    with caplog.at_level(logging.INFO, "claude_force"), ThreadPoolExecutor(4) as looking:
        assert list(looking.map(look, range(4))) == [[]] * 4
    assert caplog.text.count("made the tables") == 1


async def test_results_keep_task_order(project, pg_url, messages_server: MessagesServer):
    tasks = [(AGENT, f"task number {number}") for number in range(40)]
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        results = await fleet.execute_multiple(tasks)

    assert all(f"task number {number}" in result.output for number, result in enumerate(results))
    assert len(messages_server.requests) == 40


async def test_second_run_costs_nothing(project, pg_url, messages_server):
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


def test_sync_runs_on_sqlite(project, tmp_path, messages_server):
    url = f"sqlite:///{tmp_path}/runs.db"
    tasks = [(AGENT, "one"), (AGENT, "two")]
    with AgentOrchestrator(project, durable=url, enable_cache=False, enable_tracking=False) as fleet:
        first = fleet.run_multiple(tasks, run_id="sync")
    # The file is unlocked by now.
    with AgentOrchestrator(project, durable=url, enable_cache=False, enable_tracking=False) as fleet:
        again = fleet.run_multiple(tasks, run_id="sync")
    assert [result.cached for result in (*first, *again)] == [False, False, True, True]
    assert len(messages_server.requests) == 2


async def test_sync_runs_on_workers(project, pg_url, messages_server):
    def drive():
        with AgentOrchestrator(project, durable=pg_url, enable_tracking=False) as fleet:
            return fleet.run_agent(AGENT, "anything")

    async with working(pg_url):
        assert (await asyncio.to_thread(drive)).output == "you said: anything"


async def test_sqlite_makes_calls_in_process(project, tmp_path, messages_server):
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
    """The runs of a database without workers."""
    runs = Runs(pg_url)
    runs.list()
    yield runs
    runs.close()


def sqlite_backend(tmp_path, send):
    """The backend of an orchestrator whose calls `send` makes."""

    async def connect(model, context):
        return SimpleNamespace(send=send)

    return durable.open_backend(f"sqlite:///{tmp_path}/runs.db", connect, Clock())


async def answer(backend):
    """Makes a call, always the same one."""
    call = Call(AGENT, ("definition",), "x", MODEL, 100, {})
    settings = CallSettings(Options(api_key="key", enable_cache=False))
    with anyio.fail_after(10):
        return await backend.execute(call, "off", settings, None, CallContext(call_id="one:0"))


async def test_sqlite_retries_after_fault(tmp_path):
    calls = []

    async def send(call, *_):
        calls.append(call)
        if len(calls) == 1:
            raise RuntimeError("a fault")
        return Reply("an answer", MODEL, Usage(1, 2), "end_turn")

    backend = sqlite_backend(tmp_path, send)
    with pytest.raises(WorkerError, match="RuntimeError: a fault"):
        await answer(backend)
    assert (await answer(backend)).text == "an answer"
    await backend.close()


async def test_sqlite_fails_if_database_refuses(project, tmp_path, messages_server):
    url = f"sqlite:///{tmp_path}/runs.db"
    with closing(Runs(url)) as runs:
        runs.list()
    with database(url) as opened, opened.begin() as connection:
        full = "BEGIN SELECT RAISE(FAIL, 'it is full'); END"
        connection.execute(sa.text(f"CREATE TRIGGER full BEFORE UPDATE ON cf_calls {full}"))
    async with orchestrator(project, url) as fleet:
        with anyio.fail_after(10):
            (failed,) = await fleet.execute_multiple([(AGENT, "x")], run_id="one")
    assert isinstance(failed.error, DatabaseError) and "it is full" in str(failed.error)
    assert messages_server.requests == []


async def test_sqlite_answers_late_caller(tmp_path):
    class Late(dict):
        """The callers as a thread saw them that looked a moment before."""

        looked = False

        def get(self, key, default=None):
            found, self.looked = super().get(key, default) if self.looked else default, True
            return found

    async def send(call, *_):
        return Reply("an answer", MODEL, Usage(1, 2), "end_turn")

    backend = sqlite_backend(tmp_path, send)
    # No public way: DBOS has to offer the call just before its caller is there.
    backend._callers = Late()
    assert (await answer(backend)).text == "an answer"
    await backend.close()


async def test_worker_error_is_typed(project, pg_url, monkeypatch):
    with MessagesServer(faults=[faults.status(400, message="no such thing")]) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with working(pg_url), orchestrator(project, pg_url) as fleet:
            result = await fleet.execute_agent(AGENT, "anything")

    assert isinstance(result.error, RequestRefusedError) and "no such thing" in str(result.error)
    assert result.attempts == 1 and result.error.status == 400 and len(result.timeline) == 1


async def test_resume_retries_failed_row(project, pg_url, monkeypatch):
    with MessagesServer(answer=echo, faults=[faults.status(400), None, None]) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with working(pg_url), orchestrator(project, pg_url) as fleet:
            first = await fleet.execute_multiple([(AGENT, "a row")], run_id="again")
            second = await fleet.execute_multiple([(AGENT, "a row")], run_id="again")

    assert not first[0].success and second[0].success
    assert len(server.requests) == 2


async def test_resume_delivers_unseen_failures(project, pg_url, monkeypatch):
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
                reported = await fleet.execute_multiple(tasks, run_id="again")
    assert all(isinstance(result.error, RequestRefusedError) for result in reported)
    assert len(server.requests) == 20


async def test_worker_uses_own_credentials(project, pg_url, messages_server, monkeypatch):
    async with working(pg_url, api_key="the-workers-key"), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "anything")

    headers = messages_server.requests[0].headers
    assert "the-workers-key" in headers.get("authorization", "") + headers.get("x-api-key", "")
    bodies = rows(pg_url, "SELECT body FROM claude_force.cf_calls")
    assert "test-key" not in str(bodies)


async def test_driver_prices_apply(project, pg_url, messages_server):
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


async def test_refuses_invalid_prices(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "opens the worker's connections")
        fleet.prices = {MODEL: {"input": 3.0}}
        with pytest.raises(InvalidOptionError, match="give input and output"):
            await fleet.execute_agent(AGENT, "anything")
    assert len(messages_server.requests) == 1


async def test_worker_without_credentials(project, pg_url, messages_server, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        result = await fleet.execute_agent(AGENT, "anything")
    assert isinstance(result.error, AuthenticationError)


async def test_deadline_without_worker(project, pg_url):
    async with orchestrator(project, pg_url, deadline_seconds=0.3) as fleet:
        result = await fleet.execute_agent(AGENT, "anything")
    assert isinstance(result.error, DeadlineExceededError)
    # No worker makes the call later.
    assert rows(pg_url, "SELECT success, cancelled FROM claude_force.cf_results") == [(False, True)]


async def test_deadline_while_database_away(project, pg_url, postgres):
    async with orchestrator(project, pg_url, deadline_seconds=0.5) as fleet:
        await fleet.explain_miss(AGENT, "connects")
        postgres.stop()
        try:
            with anyio.fail_after(20):
                result = await fleet.execute_agent(AGENT, "anything")
        finally:
            await asyncio.to_thread(postgres.start)
    assert isinstance(result.error, DeadlineExceededError)


async def test_deadline_before_first_look(project, pg_url, postgres):
    async with orchestrator(project, pg_url, deadline_seconds=0.5, enable_cache=False) as fleet:
        await fleet.explain_miss(AGENT, "connects")
        postgres.stop()
        try:
            with anyio.fail_after(20):
                (result,) = await fleet.execute_multiple([(AGENT, "anything")], run_id="one")
        finally:
            await asyncio.to_thread(postgres.start)
    assert isinstance(result.error, DeadlineExceededError)


async def test_last_caller_sets_deadline(project, pg_url, messages_server, tables):
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


async def test_cancelled_in_queue_is_not_sent(project, pg_url, messages_server, tables):
    async with orchestrator(project, pg_url) as fleet:
        running = asyncio.ensure_future(fleet.execute_agent(AGENT, "anything"))
        await asyncio.to_thread(until, lambda: tables.list() and tables.list()[0].open == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.to_thread(until, lambda: tables.list()[0].cancelled == 1)
        async with working(pg_url):
            assert (await fleet.execute_agent(AGENT, "another")).success

    assert len(messages_server.requests) == 1


def stop(event):
    if isinstance(event, (Started, Retried)):
        raise ValueError("a callback's")


async def test_raising_callback_takes_call_back(project, pg_url, messages_server, tables):
    async with orchestrator(project, pg_url) as fleet:
        with pytest.raises(ValueError, match="a callback's"):
            await fleet.execute_multiple([(AGENT, "x")], run_id="mine", on_event=stop)
        await asyncio.to_thread(until, lambda: tables.list()[0].cancelled == 1)
    assert messages_server.requests == []


async def test_sqlite_raises_what_a_callback_raises(project, tmp_path, messages_server):
    async with orchestrator(project, f"sqlite:///{tmp_path}/runs.db") as fleet:
        with pytest.raises(ValueError, match="a callback's"):
            await fleet.execute_multiple([(AGENT, "x")], run_id="mine", on_event=stop)
        assert (await fleet.execute_multiple([(AGENT, "x")], run_id="mine"))[0].success


async def test_cancel_ends_run(project, pg_url, monkeypatch, tables):
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


async def test_cancel_stops_enqueuing(project, pg_url, tables):
    tasks = [(AGENT, f"row {number}") for number in range(600)]
    async with orchestrator(project, pg_url) as fleet:
        running = asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="mine"))
        await asyncio.to_thread(until, lambda: tables.list() and tables.get("mine").open == 500)
        await asyncio.to_thread(tables.cancel, "mine")
        results = await running

    assert len(results) == 600 and all(isinstance(result.error, CancelledCallError) for result in results)
    assert tables.get("mine").calls < 600


def test_cancel_takes_late_calls(pg_url, tables, monkeypatch):
    def enqueue_and_cancel(database, run_id):
        enqueue(database, "mine:2:b")
        cancel_queued(database, run_id)

    cancel_queued = dbos_runtime.cancel_queued
    monkeypatch.setattr(dbos_runtime, "cancel_queued", enqueue_and_cancel)
    with database(pg_url) as opened:
        enqueue(opened, "mine:1:a")
    assert tables.cancel("mine") == 2
    assert tables.get("mine").open == 0


def enqueue(database, call_id):
    with database.begin() as connection:
        Enqueue.execute_batch(database, connection, [Enqueue(call_id, AGENT, "{}", None)])


async def test_cancel_ends_run_on_sqlite(project, tmp_path, monkeypatch):
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


async def test_runs_count_calls(project, pg_url, monkeypatch, tables):
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


async def test_dbos_stores_no_bodies_or_pickles(project, pg_url, messages_server):
    secret = "a secret task"
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, secret)

    inputs = rows(pg_url, "SELECT inputs FROM claude_force.workflow_input")
    outputs = rows(pg_url, "SELECT output FROM claude_force.workflow_output")
    for (text,) in (*inputs, *outputs):
        json.loads(text)
        assert secret not in text and len(text) < 300
    kinds = rows(pg_url, "SELECT DISTINCT serialization FROM claude_force.workflow_status")
    assert kinds == [("portable_json",)]


async def test_refuses_name_of_live_worker(pg_url, messages_server, monkeypatch):
    monkeypatch.setattr("claude_force.durable.worker.DEAD_SECONDS", -1.0)
    async with working(pg_url, name="mine"):
        with pytest.raises(DatabaseError, match="mine is alive"):
            async with working(pg_url, name="mine"):
                pass


async def test_default_name_is_stable(pg_url, messages_server, tmp_path):
    async with working(pg_url) as worker:
        first = worker.name
    async with working(pg_url) as worker:
        assert worker.name == first and first.endswith("-1")


async def test_refuses_beside_users_dbos(pg_url, postgres):
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
    assert "already runs a DBOS application" in done.stdout, done.stderr
    assert "42 True" in done.stdout
    assert alive(pg_url) == set()


def test_dropped_schema_is_database_error(pg_url, tables):
    assert tables.list() == []
    with database(pg_url) as opened, opened.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA claude_force CASCADE"))
    with pytest.raises(DatabaseError, match="can't be used"):
        tables.list()


async def test_shows_no_password(project, pg_url, tmp_path, caplog, messages_server, tables):
    caplog.set_level(logging.DEBUG)
    password = "pg-secret-of-the-tests"
    with worker_processes(pg_url, tmp_path, "a") as (worker,):
        await asyncio.to_thread(until, lambda: alive(pg_url) == {"a"})
        command = Path(f"/proc/{worker.process.pid}/cmdline").read_text()
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "anything")
    backend = durable.open_backend(pg_url, None, Clock())
    shown = repr(fleet) + str(vars(fleet)) + repr(backend) + str(vars(backend))
    with pytest.raises(DatabaseError) as refused:
        Runs(pg_url.replace(password, "wrong-" + password)).list()
    with pytest.raises(InvalidOptionError) as unreadable:
        parse_url(f"mysql://user:{password}@host/database")

    reported = [worker.text(), command, shown, caplog.text, str(refused.value), str(unreadable.value)]
    assert all(password not in text for text in reported)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://h/d", "sqlite://", "sqlite:///:memory:", 7])
def test_refuses_invalid_url(url):
    with pytest.raises(InvalidOptionError, match="database's URL can't be used"):
        parse_url(url)


def test_url_hides_secrets():
    shown = str(parse_url("postgresql://me:secret@host:5432/db?sslpassword=other&sslmode=require"))
    assert shown == "postgresql://me:***@host:5432/db?sslmode=require"


def test_url_hides_unknown_parameters():
    assert str(parse_url("postgresql://me@host/db?pasword=secret")) == "postgresql://me@host/db"


@pytest.mark.parametrize("password", ["sec@ret", "sec@r/et", "@secret"])
def test_refuses_unescaped_at_sign(password):
    with pytest.raises(InvalidOptionError, match="as %40") as refused:
        parse_url(f"postgresql://me:{password}@host/db")
    assert "et" not in str(refused.value).partition("Give")[0]


def test_sqlite_file_may_have_at_sign():
    assert parse_url("sqlite:////tmp/a@b.db").url.database == "/tmp/a@b.db"


def test_lists_last_runs(project, tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/runs.db"
    with closing(Runs(url)) as tables:
        tables.list()
    with database(url) as opened:
        for number in range(55):
            enqueue(opened, f"run-{number}:0:f")
    assert main(["runs", "list", "--last", "53", "--database", url, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 53


async def test_unwritable_file_error(project, tmp_path):
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(DatabaseError, match=r"taken is not a folder\. Give a file in a folder"):
        fleet = orchestrator(project, f"sqlite:///{tmp_path}/taken/x.db")
        (await fleet.execute_agent(AGENT, "anything")).unwrap()


@pytest.mark.parametrize(
    "wrong", [{"rpm": 0}, {"input_tpm": -5}, {"output_tpm": "many"}, {"grace_seconds": -1}]
)
def test_worker_refuses_invalid_limits(wrong):
    with pytest.raises(InvalidOptionError, match=f"{next(iter(wrong))} is"):
        Worker("postgresql://me@host/db", **wrong)


def test_worker_refuses_sqlite(tmp_path):
    with pytest.raises(InvalidOptionError, match="needs Postgres"):
        Worker(f"sqlite:///{tmp_path}/x.db")


async def test_run_id_needs_durable(project):
    from claude_force import AsyncAgentOrchestrator

    with pytest.raises(InvalidOptionError, match="run_id names a durable run"):
        AsyncAgentOrchestrator(project).stream_multiple([], run_id="mine")


async def test_refuses_invalid_run_id(project, tmp_path):
    fleet = orchestrator(project, f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(InvalidOptionError, match="letters, digits"):
        fleet.stream_multiple([], run_id="a:b")


def test_refuses_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(DatabaseError, match="need Python 3.10 or newer, and this is 3.9"):
        durable.check_installed()


def test_names_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dbos", None)
    with pytest.raises(DatabaseError, match=r"need dbos.*\[durable\]"):
        durable.check_installed()


def test_request_round_trip():
    call = Call(AGENT, ("definition", "contract"), "täsk \ud83d and \x00", "a-model", 100, {"top_k": 3}, "1h")
    order = CallRequest(call, "refresh", True, ("a", "b"), {"input": 1.0, "output": 2.0})
    assert load_request(dump_request(order)) == order


def test_conversation_round_trip():
    block = ContentBlock("tool_use", '{"type":"tool_use","id":"t","name":"Read","input":{"n":  1.50}}', "{")
    conversation = Conversation.start('[{"name": "Read"}]', ["täsk"]).with_answer([block]).without_calls()
    call = Call(AGENT, ("definition",), "täsk", "a-model", 100, conversation=conversation)
    back = load_request(dump_request(CallRequest(call, "use"))).call
    assert vars(back.conversation) == vars(conversation)
    reply = Reply("", "a-model", Usage(3, 4), "tool_use", content=(block,))
    assert load_outcome(*dump_outcome(reply, began=1.0), now=2.0).content == (block,)


def test_plain_calls_are_written_as_before():
    """Workers and drivers of the same format don't know conversations."""
    call = json.loads(dump_request(CallRequest(Call(AGENT, (), "task", "a-model", 100), "use")))["call"]
    figures, _ = dump_outcome(Reply("text", "a-model", Usage()), began=0.0)
    assert "conversation" not in call
    assert "content" not in json.loads(figures)["reply"]


def test_refuses_unserializable_option():
    call = Call(AGENT, ("definition",), "task", "a-model", 100, {"tools": [object()]})
    with pytest.raises(InvalidOptionError, match="can't be written to the database"):
        dump_request(CallRequest(call, "use"))


def test_reply_round_trip():
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
    """An error of this class with all attributes set."""
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
def test_error_round_trip(kind):
    error = of(kind)
    back = load_outcome(*dump_outcome(error, began=100.0), now=105.0)
    assert type(back) is kind and str(back) == str(error)
    assert vars(back) == vars(error)
    # Single flight copies errors, and processes pickle them.
    for other in (copy.copy(back), pickle.loads(pickle.dumps(back))):
        assert (type(other), str(other), vars(other)) == (kind, str(error), vars(error))


def test_error_with_path_attribute():
    error = DatabaseError("what happened")
    error.at = Path("/a/place")
    assert load_outcome(*dump_outcome(error, 0.0), now=0.0).at == "/a/place"


def test_reads_unknown_error():
    figures = json.dumps({"error": {"type": "SomethingNewError", "message": "what happened"}})
    assert "what happened" in str(load_outcome(figures, '""', 0.0))


def test_creates_only_errors():
    figures = json.dumps({"error": {"type": "Any", "message": "x"}})
    assert type(load_outcome(figures, '""', 0.0)).__name__ == "CallError"


async def test_call_id_identifies_call(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url, enable_cache=False) as fleet:
        (first,) = await fleet.execute_multiple([(AGENT, "same")], run_id="one-run")
        (again,) = await fleet.execute_multiple([(AGENT, "same")], run_id="one-run")
        (other,) = await fleet.execute_multiple([(AGENT, "other text")], run_id="one-run")
    assert (first.cached, again.cached, other.cached) == (False, True, False)
    assert len(messages_server.requests) == 2


async def test_resumes_workflow(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        result = await fleet.execute_workflow("review", "Look at this")
        again = await fleet.execute_workflow("review", "Look at this", resume=result.run_id)
    assert result.success and again.success
    assert [one.output for one in again] == [one.output for one in result]
    assert len(messages_server.requests) == 2


async def test_requeues_none_after_restart(pg_url, tables, postgres):
    stale = "INSERT INTO claude_force.cf_workers VALUES ('gone', 'x', 1, 0, 0)"
    postgres.sql(pg_url.rpartition("/")[2], stale)
    tables.close()
    postgres.stop()
    postgres.start()
    with database(pg_url) as opened:
        assert requeue_dead(opened) == []
    assert alive(pg_url) == {"gone"}


@pytest.mark.parametrize("text", ["a NUL \x00 in it", "ünïcödé \U0001f600"])
async def test_any_text_round_trip(text, project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url, enable_cache=False) as fleet:
        result = await fleet.execute_agent(AGENT, text)
    assert result.output == f"you said: {text}", result.error


async def test_drain_finishes_requests_in_flight(project, pg_url, monkeypatch, tables):
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


async def test_close_ends_calls(project, pg_url, monkeypatch, tables):
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


async def test_second_stop_releases_calls(project, pg_url, monkeypatch):
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


async def test_worker_stops_while_database_is_away(pg_url, postgres):
    worker = Worker(pg_url, grace_seconds=1)
    running = asyncio.ensure_future(worker.run())
    await asyncio.to_thread(until, lambda: worker.name is not None)
    await asyncio.to_thread(postgres.stop)
    try:
        worker.stop()
        with anyio.fail_after(40):
            await running
    finally:
        await asyncio.to_thread(postgres.start)


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


async def test_prune_keeps_open_runs(project, pg_url, messages_server, tables):
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


async def test_prune_keeps_undelivered_answers(project, pg_url, messages_server, tables):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_multiple([(AGENT, "one")], run_id="old")
    with database(pg_url) as opened, opened.begin() as connection:
        connection.execute(sa.text("UPDATE claude_force.cf_runs SET created = created - 200000"))
        connection.execute(sa.text("UPDATE claude_force.cf_results SET delivered = false"))
    assert tables.prune(days=1) == 0
    with database(pg_url) as opened, opened.begin() as connection:
        connection.execute(sa.text("UPDATE claude_force.cf_results SET created = created - 100000"))
    assert tables.prune(days=1) == 1
