"""What happens when workers, drivers or the database die: real processes, signals and servers."""

import asyncio
import json
import random
import threading
import time
from functools import partial

import pytest
from extras import missing

if missing("durable"):
    pytest.skip(missing("durable"), allow_module_level=True)

from durable import (
    AGENT,
    STRANGE,
    WorkerProcess,
    alive,
    drive,
    echo,
    orchestrator,
    rows,
    until,
    worker_processes,
)

from claude_force.errors import WorkerError
from claude_force.testing import MessagesServer

# From the kill until all calls of the worker are requeued; it counts as dead after five seconds.
RECOVERED_SECONDS = 10


@pytest.fixture
def slow_server(monkeypatch):
    """A server that answers after a while, so that there is something to kill."""
    with MessagesServer(answer=echo, time_to_first_token=0.2) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CLAUDE_CACHE_SECRET", "one secret for all the machines")
        yield server


@pytest.fixture
def rounds(soak):
    return range(20 if soak else 1)


async def ready(fleet, url, *names):
    """Waits until workers of these names take calls."""
    await asyncio.to_thread(until, lambda: set(names) <= alive(url), "the workers are there")


def names_of(turn):
    """Returns names for one round: the name of a killed worker is not free at once."""
    return f"a{turn}", f"b{turn}"


def under_way(url, worker):
    """Returns how many calls the worker has started that have no result."""
    query = (
        "SELECT count(*) FROM claude_force.cf_calls WHERE worker = :worker AND id NOT IN "
        "(SELECT id FROM claude_force.cf_results)"
    )
    return rows(url, query, worker=worker)[0][0]


def sent(server, count):
    """Waits until the server has received more than so many requests."""
    until(lambda: len(server.requests) > count, "requests are sent")


async def create_tables(fleet):
    """Creates the tables."""
    await fleet.explain_miss(AGENT, "anything")


async def test_requeues_rows_of_killed_worker(rounds, project, pg_url, tmp_path, slow_server):
    count = 200
    for turn in rounds:
        tasks = [(AGENT, f"row {number} of turn {turn}") for number in range(count)]
        before = len(slow_server.requests)
        enough = random.Random(turn).randrange(20, 150)
        async with orchestrator(project, pg_url) as fleet:
            await create_tables(fleet)
            with worker_processes(pg_url, tmp_path, *names_of(turn)) as (first, second):
                await ready(fleet, pg_url, *names_of(turn))
                running = asyncio.ensure_future(fleet.execute_multiple(tasks))
                await asyncio.to_thread(sent, slow_server, before + enough)
                first.kill()
                lost, killed = under_way(pg_url, first.name), time.monotonic()
                gone = partial(lambda worker: worker.name not in alive(pg_url), first)
                await asyncio.to_thread(until, gone, "its calls are put back")
                took = time.monotonic() - killed
                results = await running
                second.kill()

        assert [result.output for result in results] == [f"you said: {text}" for _, text in tasks]
        assert len(slow_server.requests) - before <= count + lost
        assert took < RECOVERED_SECONDS


async def test_chains_never_swap_answers(rounds, project, pg_url, tmp_path, slow_server):
    async def chain(fleet, run, number):
        text = f"chain {number}"
        for step in range(4):
            run_id = f"{run}-{number}-{step}"
            (result,) = await fleet.execute_multiple([(AGENT, f"{text} step {step}")], run_id=run_id)
            assert result.output == f"you said: {text} step {step}"
            text = result.output
        return text

    for turn in rounds:
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await create_tables(fleet)
            with worker_processes(pg_url, tmp_path, *names_of(turn)) as (first, second):
                await ready(fleet, pg_url, *names_of(turn))
                before = len(slow_server.requests)
                running = asyncio.gather(*(chain(fleet, f"chains-{turn}", number) for number in range(8)))
                await asyncio.to_thread(sent, slow_server, before + 8)
                first.kill()
                ends = await running
                second.kill()

        assert [f"chain {number} step 0" in text for number, text in enumerate(ends)] == [True] * 8


def with_graph(config, layers, wide):
    """Adds a workflow of layers, each step of which needs two of the layer before. Returns its tasks."""
    steps = []
    for number in range(layers * wide):
        layer, place = divmod(number, wide)
        before = [f"s{(layer - 1) * wide + (place + more) % wide}" for more in (0, 1)] if layer else []
        step = {"id": f"s{number}", "agent": AGENT, "task": f"node {number}", "dependencies": before}
        steps.append(step)
    whole = json.loads(config.read_text())
    whole["workflows"]["wide"] = {"steps": steps}
    config.write_text(json.dumps(whole))
    return [step["task"] for step in steps]


async def test_requeues_steps_of_killed_worker(rounds, project, pg_url, tmp_path, slow_server):
    tasks = with_graph(project, layers=5, wide=6)
    for turn in rounds:
        before = len(slow_server.requests)
        async with orchestrator(project, pg_url, enable_cache=False) as fleet:
            await create_tables(fleet)
            with worker_processes(pg_url, tmp_path, *names_of(turn)) as (first, second):
                await ready(fleet, pg_url, *names_of(turn))
                running = asyncio.ensure_future(fleet.execute_workflow("wide", f"turn {turn}"))
                await asyncio.to_thread(sent, slow_server, before + random.Random(turn).randrange(3, 24))
                first.kill()
                lost = under_way(pg_url, first.name)
                result = await running
                second.kill()

        outputs = [result.step(f"s{number}").output for number in range(len(tasks))]
        assert outputs == [f"you said: {task}" for task in tasks]
        assert len(slow_server.requests) - before <= len(tasks) + lost


async def test_collects_after_killed_driver(project, pg_url, tmp_path, slow_server):
    async with orchestrator(project, pg_url) as fleet:
        await create_tables(fleet)
    with worker_processes(pg_url, tmp_path, "a"):
        first = drive(project, pg_url, "one-run", 60)
        seen = [json.loads(first.stdout.readline()) for _ in range(15)]
        first.kill()
        first.communicate()
        second = drive(project, pg_url, "one-run", 60)
        output = second.communicate(timeout=60)[0]

    results = [json.loads(line) for line in output.splitlines()]
    assert sorted(result["index"] for result in results) == list(range(60))
    assert all(result["output"] == f"you said: row {result['index']}" for result in results)
    assert len(slow_server.requests) == 60
    # Results that the first driver received cost the second one nothing.
    assert all(result["cost"] == 0 if result["cached"] else result["cost"] > 0 for result in results)
    assert {result["index"] for result in results if result["cached"]} & {result["index"] for result in seen}


async def test_survives_database_crash(project, postgres, pg_url, tmp_path, slow_server):
    tasks = [(AGENT, f"row {number}") for number in range(150)]
    async with orchestrator(project, pg_url) as fleet:
        await create_tables(fleet)
        with worker_processes(pg_url, tmp_path, "a", "b"):
            await ready(fleet, pg_url, "a", "b")
            running = asyncio.ensure_future(fleet.execute_multiple(tasks))
            await asyncio.to_thread(sent, slow_server, 40)
            postgres.stop(crash=True)
            in_flight = slow_server.in_flight
            await asyncio.to_thread(postgres.start)
            results = await running
            assert alive(pg_url) == {"a", "b"}

    assert [result.output for result in results] == [f"you said: row {number}" for number in range(150)]
    assert len(slow_server.requests) <= 150 + in_flight


async def test_frozen_worker_goes_on(project, pg_url, tmp_path, slow_server):
    tasks = [(AGENT, f"row {number}") for number in range(60)]
    async with orchestrator(project, pg_url) as fleet:
        await create_tables(fleet)
        with worker_processes(pg_url, tmp_path, "a", "b") as (first, _):
            await ready(fleet, pg_url, "a", "b")
            running = asyncio.ensure_future(fleet.execute_multiple(tasks, run_id="paused"))
            await asyncio.to_thread(sent, slow_server, 25)
            first.pause()
            results = await running
            first.resume()
            await ready(fleet, pg_url, "a")
            assert first.process.poll() is None

    assert [result.output for result in results] == [f"you said: row {number}" for number in range(60)]
    kept = rows(
        pg_url, "SELECT count(*), count(DISTINCT id) FROM claude_force.cf_results WHERE run = 'paused'"
    )
    assert kept == [(60, 60)]


async def test_stopped_worker_loses_nothing(project, pg_url, tmp_path, slow_server):
    tasks = [(AGENT, f"row {number}") for number in range(100)]
    async with orchestrator(project, pg_url) as fleet:
        await create_tables(fleet)
        with worker_processes(pg_url, tmp_path, "a", "b") as (first, _):
            await ready(fleet, pg_url, "a", "b")
            running = asyncio.ensure_future(fleet.execute_multiple(tasks))
            await asyncio.to_thread(sent, slow_server, 30)
            code = await asyncio.to_thread(first.stop)
            assert (code, alive(pg_url)) == (0, {"b"}), first.text()
            results = await running

    assert all(result.success for result in results)
    assert len(slow_server.requests) == 100


async def test_stop_before_first_request(project, pg_url, tmp_path, slow_server):
    async with orchestrator(project, pg_url) as fleet:
        await create_tables(fleet)
        with worker_processes(pg_url, tmp_path, "a", program=(STRANGE, "slow_start")) as (first,):
            running = asyncio.ensure_future(fleet.execute_agent(AGENT, "x"))
            await asyncio.to_thread(until, lambda: "loads the prices" in first.text())
            code = await asyncio.to_thread(first.stop)
            assert (code, alive(pg_url)) == (0, set()), first.text()
        assert under_way(pg_url, "a") == 0
        with worker_processes(pg_url, tmp_path, "b"):
            result = await running

    assert result.success and len(slow_server.requests) == 1


async def test_poisonous_call_fails_alone(project, pg_url, tmp_path, slow_server):
    tasks = [(AGENT, f"row {number}") for number in range(12)]
    tasks.insert(6, (AGENT, "poison"))
    ended = threading.Event()

    def keep_running():
        while not ended.is_set():
            with worker_processes(pg_url, tmp_path, "weak", program=(STRANGE, "poisoned")) as (worker,):
                until(lambda: ended.is_set() or worker.process.poll() is not None, seconds=60)

    async with orchestrator(project, pg_url, enable_cache=False) as fleet:
        await create_tables(fleet)
        manager = asyncio.ensure_future(asyncio.to_thread(keep_running))
        try:
            results = await fleet.execute_multiple(tasks)
        finally:
            ended.set()
            await manager

    poisonous = results.pop(6)
    assert isinstance(poisonous.error, WorkerError) and "begun 4 times" in str(poisonous.error)
    assert all(result.success for result in results)


async def test_tolerates_wrong_clock(project, pg_url, tmp_path, slow_server):
    tasks = [(AGENT, f"row {number}") for number in range(40)]
    async with orchestrator(project, pg_url, deadline_seconds=60) as fleet:
        await create_tables(fleet)
        with worker_processes(pg_url, tmp_path, "right") as (right,), worker_processes(
            pg_url, tmp_path, "wrong", program=(STRANGE, "wrong_clock")
        ) as (wrong,):
            await ready(fleet, pg_url, "right", "wrong")
            results = await fleet.execute_multiple(tasks)
            again = await fleet.execute_multiple(tasks)
            # Longer than it takes to be declared dead.
            await asyncio.sleep(7)
            assert alive(pg_url) == {"right", "wrong"}

    assert all(result.success and result.cost > 0 for result in results)
    assert all(result.cached and result.cache_age < 60 for result in again)
    assert len(slow_server.requests) == 40
    assert "taken for dead" not in right.text() + wrong.text()


async def test_waits_for_same_version(project, pg_url, tmp_path, slow_server):
    async with orchestrator(project, pg_url) as fleet:
        await create_tables(fleet)
        with worker_processes(pg_url, tmp_path, "other", program=(STRANGE, "other_version")):
            await ready(fleet, pg_url, "other")
            running = asyncio.ensure_future(fleet.execute_agent(AGENT, "for this version"))
            await asyncio.sleep(1)
            assert not running.done() and not slow_server.requests
            mine = WorkerProcess(pg_url, "mine", tmp_path)
            try:
                result = await running
            finally:
                mine.kill()

    assert result.success and len(slow_server.requests) == 1


def test_killed_sqlite_run_resumes(project, tmp_path, slow_server):
    url = f"sqlite:///{tmp_path}/runs.db"
    first = drive(project, url, "one-run", 60)
    seen = [json.loads(first.stdout.readline()) for _ in range(25)]
    first.kill()
    first.communicate()
    # In flight, or answered and not saved yet.
    lost = len(slow_server.requests) - rows(url, "SELECT count(*) FROM cf_results")[0][0]
    assert 0 <= lost <= 20
    output = drive(project, url, "one-run", 60).communicate(timeout=60)[0]

    results = {result["index"]: result for result in map(json.loads, output.splitlines())}
    assert sorted(results) == list(range(60))
    assert all(result["output"] == f"you said: row {index}" for index, result in results.items())
    assert len(slow_server.requests) <= 60 + lost
    assert len(seen) == 25


def test_sqlite_file_is_exclusive(project, tmp_path, slow_server):
    url = f"sqlite:///{tmp_path}/runs.db"
    first = drive(project, url, "one", 2_000)
    first.stdout.readline()
    second = drive(project, url, "two", 1)
    output = second.communicate(timeout=60)[0]
    first.kill()
    first.communicate()

    assert "in use by another process" in json.loads(output)["error"]
