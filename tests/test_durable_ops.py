"""Operations on several calls at once, and several operations on one call."""

import asyncio
import contextlib
import socket
import threading

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

import sqlalchemy as sa
from durable import AGENT, database, rows
from fleet import until
from sqlalchemy.exc import DBAPIError

from claude_force.durable import dbos_runtime
from claude_force.durable.calls import CancelQueued, Enqueue, IsOpen, SaveResult, StartCall, save_cancelled
from claude_force.durable.database import is_transient
from claude_force.durable.db_worker import DbWorker, Flush, SingleDbOp
from claude_force.durable.delivery import BudgetCharge, Collect, Delivered
from claude_force.durable.heartbeat import REQUEUE_LOCK, Heartbeat, requeue_dead
from claude_force.durable.schema import WORKERS
from claude_force.durable.shared_limiter import SetRates
from claude_force.limits.rate_limiter import Rates

CALL, OTHER = "run:1:x", "run:2:y"


@pytest.fixture
def made(pg_url):
    with database(pg_url) as opened:
        yield opened


@pytest.fixture
def execute(made):
    """Executes operations of one kind in one transaction."""

    def run(*ops):
        with made.begin() as connection:
            return type(ops[0]).execute_batch(made, connection, ops)

    return run


def enqueue(call_id=CALL, body="{}", budgets=()):
    return Enqueue(call_id, AGENT, body, None, budgets)


def answer(call_id=CALL, text='"an answer"', generation=None):
    return SaveResult(call_id, '{"reply": {}}', text, success=True, generation=generation)


def failure(call_id=CALL, generation=None):
    return SaveResult(call_id, '{"error": {}}', '""', success=False, generation=generation)


def results(url):
    return {one.id: (one.success, one.cancelled, one.text) for one in rows(url, _RESULTS)}


_RESULTS = "SELECT id, success, cancelled, text FROM claude_force.cf_results"
_GENERATIONS = "SELECT generation FROM claude_force.cf_calls WHERE id = 'run:1:x'"


class Held(SingleDbOp):
    """Blocks the worker, so that what is submitted meanwhile becomes one batch."""

    go = threading.Event()

    def execute(self, database, connection):
        self.go.wait(30)


async def in_one_batch(made, *ops):
    Held.go.clear()
    worker = DbWorker(made)
    worker.submit_nowait(Held())
    for op in ops:
        worker.submit_nowait(op)
    Held.go.set()
    await worker.submit(Flush())
    await asyncio.to_thread(worker.close)


async def test_enqueue_after_cancel_reopens(made, pg_url):
    await in_one_batch(made, enqueue(OTHER), enqueue(), save_cancelled(CALL), enqueue())
    assert results(pg_url) == {} and rows(pg_url, _GENERATIONS) == [(2,)]


async def test_cancel_after_enqueue_ends(made, pg_url):
    await in_one_batch(made, save_cancelled(OTHER), enqueue(), save_cancelled(CALL))
    assert set(results(pg_url)) == {CALL, OTHER}


async def test_enqueue_resets_delivered_failure(made, pg_url, execute):
    execute(enqueue())
    execute(failure())
    await in_one_batch(made, enqueue(OTHER), Collect((), (Delivered(CALL),)), enqueue())
    assert results(pg_url) == {} and rows(pg_url, _GENERATIONS) == [(2,)]


def test_starts_only_current_generation(execute):
    execute(enqueue())
    execute(CancelQueued((CALL,)))
    execute(enqueue())
    # The queue still has the first generation.
    first, third = execute(StartCall(CALL, 1, "w"), StartCall(CALL, 3, "w"))
    assert first is None and third is not None
    assert execute(IsOpen(CALL, 1), IsOpen(CALL, 3)) == [False, True]


def test_first_result_counts(execute, pg_url):
    execute(enqueue())
    execute(answer(), save_cancelled(CALL))
    assert results(pg_url) == {CALL: (True, False, '"an answer"')}


def test_drops_stale_failure(execute, pg_url):
    execute(enqueue())
    execute(save_cancelled(CALL))
    execute(enqueue())
    execute(failure(generation=1))
    assert results(pg_url) == {}
    execute(failure(generation=2))
    assert results(pg_url)[CALL][0] is False


def test_saves_stale_answer(execute, pg_url):
    execute(enqueue())
    execute(save_cancelled(CALL))
    execute(enqueue())
    execute(answer(generation=1))
    assert results(pg_url)[CALL][0] is True


def test_charges_first_delivery_only(execute, pg_url):
    execute(enqueue())
    execute(answer())
    paid = Collect((), (Delivered(CALL, (BudgetCharge("mine", 100, 30),)),))
    for _ in range(2):
        execute(paid)
    assert rows(pg_url, "SELECT id, most, spent FROM claude_force.cf_budgets") == [("mine", 100, 30)]


def test_last_body_before_start_counts(execute):
    execute(enqueue(body="first"))
    execute(enqueue(body="second"))
    assert execute(StartCall(CALL, 1, "w"))[0].body == "second"
    execute(enqueue(body="third"))
    assert execute(StartCall(CALL, 1, "w"))[0].body == "second"


def test_sets_rates_one_by_one(execute, pg_url):
    execute(SetRates(Rates(requests=60)), SetRates(Rates(input_tokens=1000)))
    limits = rows(pg_url, "SELECT kind, per_minute FROM claude_force.cf_buckets ORDER BY kind")
    assert limits == [(0, 60.0), (1, 1000.0)]


def test_heartbeat_reports_superseded(made, execute):
    execute(enqueue())
    execute(enqueue(OTHER))
    execute(answer())
    superseded = []
    heartbeat = Heartbeat(made, "life", 1, lambda: [f"{CALL}#2", OTHER], superseded.append)
    assert heartbeat.take_name("w")
    heartbeat.beat()
    assert superseded == [[f"{CALL}#2"]]


@pytest.fixture
def hung_up():
    """A server that closes each connection, and a list of the clients."""
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    calls.append(connection.getpeername())
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield f"postgresql://someone@127.0.0.1:{server.getsockname()[1]}/any", calls


def test_close_asks_absent_database_once(hung_up):
    url, calls = hung_up
    with database(url) as opened:
        worker = DbWorker(opened)
        worker.submit_nowait(Flush())
        until(lambda: calls, "the database is asked")
        for number in range(30):
            worker.submit_nowait(failure(f"run:{number}:x"))
            worker.submit_nowait(enqueue(f"run:{number}:x"))
        before = len(calls)
        worker.close()
    assert len(calls) - before <= 5


@pytest.fixture
def frozen(pg_url, monkeypatch):
    """A process that is frozen in the middle of a transaction."""
    monkeypatch.setattr("claude_force.durable.database._IDLE_SECONDS", 1)
    with database(pg_url) as opened:
        transaction = opened.engine.connect()
        transaction.execute(sa.text(f"SELECT pg_advisory_xact_lock({REQUEUE_LOCK})"))
        yield transaction
        transaction.invalidate()


def test_frozen_process_loses_lock(made, frozen):
    with made.begin() as connection:
        gone = {"name": "gone", "life": "gone", "concurrency": 1, "started": 0, "seen": 0}
        connection.execute(sa.insert(WORKERS).values(**gone))

    assert requeue_dead(made) == []
    until(lambda: requeue_dead(made) == [("gone", 0)], "the dead worker is found")


def test_frozen_transaction_is_transient_error(made, frozen):
    until(lambda: _is_free(made, REQUEUE_LOCK), "the lock is free")
    with pytest.raises(DBAPIError) as found:
        frozen.execute(sa.text("SELECT 1"))

    assert is_transient(found.value)


def test_frozen_process_requeues_nothing(made, postgres, pg_url, monkeypatch):
    with made.begin() as connection:
        gone = {"name": "gone", "life": "gone", "concurrency": 1, "started": 0, "seen": 0}
        connection.execute(sa.insert(WORKERS).values(**gone))
    put_back = []

    def frozen_meanwhile(*_):
        postgres.sql(pg_url.rpartition("/")[2], _END_LOCK_HOLDER)
        return ["what another has by now"]

    monkeypatch.setattr(dbos_runtime, "claimed", frozen_meanwhile)
    monkeypatch.setattr(dbos_runtime, "put_back", lambda _, found: put_back.extend(found))
    with pytest.raises(DBAPIError):
        requeue_dead(made)
    assert put_back == []


# As the server ends a transaction that is idle for too long.
_END_LOCK_HOLDER = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"


def _is_free(made, lock):
    with made.begin() as connection:
        return connection.execute(sa.text(f"SELECT pg_try_advisory_xact_lock({lock})")).scalar()
