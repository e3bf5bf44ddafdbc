"""What workers share in Postgres: rate limits, budgets, answers. Tests move the database's time by hand."""

import asyncio
import contextlib
import time
import uuid

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

import sqlalchemy as sa
from durable import AGENT, alive, database, echo, orchestrator, rows, until, worker_processes, working
from fleet import MODEL, ended

from claude_force.durable import postgres_backend
from claude_force.durable.calls import SaveResult, StartCall
from claude_force.durable.db_worker import DbWorker
from claude_force.durable.heartbeat import requeue_dead
from claude_force.durable.schema import BUDGETS, EXCEEDED, MADE_BY
from claude_force.durable.shared_cache import SharedCache
from claude_force.durable.shared_limiter import Admit, SetRates, Settle
from claude_force.errors import BudgetExceededError
from claude_force.limits.budget import to_nano_usd
from claude_force.limits.rate_limiter import Rates, TokenCost
from claude_force.testing import MessagesServer, RateLimit

SECRET = "one secret for all the machines"
NOTHING = [None, None, None]


@pytest.fixture
def messages_server(monkeypatch):
    """A server whose answers cost nearly their maximum."""
    with MessagesServer(answer=echo, output_tokens=100) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def made(pg_url):
    """A database with its tables."""
    with database(pg_url) as opened:
        opened.prepare()
        yield opened


@pytest.fixture
def limiter(made):
    """Executes operations at once."""

    class Limiter:
        def do(self, op):
            with made.autocommit() as connection:
                return op.execute(made, connection)

        def earlier(self, seconds):
            """Moves the database's time by so many seconds."""
            with made.begin() as connection:
                connection.execute(sa.text("UPDATE claude_force.cf_buckets SET at = at - :s"), {"s": seconds})
                connection.execute(
                    sa.text("UPDATE claude_force.cf_pauses SET until = until - :s"), {"s": seconds}
                )

    return Limiter()


def admit(need=TokenCost(), worst=0, budgets=(), incarnation="one", model=MODEL):  # noqa: B008
    return Admit(uuid.uuid4().hex, incarnation, model, need, worst, tuple(budgets))


def settle(admission, used=TokenCost(), spent=0, limits=NOTHING, left=NOTHING, pause=0.0):  # noqa: B008
    return Settle(admission.id, used, spent, limits, left, 0.0, pause)


def budget(made, nano):
    identity = uuid.uuid4().hex
    with made.begin() as connection:
        row = {"id": identity, "most": nano, "spent": 0, "reserved": 0, "created": 0.0}
        connection.execute(sa.insert(BUDGETS).values(row))
    return identity


def state(made, identity):
    with made.begin() as connection:
        found = sa.select(BUDGETS.c.spent, BUDGETS.c.reserved).where(BUDGETS.c.id == identity)
        return tuple(connection.execute(found).one())


def test_admits_without_limits(limiter):
    assert limiter.do(admit()) == 0


def test_spreads_set_rate_over_minute(limiter):
    limiter.do(SetRates(Rates(requests=60)))
    began = time.monotonic()
    first = [limiter.do(admit()) for _ in range(6)]
    wait = limiter.do(admit())
    # The bucket fills up while the test asks.
    assert first == [0] * 6 and 0.99 - (time.monotonic() - began) <= wait <= 1.0
    limiter.earlier(1.1)
    assert limiter.do(admit()) == 0


def test_models_share_set_rates(limiter):
    limiter.do(SetRates(Rates(requests=10)))
    assert limiter.do(admit(model="one")) == 0
    assert limiter.do(admit(model="other")) > 5


def test_header_limits_apply_to_model(limiter):
    first = admit()
    limiter.do(first)
    limiter.do(settle(first, limits=[600.0, None, None], left=[31.0, None, None]))
    assert limiter.do(admit()) == 0
    assert limiter.do(admit()) > 0
    assert limiter.do(admit(model="other")) == 0


def test_learned_limit_counts_in_flight(limiter):
    others = [admit() for _ in range(20)]
    first = admit()
    for one in (*others, first):
        limiter.do(one)
    limiter.do(settle(first, limits=[60.0, None, None], left=[21.0, None, None]))
    assert limiter.do(admit()) == pytest.approx(3.0, abs=1.5)


def test_returns_unused_tokens(limiter):
    limiter.do(SetRates(Rates(input_tokens=1000)))
    first = admit(TokenCost(1, 100, 0))
    assert limiter.do(first) == 0 and limiter.do(admit(TokenCost(1, 50, 0))) > 0
    limiter.do(settle(first, used=TokenCost(1, 20, 0)))
    assert limiter.do(admit(TokenCost(1, 50, 0))) == 0


def test_429_pauses_all_workers(limiter):
    first = admit(incarnation="one")
    limiter.do(first)
    limiter.do(settle(first, pause=7.0))
    assert limiter.do(admit(incarnation="other", model="other")) == pytest.approx(7.0, abs=0.5)
    limiter.earlier(7.5)
    assert limiter.do(admit(incarnation="other")) == 0


def test_admits_repeated_attempt_once(limiter, made):
    identity = budget(made, 100)
    first = admit(worst=60, budgets=[identity])
    assert limiter.do(first) == 0 and limiter.do(first) == 0
    assert state(made, identity) == (0, 60)
    limiter.do(settle(first, spent=10))
    limiter.do(settle(first, spent=10))
    assert state(made, identity) == (10, 0)


def test_budget_holds_reserved_and_spent(limiter, made):
    identity = budget(made, 100)
    first = admit(worst=60, budgets=[identity])
    assert limiter.do(first) == 0
    # The reserved amount may be returned; the spent one never is.
    assert limiter.do(admit(worst=60, budgets=[identity])) > 0
    limiter.do(settle(first, spent=50))
    assert limiter.do(admit(worst=60, budgets=[identity])) == EXCEEDED
    assert limiter.do(admit(worst=50, budgets=[identity])) == 0


def test_charges_dead_workers_attempts(limiter, made):
    identity = budget(made, 100)
    for _ in range(2):
        limiter.do(admit(worst=20, budgets=[identity], incarnation="dead"))
    mine = admit(worst=20, budgets=[identity], incarnation="alive")
    limiter.do(mine)
    with made.begin() as connection:
        assert connection.execute(sa.text("SELECT claude_force.cf_bury('dead')")).scalar() == 2
    assert state(made, identity) == (40, 20)


async def test_workers_share_budget(project, pg_url, tmp_path, monkeypatch):
    with MessagesServer(answer=echo, output_tokens=100) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(60)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await fleet.explain_miss(AGENT, "creates the tables")
            with worker_processes(pg_url, tmp_path, "a", "b"):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                one = await fleet.execute_agent(AGENT, "what does it cost?", max_tokens=100)
                options = {"max_tokens": 100, "budget_usd": 20.5 * one.cost}
                results = await fleet.execute_multiple(tasks, **options)

    spent = sum(result.cost or 0.0 for result in results)
    refused = [result.error for result in results if not result.success]
    assert spent <= options["budget_usd"]
    assert refused and all(isinstance(error, BudgetExceededError) for error in refused)
    # A reservation slightly exceeds a call's cost: the last call or two find no room.
    assert sum(result.success for result in results) >= 17
    assert rows(pg_url, "SELECT reserved FROM claude_force.cf_budgets") == [(0,)]


async def test_enqueues_unaffordable_call_once(project, pg_url, messages_server):
    tasks = [(AGENT, "the same")] * 20
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        results = await fleet.execute_multiple(tasks, budget_usd=1e-6, max_tokens=100)
    assert all(isinstance(result.error, BudgetExceededError) for result in results)
    assert rows(pg_url, "SELECT count(*) FROM claude_force.cf_calls") == [(1,)]


def test_charges_unlisted_workers_attempts(limiter, made):
    identity = budget(made, 100)
    limiter.do(admit(worst=20, budgets=[identity], incarnation="unknown"))
    requeue_dead(made, orphans=True)
    assert state(made, identity) == (20, 0)


class TestBudgetOfResumedRun:
    """Resumed by another driver: what the first one paid counts."""

    ROOM = 20

    @pytest.fixture
    async def fleet(self, project, pg_url, messages_server):
        async with working(pg_url), orchestrator(project, pg_url, enable_cache=False) as fleet:
            yield fleet

    async def options(self, fleet):
        """Returns options with a budget for ROOM calls."""
        one = await fleet.execute_agent(AGENT, "what does it cost?", max_tokens=100)
        return {"max_tokens": 100, "budget_usd": (self.ROOM + 0.5) * one.cost, "run_id": "again"}

    async def test_counts_undelivered_answers(self, fleet, project, pg_url, messages_server):
        options, tasks = await self.options(fleet), [(AGENT, f"row {number}") for number in range(40)]
        before = len(messages_server.requests)
        await fleet.execute_multiple(tasks[:10], **{**options, "budget_usd": None})
        await fleet.close()
        change(pg_url, "UPDATE claude_force.cf_results SET delivered = false WHERE run = 'again'")
        async with orchestrator(project, pg_url, enable_cache=False, budget_usd=1000) as other:
            results = await other.execute_multiple(tasks, **options)
            assert other.spent_usd == pytest.approx(sum(result.cost or 0.0 for result in results))
        assert all(result.success for result in results[:10])
        assert sum(result.cost or 0.0 for result in results) <= options["budget_usd"]
        assert len(messages_server.requests) - before <= self.ROOM

    async def test_counts_queued_calls(self, project, pg_url, messages_server):
        tasks = [(AGENT, f"row {number}") for number in range(40)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            async with working(pg_url):
                options = await self.options(fleet)
            generous = {**options, "budget_usd": 1000}
            first = asyncio.ensure_future(fleet.execute_multiple(tasks, **generous))
            await asyncio.to_thread(until, lambda: enqueued(pg_url, generous["budget_usd"]) == 40)
            async with orchestrator(project, pg_url, enable_cache=False) as other:
                second = asyncio.ensure_future(other.execute_multiple(tasks, **options))
                await asyncio.to_thread(until, lambda: enqueued(pg_url, options["budget_usd"]) == 40)
                async with working(pg_url):
                    results = await second
                    await first
        assert sum(result.success for result in results) <= self.ROOM
        assert len(messages_server.requests) <= 1 + self.ROOM

    async def test_charges_answer_once(self, fleet, project, pg_url):
        options = {**await self.options(fleet), "run_id": "once"}
        for _ in range(2):
            (result,) = await fleet.execute_multiple([(AGENT, "a row")], **options)
        assert result.cost == 0
        charged = rows(pg_url, "SELECT most, spent FROM claude_force.cf_budgets")
        assert charged == [(to_nano_usd(options["budget_usd"]), to_nano_usd(result.saved_cost))]


def enqueued(url, usd):
    """Returns how many calls a budget of so much pays for."""
    query = (
        "SELECT count(*) FROM claude_force.cf_calls AS one JOIN claude_force.cf_budgets AS budget "
        "ON position(budget.id IN one.body) > 0 WHERE budget.most = :most"
    )
    return rows(url, query, most=to_nano_usd(usd))[0][0]


def change(url, statement):
    with database(url) as opened, opened.begin() as connection:
        connection.execute(sa.text(statement))


async def test_sqlite_counts_undelivered_answers(project, tmp_path, messages_server):
    url, tasks = f"sqlite:///{tmp_path}/runs.db", [(AGENT, f"row {number}") for number in range(5)]
    async with orchestrator(project, url, enable_cache=False, budget_usd=100) as fleet:
        await fleet.execute_multiple(tasks, run_id="again")
        spent = fleet.spent_usd
    change(url, "UPDATE cf_results SET delivered = false")
    async with orchestrator(project, url, enable_cache=False, budget_usd=100) as fleet:
        for _ in range(2):
            await fleet.execute_multiple(tasks, run_id="again")
        assert fleet.spent_usd == pytest.approx(spent) and spent > 0


async def test_sqlite_charges_cancelled_delivery(project, tmp_path, messages_server, monkeypatch):
    submit_nowait = DbWorker.submit_nowait

    def cancels_caller(worker, op):
        submit_nowait(worker, op)
        if getattr(op, "delivered", ()):
            asyncio.current_task().cancel()

    url, tasks = f"sqlite:///{tmp_path}/runs.db", [(AGENT, "a row")]
    async with orchestrator(project, url, enable_cache=False, budget_usd=100) as fleet:
        await fleet.execute_multiple(tasks, run_id="again")
        spent = fleet.spent_usd
    change(url, "UPDATE cf_results SET delivered = false")
    async with orchestrator(project, url, enable_cache=False, budget_usd=100) as fleet:
        with monkeypatch.context() as patched:
            patched.setattr(DbWorker, "submit_nowait", cancels_caller)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="again"))
        await fleet.execute_multiple(tasks, run_id="again")
        assert fleet.spent_usd == pytest.approx(spent)


@pytest.mark.parametrize("cache", ["use", "off"])
async def test_sqlite_records_answer_of_cancelled_caller(
    project, tmp_path, messages_server, monkeypatch, cache
):
    def cancels_caller(worker, op):
        if isinstance(op, SaveResult):
            asyncio.current_task().cancel()
        return submit(worker, op)

    submit, seen = DbWorker.submit, []
    monkeypatch.setattr(DbWorker, "submit", cancels_caller)
    url, tasks = f"sqlite:///{tmp_path}/runs.db", [(AGENT, "a row")]
    async with orchestrator(project, url, budget_usd=100, observers=[seen.append]) as fleet:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="again", cache=cache))
        assert fleet.spent_usd > 0
        assert [one.result.cost for one in seen] == [pytest.approx(fleet.spent_usd, abs=1e-8), 0.0]
    assert len(messages_server.requests) == 1


@pytest.mark.parametrize("cache", ["use", "off"])
async def test_records_answer_of_cancelled_caller(project, pg_url, messages_server, monkeypatch, cache):
    def settles_and_cancels(result, row):
        settle(result, row)
        # The event loop goes on with the call only after this.
        running.cancel()

    settle, seen = postgres_backend._settle, []
    monkeypatch.setattr(postgres_backend, "_settle", settles_and_cancels)
    more = {"budget_usd": 100, "observers": [seen.append]}
    async with working(pg_url), orchestrator(project, pg_url, **more) as fleet:
        running = asyncio.ensure_future(fleet.execute_agent(AGENT, "x", cache=cache))
        await asyncio.wait([running])
        assert running.cancelled()
        assert [one.result.cost for one in seen] == [pytest.approx(fleet.spent_usd, abs=1e-8)]
        assert fleet.spent_usd > 0


async def test_workers_share_learned_limit(project, pg_url, tmp_path, monkeypatch):
    limit = RateLimit(requests_per_minute=600)
    # Each has many requests in flight that the other can't see.
    with MessagesServer(answer=echo, rate_limit=limit, time_to_first_token=0.3) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(640)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await fleet.explain_miss(AGENT, "creates the tables")
            with worker_processes(pg_url, tmp_path, "a", "b", options=("--concurrency", "60")):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                results = await fleet.execute_multiple(tasks)
        refused = len(server.requests) - sum(result.success for result in results)

    assert all(result.success for result in results)
    assert refused < 0.01 * len(server.requests)
    learned = "SELECT per_minute FROM claude_force.cf_buckets WHERE kind = 0 AND model <> ''"
    assert rows(pg_url, learned) == [(600.0,)]


async def test_workers_share_given_rate(project, pg_url, tmp_path, monkeypatch):
    # Without limit headers a worker knows of the other's requests only through the database.
    with MessagesServer(answer=echo) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(100)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await fleet.explain_miss(AGENT, "creates the tables")
            options = ("--concurrency", "60", "--rpm", "600")
            with worker_processes(pg_url, tmp_path, "a", "b", options=options):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                results = await fleet.execute_multiple(tasks)

    assert all(result.success for result in results)
    at = sorted(received.at for received in server.requests)
    # Six seconds' worth at once, then ten a second; with some tolerance for arrival times.
    most = max(
        last - first + 1 - 10 * (at[last] - at[first]) for first in range(100) for last in range(first, 100)
    )
    assert most <= 60 + 10


@pytest.fixture
def cache(made, monkeypatch):
    monkeypatch.setenv("CLAUDE_CACHE_SECRET", SECRET)
    return SharedCache(made, ttl_hours=1, max_size_mb=1)


def keep(cache, task="a task", response="an answer"):
    answer = {"agent": AGENT, "task": task, "model": MODEL, "response": response, "estimated_cost": 0.5}
    return cache.set_many([answer])


def test_machines_share_answers(cache, made):
    keep(cache)
    hit = SharedCache(made, 1, 1).get(AGENT, "a task", MODEL, {})
    assert hit["response"] == "an answer" and hit["estimated_cost"] == 0.5 and hit["cached"]
    assert cache.get(AGENT, "another task", MODEL, {}) is None


def test_secrets_separate_answers(cache, made, monkeypatch):
    keep(cache)
    monkeypatch.setenv("CLAUDE_CACHE_SECRET", "another secret of another machine")
    other = SharedCache(made, 1, 1)
    assert other.get(AGENT, "a task", MODEL, {}) is None
    keep(other, response="the other one's")
    assert cache.get(AGENT, "a task", MODEL, {})["response"] == "an answer"
    assert other.forged == 0


def test_removes_forged_answer(cache, made):
    keep(cache)
    with made.begin() as connection:
        connection.execute(sa.text("UPDATE claude_force.cf_answers SET sealed = set_byte(sealed, 150, 7)"))
    assert cache.get(AGENT, "a task", MODEL, {}) is None and cache.forged == 1
    with made.begin() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM claude_force.cf_answers")).scalar() == 0


def test_swapped_key_is_forgery(cache, made):
    keep(cache, "one")
    keep(cache, "two", "the answer to two")
    with made.begin() as connection:
        newest = "(SELECT sealed FROM claude_force.cf_answers ORDER BY used DESC LIMIT 1)"
        connection.execute(sa.text(f"UPDATE claude_force.cf_answers SET sealed = {newest}"))
    assert cache.get(AGENT, "one", MODEL, {}) is None


def test_ages_by_database_clock(cache, made, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    keep(cache)
    assert cache.get(AGENT, "a task", MODEL, {})["cache_age_seconds"] < 60
    assert SharedCache(made, ttl_hours=1e-9, max_size_mb=1).get(AGENT, "a task", MODEL, {}) is None


async def test_ttl_can_change(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "a task")
        before = await fleet.explain_miss(AGENT, "a task")
        fleet.cache_ttl_hours = 1e-9
        after = await fleet.explain_miss(AGENT, "a task")
    assert (before["hit"], after["hit"]) == (True, False)


def test_counts_only_stored_answers(cache, made):
    assert keep(cache) == 1
    with made.begin() as connection:
        connection.execute(sa.text("DROP TABLE claude_force.cf_answers"))
    assert keep(cache) == 0


def test_evicts_least_recently_used(cache, made):
    for number in range(60):
        keep(cache, f"task {number}", "x" * 40_000)
        cache.get(AGENT, "task 0", MODEL, {})
    cache.shrink()
    with made.begin() as connection:
        size = connection.execute(sa.text("SELECT sum(size) FROM claude_force.cf_answers")).scalar()
    assert size <= 2**20
    assert cache.get(AGENT, "task 59", MODEL, {}) and cache.get(AGENT, "task 0", MODEL, {})
    assert cache.get(AGENT, "task 1", MODEL, {}) is None


def test_reading_counts_as_use(cache, made):
    for number in range(40):
        keep(cache, f"task {number}", "x" * 20_000)
    driver = SharedCache(made, 1, 1)
    assert driver.get(AGENT, "task 0", MODEL, {})
    driver.close()
    for number in range(40, 80):
        keep(cache, f"task {number}", "x" * 20_000)
    assert cache.get(AGENT, "task 1", MODEL, {}) is None and cache.get(AGENT, "task 0", MODEL, {})


def test_flushes_hits_in_batches(cache, made, pg_url):
    for number in range(300):
        keep(cache, f"task {number}")
    reader = SharedCache(made, 1, 1)
    for number in range(300):
        reader.get(AGENT, f"task {number}", MODEL, {})
    assert rows(pg_url, "SELECT sum(hits) FROM claude_force.cf_answers") == [(256,)]


def test_lease_is_exclusive(cache, made):
    other = SharedCache(made, 1, 1)
    question = (AGENT, "a task", MODEL, {})
    assert cache.acquire_lease(*question)
    assert not other.acquire_lease(*question) and not cache.acquire_lease(*question)
    cache.release_lease(*question)
    assert other.acquire_lease(*question)
    # A lease ends with its connection.
    other.close()
    until(lambda: cache.acquire_lease(*question), "the database releases the lease")
    cache.close()


async def test_workers_share_identical_calls(project, pg_url, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAUDE_CACHE_SECRET", SECRET)
    with MessagesServer(answer=echo, time_to_first_token=0.3) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with orchestrator(project, pg_url) as one, orchestrator(project, pg_url) as other:
            await one.explain_miss(AGENT, "creates the tables")
            with worker_processes(pg_url, tmp_path, "a", "b"):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                tasks = [(AGENT, "the same question")] * 3
                results = await asyncio.gather(one.execute_multiple(tasks), other.execute_multiple(tasks))
    outputs = {result.output for several in results for result in several}
    assert outputs == {"you said: the same question"}
    assert len(server.requests) == 1


async def test_waits_for_absent_database(made, postgres, caplog):
    worker = DbWorker(made)
    assert await worker.submit(admit()) == 0
    postgres.stop()
    waiting = asyncio.ensure_future(worker.submit(admit()))
    assert await ended(lambda: "the database is away" in caplog.text)
    assert not waiting.done()
    await asyncio.to_thread(postgres.start)
    assert await waiting == 0
    await asyncio.to_thread(worker.close)


async def test_waits_for_read_only_database(made, postgres, pg_url, caplog):
    name = pg_url.rpartition("/")[2]
    postgres.sql("postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    made.engine.dispose()
    worker = DbWorker(made)
    waiting = asyncio.ensure_future(worker.submit(SaveResult("run:1:x", "{}", '""', success=True)))
    assert await ended(lambda: "read-only transaction" in caplog.text)
    postgres.sql("postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    await waiting
    await asyncio.to_thread(worker.close)
    assert rows(pg_url, "SELECT id FROM claude_force.cf_results") == [("run:1:x",)]


async def test_driver_sets_rate(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url, rpm=6000) as fleet:
        result = await fleet.execute_agent(AGENT, "anything")
    assert result.success
    limits = rows(pg_url, "SELECT kind, per_minute FROM claude_force.cf_buckets WHERE model = ''")
    assert limits == [(0, 6000.0)]


class TestDurability:
    """Which commits wait for the disk."""

    @staticmethod
    def waits(made, op):
        """Whether the operation's commit waits for the disk."""
        with made.begin() as connection:
            type(op).execute_batch(made, connection, [op])
            return connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() != "off"

    def test_attempt_without_budget_is_async(self, made):
        first = admit()
        assert not self.waits(made, first)
        assert not self.waits(made, settle(first))

    def test_charged_attempt_waits_for_disk(self, made):
        first = admit(worst=5, budgets=[budget(made, 100)])
        assert self.waits(made, first)
        assert self.waits(made, settle(first, spent=5))

    def test_result_waits_for_disk(self, made):
        assert self.waits(made, SaveResult("run:1:x", "{}", '""', success=True))
        assert not self.waits(made, StartCall("run:1:x", 1, "one"))


def test_keeps_newer_tables(made):
    with made.begin() as connection:
        connection.execute(sa.update(MADE_BY).values(version="2.99.0.0"))
    made.prepare()
    with made.begin() as connection:
        assert connection.execute(sa.select(MADE_BY.c.version)).scalar_one() == "2.99.0.0"
