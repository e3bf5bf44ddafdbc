"""What is asked of the database for several calls at once, or for one call several times."""

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
from claude_force.durable.db_worker import DbOp, DbWorker, Flush
from claude_force.durable.delivery import BudgetCharge, Collect, Delivered
from claude_force.durable.heartbeat import REQUEUE_LOCK, Heartbeat, requeue_dead
from claude_force.durable.schema import WORKERS
from claude_force.durable.shared_limiter import SetRates
from claude_force.limits.rate_limiter import Rates

TICKET, OTHER = "run:1:x", "run:2:y"


@pytest.fixture
def made(pg_url):
    with database(pg_url) as opened:
        yield opened


@pytest.fixture
def together(made):
    """Jobs of one kind in one transaction."""

    def work(*jobs):
        with made.begin() as connection:
            return type(jobs[0]).execute_batch(made, connection, jobs)

    return work


def handed_over(call_id=TICKET, body="{}", budgets=()):
    return Enqueue(call_id, AGENT, body, None, budgets)


def answer(call_id=TICKET, text='"an answer"', generation=None):
    return SaveResult(call_id, '{"reply": {}}', text, success=True, generation=generation)


def failure(call_id=TICKET, generation=None):
    return SaveResult(call_id, '{"error": {}}', '""', success=False, generation=generation)


def results(url):
    return {one.id: (one.success, one.cancelled, one.text) for one in rows(url, _RESULTS)}


_RESULTS = "SELECT id, success, cancelled, text FROM claude_force.cf_results"
_GENERATIONS = "SELECT generation FROM claude_force.cf_calls WHERE id = 'run:1:x'"


class Held(DbOp):
    """Holds up the desk, so that what is asked meanwhile comes as one batch."""

    go = threading.Event()

    @classmethod
    def execute_batch(cls, database, connection, jobs):
        cls.go.wait(30)
        return [None] * len(jobs)


async def in_one_batch(made, *jobs):
    Held.go.clear()
    desk = DbWorker(made)
    desk.submit_nowait(Held())
    for job in jobs:
        desk.submit_nowait(job)
    Held.go.set()
    await desk.submit(Flush())
    await asyncio.to_thread(desk.close)


async def test_a_call_that_is_cancelled_and_then_handed_over_again_is_open(made, pg_url):
    asked = [handed_over(OTHER), handed_over(), save_cancelled(TICKET), handed_over()]
    await in_one_batch(made, *asked)
    assert results(pg_url) == {} and rows(pg_url, _GENERATIONS) == [(2,)]


async def test_a_call_that_is_handed_over_again_and_then_cancelled_is_not(made, pg_url):
    await in_one_batch(made, save_cancelled(OTHER), handed_over(), save_cancelled(TICKET))
    assert set(results(pg_url)) == {TICKET, OTHER}


async def test_a_failure_that_is_known_is_made_good_by_what_is_handed_over_after(made, pg_url, together):
    together(handed_over())
    together(failure())
    await in_one_batch(made, handed_over(OTHER), Collect((), (Delivered(TICKET),)), handed_over())
    assert results(pg_url) == {} and rows(pg_url, _GENERATIONS) == [(2,)]


def test_a_generation_that_was_withdrawn_is_not_begun_beside_the_one_after_it(together):
    together(handed_over())
    together(CancelQueued((TICKET,)))
    together(handed_over())
    # The queue still has the first of them.
    first, third = together(StartCall(TICKET, 1, "w"), StartCall(TICKET, 3, "w"))
    assert first is None and third is not None
    assert together(IsOpen(TICKET, 1), IsOpen(TICKET, 3)) == [False, True]


def test_an_answer_that_is_there_first_outlasts_a_cancellation_in_the_same_moment(together, pg_url):
    together(handed_over())
    together(answer(), save_cancelled(TICKET))
    assert results(pg_url) == {TICKET: (True, False, '"an answer"')}


def test_the_failure_of_a_call_that_was_handed_over_anew_is_none(together, pg_url):
    together(handed_over())
    together(save_cancelled(TICKET))
    together(handed_over())
    together(failure(generation=1))
    assert results(pg_url) == {}
    together(failure(generation=2))
    assert results(pg_url)[TICKET][0] is False


def test_its_answer_is_one_as_it_was_paid_for(together, pg_url):
    together(handed_over())
    together(save_cancelled(TICKET))
    together(handed_over())
    together(answer(generation=1))
    assert results(pg_url)[TICKET][0] is True


def test_an_outcome_is_charged_to_a_budget_the_first_time_that_it_is_delivered(together, pg_url):
    together(handed_over())
    together(answer())
    paid = Collect((), (Delivered(TICKET, (BudgetCharge("mine", 100, 30),)),))
    for _ in range(2):
        together(paid)
    assert rows(pg_url, "SELECT id, most, spent FROM claude_force.cf_budgets") == [("mine", 100, 30)]


def test_what_holds_for_a_call_is_what_the_last_one_asks_until_it_is_begun(together):
    together(handed_over(body="first"))
    together(handed_over(body="second"))
    assert together(StartCall(TICKET, 1, "w"))[0].body == "second"
    together(handed_over(body="third"))
    assert together(StartCall(TICKET, 1, "w"))[0].body == "second"


def test_limits_that_are_set_one_after_the_other_all_hold(together, pg_url):
    together(SetRates(Rates(requests=60)), SetRates(Rates(input_tokens=1000)))
    limits = rows(pg_url, "SELECT kind, per_minute FROM claude_force.cf_buckets ORDER BY kind")
    assert limits == [(0, 60.0), (1, 1000.0)]


def test_what_has_a_result_ends_where_it_still_runs_and_not_what_begins_after(made, together):
    together(handed_over())
    together(handed_over(OTHER))
    together(answer())
    told = []
    heartbeat = Heartbeat(made, "life", 1, lambda: [f"{TICKET}#2", OTHER], told.append)
    assert heartbeat.take_name("w")
    heartbeat.beat()
    assert told == [[f"{TICKET}#2"]]


@pytest.fixture
def hung_up():
    """A server that hangs up on everybody, and who has called."""
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


def test_who_closes_asks_a_database_that_is_away_once_and_not_for_each_thing_left(hung_up):
    url, calls = hung_up
    with database(url) as opened:
        desk = DbWorker(opened)
        desk.submit_nowait(Flush())
        until(lambda: calls, "the database is asked")
        for number in range(30):
            desk.submit_nowait(failure(f"run:{number}:x"))
            desk.submit_nowait(handed_over(f"run:{number}:x"))
        before = len(calls)
        desk.close()
    assert len(calls) - before <= 5


@pytest.fixture
def frozen(pg_url, monkeypatch):
    """A process that stands still in the middle of a transaction."""
    monkeypatch.setattr("claude_force.durable.database._IDLE_SECONDS", 1)
    with database(pg_url) as opened:
        transaction = opened.engine.connect()
        transaction.execute(sa.text(f"SELECT pg_advisory_xact_lock({REQUEUE_LOCK})"))
        yield transaction
        transaction.invalidate()


def test_a_process_that_is_frozen_while_it_looks_after_the_others_does_not_keep_them_from_it(made, frozen):
    with made.begin() as connection:
        gone = {"name": "gone", "life": "gone", "concurrency": 1, "started": 0, "seen": 0}
        connection.execute(sa.insert(WORKERS).values(**gone))

    assert requeue_dead(made) == []
    until(lambda: requeue_dead(made) == [("gone", 0)], "the dead worker is found")


def test_for_a_process_that_was_frozen_in_a_transaction_the_connection_is_lost(made, frozen):
    until(lambda: _is_free(made, REQUEUE_LOCK), "the lock is free")
    with pytest.raises(DBAPIError) as found:
        frozen.execute(sa.text("SELECT 1"))

    assert is_transient(found.value)


def test_who_was_frozen_while_it_looked_after_the_others_puts_back_nothing_by_what_it_saw_before(
    made, postgres, pg_url, monkeypatch
):
    with made.begin() as connection:
        gone = {"name": "gone", "life": "gone", "concurrency": 1, "started": 0, "seen": 0}
        connection.execute(sa.insert(WORKERS).values(**gone))
    put_back = []

    def frozen_as_it_looks(*_):
        postgres.sql(pg_url.rpartition("/")[2], _END_OF_THE_LOCKS_HOLDER)
        return ["what another has by now"]

    monkeypatch.setattr(dbos_runtime, "claimed", frozen_as_it_looks)
    monkeypatch.setattr(dbos_runtime, "put_back", lambda _, found: put_back.extend(found))
    with pytest.raises(DBAPIError):
        requeue_dead(made)
    assert put_back == []


# As the server does to one who is silent in the middle of a transaction.
_END_OF_THE_LOCKS_HOLDER = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"


def _is_free(made, lock):
    with made.begin() as connection:
        return connection.execute(sa.text(f"SELECT pg_try_advisory_xact_lock({lock})")).scalar()
