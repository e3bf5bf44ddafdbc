"""What workers share in Postgres: pace, budgets, answers. Time is the database's, and set by hand here."""

import asyncio
import contextlib
import uuid

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

import sqlalchemy as sa
from durable import AGENT, alive, crew, database, echo, orchestrator, rows, until, working
from fleet import MODEL, ended

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
    """A stand-in whose answers cost what they may cost at most, or nearly so."""
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
def desk(made):
    """Jobs on it, without a thread."""

    class Now:
        def submit(self, op):
            with made.autocommit() as connection:
                return type(op).execute_batch(made, connection, [op])[0]

        def earlier(self, seconds):
            """As if so many seconds had passed."""
            with made.begin() as connection:
                connection.execute(sa.text("UPDATE claude_force.cf_buckets SET at = at - :s"), {"s": seconds})
                connection.execute(
                    sa.text("UPDATE claude_force.cf_pauses SET until = until - :s"), {"s": seconds}
                )

    return Now()


def admit(need=TokenCost(), worst=0, budgets=(), life="one", model=MODEL):  # noqa: B008
    return Admit(uuid.uuid4().hex, life, model, need, worst, tuple(budgets))


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


def test_without_limits_an_attempt_goes_at_once(desk):
    assert desk.submit(admit()) == 0


def test_a_limit_set_by_hand_is_spread_over_the_minute(desk):
    desk.submit(SetRates(Rates(requests=60)))
    first = [desk.submit(admit()) for _ in range(6)]
    wait = desk.submit(admit())
    assert first == [0] * 6 and wait == pytest.approx(1.0, abs=0.2)
    desk.earlier(1.1)
    assert desk.submit(admit()) == 0


def test_models_share_what_is_set_by_hand(desk):
    desk.submit(SetRates(Rates(requests=10)))
    assert desk.submit(admit(model="one")) == 0
    assert desk.submit(admit(model="other")) > 5


def test_what_headers_tell_holds_for_their_model(desk):
    first = admit()
    desk.submit(first)
    desk.submit(settle(first, limits=[600.0, None, None], left=[31.0, None, None]))
    assert desk.submit(admit()) == 0
    assert desk.submit(admit()) > 0
    assert desk.submit(admit(model="other")) == 0


def test_what_is_under_way_is_taken_off_a_limit_that_is_learned(desk):
    others = [admit() for _ in range(20)]
    first = admit()
    for one in (*others, first):
        desk.submit(one)
    desk.submit(settle(first, limits=[60.0, None, None], left=[21.0, None, None]))
    assert desk.submit(admit()) == pytest.approx(3.0, abs=1.5)


def test_tokens_that_were_not_used_are_given_back(desk):
    desk.submit(SetRates(Rates(input_tokens=1000)))
    first = admit(TokenCost(1, 100, 0))
    assert desk.submit(first) == 0 and desk.submit(admit(TokenCost(1, 50, 0))) > 0
    desk.submit(settle(first, used=TokenCost(1, 20, 0)))
    assert desk.submit(admit(TokenCost(1, 50, 0))) == 0


def test_one_workers_429_pauses_all(desk):
    first = admit(life="one")
    desk.submit(first)
    desk.submit(settle(first, pause=7.0))
    assert desk.submit(admit(life="other", model="other")) == pytest.approx(7.0, abs=0.5)
    desk.earlier(7.5)
    assert desk.submit(admit(life="other")) == 0


def test_an_attempt_that_is_asked_for_twice_is_counted_once(desk, made):
    identity = budget(made, 100)
    first = admit(worst=60, budgets=[identity])
    assert desk.submit(first) == 0 and desk.submit(first) == 0
    assert state(made, identity) == (0, 60)
    desk.submit(settle(first, spent=10))
    desk.submit(settle(first, spent=10))
    assert state(made, identity) == (10, 0)


def test_a_budget_holds_what_is_reserved_and_what_is_spent(desk, made):
    identity = budget(made, 100)
    first = admit(worst=60, budgets=[identity])
    assert desk.submit(first) == 0
    # Others may give back enough of it; then nobody can.
    assert desk.submit(admit(worst=60, budgets=[identity])) > 0
    desk.submit(settle(first, spent=50))
    assert desk.submit(admit(worst=60, budgets=[identity])) == EXCEEDED
    assert desk.submit(admit(worst=50, budgets=[identity])) == 0


def test_what_a_dead_worker_had_reserved_counts_at_its_worst(desk, made):
    identity = budget(made, 100)
    for _ in range(2):
        desk.submit(admit(worst=20, budgets=[identity], life="dead"))
    mine = admit(worst=20, budgets=[identity], life="alive")
    desk.submit(mine)
    with made.begin() as connection:
        assert connection.execute(sa.text("SELECT claude_force.cf_bury('dead')")).scalar() == 2
    assert state(made, identity) == (40, 20)


async def test_a_budget_is_one_for_all_workers(project, pg_url, tmp_path, monkeypatch):
    with MessagesServer(answer=echo, output_tokens=100) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(60)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await fleet.explain_miss(AGENT, "makes the tables")
            with crew(pg_url, tmp_path, "a", "b"):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                one = await fleet.execute_agent(AGENT, "what does it cost?", max_tokens=100)
                options = {"max_tokens": 100, "budget_usd": 20.5 * one.cost}
                results = await fleet.execute_multiple(tasks, **options)

    spent = sum(result.cost or 0.0 for result in results)
    refused = [result.error for result in results if not result.success]
    assert spent <= options["budget_usd"]
    assert refused and all(isinstance(error, BudgetExceededError) for error in refused)
    # A reservation is a little above what a call costs in the end: the last call or two find no room.
    assert sum(result.success for result in results) >= 17
    assert rows(pg_url, "SELECT reserved FROM claude_force.cf_budgets") == [(0,)]


async def test_identical_calls_that_a_budget_has_no_room_for_are_handed_over_once(
    project, pg_url, messages_server
):
    tasks = [(AGENT, "the same")] * 20
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        results = await fleet.execute_multiple(tasks, budget_usd=1e-6, max_tokens=100)
    assert all(isinstance(result.error, BudgetExceededError) for result in results)
    assert rows(pg_url, "SELECT count(*) FROM claude_force.cf_calls") == [(1,)]


def test_what_a_worker_had_reserved_that_is_not_even_listed_counts_at_its_worst(desk, made):
    identity = budget(made, 100)
    desk.submit(admit(worst=20, budgets=[identity], life="unknown"))
    requeue_dead(made, orphans=True)
    assert state(made, identity) == (20, 0)


class TestABudgetOfARunThatIsBegunAgain:
    """By another driver, as after the end of the first: what was paid for it is paid."""

    ROOM = 20

    @pytest.fixture
    async def fleet(self, project, pg_url, messages_server):
        async with working(pg_url), orchestrator(project, pg_url, enable_cache=False) as fleet:
            yield fleet

    async def options(self, fleet):
        """Room for so many calls."""
        one = await fleet.execute_agent(AGENT, "what does it cost?", max_tokens=100)
        return {"max_tokens": 100, "budget_usd": (self.ROOM + 0.5) * one.cost, "run_id": "again"}

    async def test_answers_that_nobody_was_told_of_count(self, fleet, project, pg_url, messages_server):
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

    async def test_what_the_first_driver_left_in_the_queue_counts(self, project, pg_url, messages_server):
        tasks = [(AGENT, f"row {number}") for number in range(40)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            async with working(pg_url):
                options = await self.options(fleet)
            generous = {**options, "budget_usd": 1000}
            first = asyncio.ensure_future(fleet.execute_multiple(tasks, **generous))
            await asyncio.to_thread(until, lambda: handed_over(pg_url, generous["budget_usd"]) == 40)
            async with orchestrator(project, pg_url, enable_cache=False) as other:
                second = asyncio.ensure_future(other.execute_multiple(tasks, **options))
                await asyncio.to_thread(until, lambda: handed_over(pg_url, options["budget_usd"]) == 40)
                async with working(pg_url):
                    results = await second
                    await first
        assert sum(result.success for result in results) <= self.ROOM
        assert len(messages_server.requests) <= 1 + self.ROOM

    async def test_an_answer_is_charged_once_whoever_asks_again(self, fleet, project, pg_url):
        options = {**await self.options(fleet), "run_id": "once"}
        for _ in range(2):
            (result,) = await fleet.execute_multiple([(AGENT, "a row")], **options)
        assert result.cost == 0
        charged = rows(pg_url, "SELECT most, spent FROM claude_force.cf_budgets")
        assert charged == [(to_nano_usd(options["budget_usd"]), to_nano_usd(result.saved_cost))]


def handed_over(url, usd):
    """How many queued calls are to be charged to the budget of so much."""
    query = (
        "SELECT count(*) FROM claude_force.cf_calls AS one JOIN claude_force.cf_budgets AS budget "
        "ON position(budget.id IN one.body) > 0 WHERE budget.most = :most"
    )
    return rows(url, query, most=to_nano_usd(usd))[0][0]


def change(url, statement):
    with database(url) as opened, opened.begin() as connection:
        connection.execute(sa.text(statement))


async def test_on_sqlite_answers_that_nobody_was_told_of_count_for_the_budget(
    project, tmp_path, messages_server
):
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


async def test_two_workers_keep_one_rate_limit(project, pg_url, tmp_path, monkeypatch):
    limit = RateLimit(requests_per_minute=600)
    # Each has more on the wire than the other can know of by itself.
    with MessagesServer(answer=echo, rate_limit=limit, time_to_first_token=0.3) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(640)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await fleet.explain_miss(AGENT, "makes the tables")
            with crew(pg_url, tmp_path, "a", "b", options=("--concurrency", "60")):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                results = await fleet.execute_multiple(tasks)
        refused = len(server.requests) - sum(result.success for result in results)

    assert all(result.success for result in results)
    assert refused < 0.01 * len(server.requests)
    learned = "SELECT per_minute FROM claude_force.cf_buckets WHERE kind = 0 AND model <> ''"
    assert rows(pg_url, learned) == [(600.0,)]


async def test_a_limit_that_each_of_two_workers_is_given_is_one_limit(project, pg_url, tmp_path, monkeypatch):
    # No headers tell of a limit: a worker knows of the other's requests by the database alone.
    with MessagesServer(answer=echo) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        tasks = [(AGENT, f"row {number}") for number in range(100)]
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await fleet.explain_miss(AGENT, "makes the tables")
            options = ("--concurrency", "60", "--rpm", "600")
            with crew(pg_url, tmp_path, "a", "b", options=options):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                results = await fleet.execute_multiple(tasks)

    assert all(result.success for result in results)
    at = sorted(received.at for received in server.requests)
    # A bucket of six seconds' worth, and ten a second; some arrive together that were not admitted together.
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


def test_what_one_machine_keeps_another_finds(cache, made):
    keep(cache)
    hit = SharedCache(made, 1, 1).get(AGENT, "a task", MODEL)
    assert hit["response"] == "an answer" and hit["estimated_cost"] == 0.5 and hit["cached"]
    assert cache.get(AGENT, "another task", MODEL) is None


def test_machines_with_secrets_of_their_own_have_answers_of_their_own(cache, made, monkeypatch):
    keep(cache)
    monkeypatch.setenv("CLAUDE_CACHE_SECRET", "another secret of another machine")
    other = SharedCache(made, 1, 1)
    assert other.get(AGENT, "a task", MODEL) is None
    keep(other, response="the other one's")
    assert cache.get(AGENT, "a task", MODEL)["response"] == "an answer"
    assert other.forged == 0


def test_a_forged_answer_is_removed_and_a_miss(cache, made):
    keep(cache)
    with made.begin() as connection:
        connection.execute(sa.text("UPDATE claude_force.cf_answers SET sealed = set_byte(sealed, 150, 7)"))
    assert cache.get(AGENT, "a task", MODEL) is None and cache.forged == 1
    with made.begin() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM claude_force.cf_answers")).scalar() == 0


def test_an_answer_under_another_key_is_a_forgery(cache, made):
    keep(cache, "one")
    keep(cache, "two", "the answer to two")
    with made.begin() as connection:
        newest = "(SELECT sealed FROM claude_force.cf_answers ORDER BY used DESC LIMIT 1)"
        connection.execute(sa.text(f"UPDATE claude_force.cf_answers SET sealed = {newest}"))
    assert cache.get(AGENT, "one", MODEL) is None


def test_an_answer_grows_old_by_the_databases_clock(cache, made, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    keep(cache)
    assert cache.get(AGENT, "a task", MODEL)["cache_age_seconds"] < 60
    assert SharedCache(made, ttl_hours=1e-9, max_size_mb=1).get(AGENT, "a task", MODEL) is None


async def test_how_long_an_answer_is_good_for_can_be_changed_at_any_time(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url) as fleet:
        await fleet.execute_agent(AGENT, "a task")
        before = await fleet.explain_miss(AGENT, "a task")
        fleet.cache_ttl_hours = 1e-9
        after = await fleet.explain_miss(AGENT, "a task")
    assert (before["hit"], after["hit"]) == (True, False)


def test_what_a_database_that_is_away_did_not_keep_is_not_counted_as_kept(cache, made):
    assert keep(cache) == 1
    with made.begin() as connection:
        connection.execute(sa.text("DROP TABLE claude_force.cf_answers"))
    assert keep(cache) == 0


def test_the_shared_cache_keeps_to_its_size_and_to_what_was_used_last(cache, made):
    for number in range(60):
        keep(cache, f"task {number}", "x" * 40_000)
        cache.get(AGENT, "task 0", MODEL)
    cache.shrink()
    with made.begin() as connection:
        size = connection.execute(sa.text("SELECT sum(size) FROM claude_force.cf_answers")).scalar()
    assert size <= 2**20
    assert cache.get(AGENT, "task 59", MODEL) and cache.get(AGENT, "task 0", MODEL)
    assert cache.get(AGENT, "task 1", MODEL) is None


def test_what_a_driver_only_reads_counts_as_used(cache, made):
    for number in range(40):
        keep(cache, f"task {number}", "x" * 20_000)
    driver = SharedCache(made, 1, 1)
    assert driver.get(AGENT, "task 0", MODEL)
    driver.close()
    for number in range(40, 80):
        keep(cache, f"task {number}", "x" * 20_000)
    assert cache.get(AGENT, "task 1", MODEL) is None and cache.get(AGENT, "task 0", MODEL)


def test_what_is_only_read_is_told_before_it_grows(cache, made, pg_url):
    for number in range(300):
        keep(cache, f"task {number}")
    reader = SharedCache(made, 1, 1)
    for number in range(300):
        reader.get(AGENT, f"task {number}", MODEL)
    assert rows(pg_url, "SELECT sum(hits) FROM claude_force.cf_answers") == [(256,)]


def test_one_of_many_machines_finds_an_answer(cache, made):
    other = SharedCache(made, 1, 1)
    question = (AGENT, "a task", MODEL)
    assert cache.acquire_lease(*question)
    assert not other.acquire_lease(*question) and not cache.acquire_lease(*question)
    cache.release_lease(*question)
    assert other.acquire_lease(*question)
    # The end of its connection is the end of its lease.
    other.close()
    until(lambda: cache.acquire_lease(*question), "the database lets go of it")
    cache.close()


async def test_identical_calls_of_several_workers_are_paid_once(project, pg_url, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAUDE_CACHE_SECRET", SECRET)
    with MessagesServer(answer=echo, time_to_first_token=0.3) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        async with orchestrator(project, pg_url) as one, orchestrator(project, pg_url) as other:
            await one.explain_miss(AGENT, "makes the tables")
            with crew(pg_url, tmp_path, "a", "b"):
                await asyncio.to_thread(until, lambda: alive(pg_url) == {"a", "b"})
                tasks = [(AGENT, "the same question")] * 3
                results = await asyncio.gather(one.execute_multiple(tasks), other.execute_multiple(tasks))
    outputs = {result.output for several in results for result in several}
    assert outputs == {"you said: the same question"}
    assert len(server.requests) == 1


async def test_work_waits_for_a_database_that_is_away(made, postgres, caplog):
    desk = DbWorker(made)
    assert await desk.submit(admit()) == 0
    postgres.stop()
    waiting = asyncio.ensure_future(desk.submit(admit()))
    assert await ended(lambda: "the database is away" in caplog.text)
    assert not waiting.done()
    await asyncio.to_thread(postgres.start)
    assert await waiting == 0
    await asyncio.to_thread(desk.close)


async def test_an_outcome_waits_for_a_database_that_takes_no_writing(made, postgres, pg_url, caplog):
    name = pg_url.rpartition("/")[2]
    postgres.sql("postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    made.engine.dispose()
    desk = DbWorker(made)
    waiting = asyncio.ensure_future(desk.submit(SaveResult("run:1:x", "{}", '""', success=True)))
    assert await ended(lambda: "read-only transaction" in caplog.text)
    postgres.sql("postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    await waiting
    await asyncio.to_thread(desk.close)
    assert rows(pg_url, "SELECT id FROM claude_force.cf_results") == [("run:1:x",)]


async def test_a_limit_of_the_drivers_holds_for_all_workers(project, pg_url, messages_server):
    async with working(pg_url), orchestrator(project, pg_url, rpm=6000) as fleet:
        result = await fleet.execute_agent(AGENT, "anything")
    assert result.success
    limits = rows(pg_url, "SELECT kind, per_minute FROM claude_force.cf_buckets WHERE model = ''")
    assert limits == [(0, 6000.0)]


class TestTheDisk:
    """What waits for it, and what does not have to."""

    @staticmethod
    def waits(made, job):
        """Whether the commit after the job waits for the disk."""
        with made.begin() as connection:
            type(job).execute_batch(made, connection, [job])
            return connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() != "off"

    def test_an_attempt_without_a_budget_does_not(self, made):
        first = admit()
        assert not self.waits(made, first)
        assert not self.waits(made, settle(first))

    def test_what_is_charged_to_a_budget_does(self, made):
        first = admit(worst=5, budgets=[budget(made, 100)])
        assert self.waits(made, first)
        assert self.waits(made, settle(first, spent=5))

    def test_an_outcome_does_and_the_begin_of_a_call_does_not(self, made):
        assert self.waits(made, SaveResult("run:1:x", "{}", '""', success=True))
        assert not self.waits(made, StartCall("run:1:x", 1, "one"))


def test_tables_that_a_newer_version_made_are_left_as_they_are(made):
    with made.begin() as connection:
        connection.execute(sa.update(MADE_BY).values(version="2.99.0.0"))
    made.prepare()
    with made.begin() as connection:
        assert connection.execute(sa.select(MADE_BY.c.version)).scalar_one() == "2.99.0.0"
