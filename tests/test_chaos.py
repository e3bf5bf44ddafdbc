"""Faults of every kind in every layer at once, drawn from a seed: the invariants hold."""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from anyio import to_thread
from chaos import (
    AGENTS,
    MAX_TOKENS,
    MODEL,
    PRICES,
    TTL_HOURS,
    HastyClock,
    Project,
    WallClock,
    check_answer,
    damage,
    loop_is_free,
    nothing_left,
    price_of,
    stand_in,
)
from forge import ask
from pages import ROOT, Forge

from claude_force import AgentOrchestrator, AsyncAgentOrchestrator, ResponseCache
from claude_force.costs import cost_or_bound
from claude_force.errors import CallError, ClosedError, InputError
from claude_force.limits.budget import to_nano_usd

if not Path("/proc/self/fd").exists():
    pytest.skip("what is left is counted as Linux tells it", allow_module_level=True)
import resource


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        config = metafunc.config
        given = config.getoption("--seed")
        # Processes take their time.
        few = 1 if "forge" in metafunc.fixturenames else 6
        count = 100 if config.getoption("--soak") else few
        seeds = range(count) if given is None else [given]
        metafunc.parametrize("seed", seeds, ids=[f"seed {seed}" for seed in seeds])


@pytest.fixture
def storm(seed, tmp_path, clean_environment, monkeypatch):
    print(f"This storm again: pytest tests/test_chaos.py --seed {seed}")  # noqa: T201
    storm = Storm(seed, Project(tmp_path / "project", clean_environment))
    monkeypatch.setattr(time, "time", storm.wall.time)
    monkeypatch.setattr(time, "time_ns", storm.wall.time_ns)
    with storm.server:
        yield storm


class Storm:
    """One seed's weather, and what was seen in it."""

    def __init__(self, seed, project):
        self.chance = random.Random(seed)
        self.project, self.wall = project, WallClock()
        self.server = stand_in(seed, self.wall)
        self.seen, self.lines = [], 0
        # Questions whose answer is in the cache, as far as nothing was done to it.
        self.paid = set()

    def tasks(self, most=30):
        """With repetitions, so that some are asked for twice at a time and some are kept."""
        chance = self.chance
        return [
            (chance.choice(AGENTS), f"Task {chance.randrange(40)}") for _ in range(chance.randrange(4, most))
        ]

    def limits(self):
        """An orchestrator's settings."""
        chance = self.chance
        return {
            "api_key": "test-key",
            "base_url": self.server.base_url,
            "clock": HastyClock(),
            "prices": PRICES,
            "max_concurrent": chance.choice((1, 3, 10, 30, "auto")),
            "timeout_seconds": 0.3,
            "max_retries": chance.choice((1, 2, 4)),
            "stream": chance.random() < 0.7,
            "budget_usd": chance.choice((None, 0.02, 0.2)),
            "deadline_seconds": chance.choice((None, None, 5.0)),
            "observers": [self.seen.append],
        }

    def cache(self):
        return ResponseCache(TTL_HOURS, cache_dir=self.project.cache, clock=self.wall.time)

    def check_rows(self, tasks, results):
        """Every row has one result, its own."""
        assert [result.index for result in results] == list(range(len(tasks)))
        for (agent, task), result in zip(tasks, results):
            assert result.agent_name == agent
            self.check_result(agent, task, result)

    def check_result(self, agent, task, result):
        if result.success:
            check_answer(self.project, self.wall, agent, task, result)
        else:
            assert isinstance(result.error, CallError), repr(result.error)

    @contextmanager
    def round(self, limits, summary):
        """Compares what was seen within the block with what the stand-in has billed for it."""
        seen, bills, silences = len(self.seen), len(self.server.bills), self.server.weather.silences
        figures = Figures(limits)
        yield figures
        figures.executed = self.seen[seen:]
        figures.bills = self.server.bills[bills:]
        figures.expected_silences = self.server.weather.silences - silences
        figures.check(self)
        if figures.recorded:
            self.lines += len(figures.executed)
            assert summary()["executions"] == self.lines


class Figures:
    """Those of one round. `breaks`: how often calls were ended from outside."""

    def __init__(self, limits):
        self.breaks, self.recorded, self.kept = 0, True, True
        self.spent = None
        self._limits = limits

    def check(self, storm):
        self._note_own_silences()
        answers = [one.result for one in self.executed if self._is_paid(one.result)]
        whole = {bill.request_id: bill for bill in self.bills if bill.whole and not bill.lost}
        for result in answers:
            bill = whole.pop(result.request_id)
            usage = result.usage
            assert (usage.input_tokens, usage.output_tokens) == (
                bill.usage["input_tokens"],
                bill.usage["output_tokens"],
            )
            assert cost_or_bound(result.cost, result.cost_at_most) >= price_of(bill) - 1e-9
        in_flight = self.breaks * self._most_in_flight()
        assert len(whole) <= in_flight, "an answer was paid for and nobody has it"
        self._check_money(in_flight)
        self._check_paid_once(storm)

    def _note_own_silences(self):
        # On a machine that has much else to do an answer may come too late.
        trips = [trip.error for one in self.executed for trip in one.result.timeline]
        self.breaks += max(0, trips.count("SilenceError") - self.expected_silences)
        self.breaks += trips.count("CancelledError")

    def _most_in_flight(self):
        most = self._limits["max_concurrent"]
        return 500 if most == "auto" else most

    def _is_paid(self, result):
        return result.success and not result.cached and not result.shared

    def _check_money(self, in_flight):
        prices = sorted(map(price_of, self.bills), reverse=True)
        slack = sum(prices[:in_flight])
        billed = [bill for bill in self.bills if not bill.lost]
        # What a lost request cost nobody knows, but how much at the most.
        reported = sum(cost_or_bound(one.result.cost, one.result.cost_at_most) for one in self.executed)
        assert reported >= sum(map(price_of, billed)) - slack - 1e-9, (
            "the ledger knows of less than was billed"
        )
        if self._limits["budget_usd"] is not None:
            assert self.spent <= self._limits["budget_usd"] + 1e-9
            assert to_nano_usd(sum(map(price_of, billed)) - slack) <= to_nano_usd(self.spent) + len(billed)

    def _check_paid_once(self, storm):
        paid = Counter((one.call.system, one.call.task) for one in self.executed if self._is_paid(one.result))
        if self.kept:
            assert all(count == 1 for count in paid.values()), paid
            assert not storm.paid & set(paid), "paid for a second time"
            storm.paid |= set(paid)
        else:
            storm.paid.clear()


# -- one orchestrator after the other in an event loop ------------------------------------------------------


class Fleet:
    """Some of everything at a time, on one orchestrator."""

    def __init__(self, storm, orchestrator, figures):
        self._storm, self._chance = storm, storm.chance
        self._orchestrator, self._figures = orchestrator, figures

    async def run(self, breaking):
        works = [self._multiple, self._streamed, self._workflow, self._wrong]
        works += [self._left_early, self._cancelled, self._closed] if breaking else []
        chosen = [self._chance.choice(works)() for _ in range(self._chance.randrange(1, 4))]
        await asyncio.gather(self._multiple(), *chosen)

    async def _multiple(self):
        tasks = self._storm.tasks()
        self._storm.check_rows(tasks, await self._orchestrator.execute_multiple(tasks, max_tokens=MAX_TOKENS))

    async def _streamed(self):
        tasks, in_order = self._storm.tasks(), self._chance.random() < 0.5
        stream = self._orchestrator.stream_multiple(iter(tasks), in_order, max_tokens=MAX_TOKENS)
        results = [result async for result in stream]
        if in_order:
            assert [result.index for result in results] == list(range(len(tasks)))
        self._storm.check_rows(tasks, sorted(results, key=lambda result: result.index))

    async def _left_early(self):
        self._figures.breaks += 1
        tasks, most = self._storm.tasks(), self._chance.randrange(1, 4)
        stream = self._orchestrator.stream_multiple(tasks, max_tokens=MAX_TOKENS)
        async for result in stream:
            self._storm.check_result(*tasks[result.index], result)
            most -= 1
            if not most:
                break
        await stream.aclose()

    async def _cancelled(self):
        self._figures.breaks += 1
        tasks, had = self._storm.tasks(), {}
        work = self._orchestrator.execute_multiple(tasks, had.__setitem__, max_tokens=MAX_TOKENS)
        running = asyncio.ensure_future(work)
        await asyncio.sleep(self._chance.random() * 0.1)
        running.cancel()
        await asyncio.wait([running])
        for index, result in had.items():
            self._storm.check_result(*tasks[index], result)

    async def _closed(self):
        self._figures.breaks += 1
        await asyncio.sleep(self._chance.random() * 0.1)
        await self._orchestrator.close()

    async def _workflow(self):
        task = f"graph {self._chance.randrange(5)}"
        done = await self._orchestrator.execute_workflow("graph", task, max_tokens=MAX_TOKENS)
        assert len(done.steps) == 4
        for result in done:
            if not result.success:
                assert isinstance(result.error, CallError)

    async def _wrong(self):
        tasks = [("../../etc/passwd", "x"), ("nobody", "x"), ("alpha", ""), ("alpha", "x" * 100_001)]
        results = await self._orchestrator.execute_multiple([*tasks, ("alpha",)])
        assert all(isinstance(result.error, InputError) for result in results)


class Mischief:
    """What is done to the disk and to the clock; `amid`: while calls are under way."""

    def __init__(self, storm, figures):
        self._storm, self._chance, self._figures = storm, storm.chance, figures

    def before(self):
        for one in self._chance.sample((self._edit, self._set_clock, self._tear_ledger, self._damage), 2):
            one()

    async def amid(self):
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(self._chance.random() * 0.05)
            # A full disk is full for the mischief too.
            with suppress(OSError):
                self._chance.choice((self._nudge_clock, self._tear_ledger, self._damage))()

    def _edit(self):
        self._storm.project.edit(self._chance.choice(AGENTS))

    def _set_clock(self):
        self._storm.wall.ahead += self._chance.choice((-86400, -7000, 60, 7000, 9000, 40 * 86400))
        self._storm.paid.clear()

    def _nudge_clock(self):
        self._storm.wall.ahead += self._chance.uniform(-120, 120)

    def _tear_ledger(self):
        path = self._storm.project.ledger / "executions.jsonl"
        if path.parent.is_dir():
            with path.open("ab") as file:
                file.write(self._chance.choice((b'{"timestamp": "20', b"\0" * 20, b"[]\n", b'{"a": [[[\n')))

    def _damage(self):
        self._figures.kept = False
        name = self._chance.choice(("answers-1.db", "answers-1.db-wal", "generation"))
        # That file is mapped: to cut it off ends every process that has it open.
        damage(self._storm.project.cache / name, self._chance, cuts=name != "generation")


@contextmanager
def small_disk(bytes_per_file):
    """No file grows over that; as on a full disk, writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def _rounds(storm):
    for number in range(3):
        limits = storm.limits()
        cache = storm.cache()
        orchestrator = AsyncAgentOrchestrator(storm.project.config, response_cache=cache, **limits)
        with storm.round(limits, orchestrator.get_performance_summary) as figures:
            mischief, calm = Mischief(storm, figures), number == 0
            fleet = Fleet(storm, orchestrator, figures)
            if not calm:
                mischief.before()
            full = not calm and storm.chance.random() < 0.3
            if full:
                figures.recorded = figures.kept = False
            with small_disk(40_000 if full else resource.RLIM_INFINITY):
                await asyncio.gather(fleet.run(breaking=not calm), *([] if calm else [mischief.amid()]))
                await orchestrator.close()
            await to_thread.run_sync(cache.close)
            figures.spent = orchestrator.spent_usd
            assert asyncio.all_tasks() == {asyncio.current_task()}
        if full:
            storm.lines = orchestrator.get_performance_summary()["executions"]


def test_a_fleet_in_an_event_loop(storm):
    with nothing_left(storm.server, storm.project), loop_is_free():
        asyncio.run(_rounds(storm))
    assert storm.server.bills


# -- the sync face, from many threads -----------------------------------------------------------------------


class SyncCallers:
    """Several threads that use one orchestrator."""

    def __init__(self, storm, orchestrator, figures):
        self._storm, self._orchestrator, self._figures = storm, orchestrator, figures

    def one(self, number):
        chance = random.Random(self._storm.chance.random())
        for _ in range(3):
            try:
                chance.choice((self._single, self._many, self._left_early, self._workflow))(chance)
            except ClosedError:
                assert self._figures.breaks

    def _tasks(self, chance):
        return [
            (chance.choice(AGENTS), f"Task {chance.randrange(40)}") for _ in range(chance.randrange(1, 12))
        ]

    def _single(self, chance):
        (agent, task), *_ = self._tasks(chance)
        result = self._orchestrator.run_agent(agent, task, max_tokens=MAX_TOKENS)
        self._storm.check_result(agent, task, result)

    def _many(self, chance):
        tasks = self._tasks(chance)
        self._storm.check_rows(tasks, self._orchestrator.run_multiple(tasks, max_tokens=MAX_TOKENS))

    def _left_early(self, chance):
        self._figures.breaks += 1
        tasks = self._tasks(chance)
        for result in self._orchestrator.stream_multiple(tasks, max_tokens=MAX_TOKENS):
            self._storm.check_result(*tasks[result.index], result)
            if chance.random() < 0.5:
                break

    def _workflow(self, chance):
        done = self._orchestrator.run_workflow("graph", f"graph {chance.randrange(5)}", max_tokens=MAX_TOKENS)
        assert len(done.steps) == 4


def test_the_sync_face_from_four_threads(storm):
    limits = storm.limits()
    with nothing_left(storm.server, storm.project), loop_is_free(), storm.cache() as cache:
        orchestrator = AgentOrchestrator(storm.project.config, response_cache=cache, **limits)
        with storm.round(limits, orchestrator.get_performance_summary) as figures:
            callers, closes = SyncCallers(storm, orchestrator, figures), storm.chance.random() < 0.5
            figures.breaks += closes
            with ThreadPoolExecutor(4) as threads:
                working = [threads.submit(callers.one, number) for number in range(4)]
                if closes:
                    time.sleep(storm.chance.random() * 0.1)
                    orchestrator.close()
                for one in working:
                    one.result()
            orchestrator.close()
            figures.spent = orchestrator.spent_usd


# -- processes that are killed, and several on one cache ----------------------------------------------------

ROWS, AT_A_TIME = 40, 4
_PROGRAM = """
import resource, sys
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from claude_force.cli.main import main
sys.exit(main({words}))
"""
_WORKFLOW = """
import asyncio, sys
from claude_force import AsyncAgentOrchestrator
async def main():
    async with AsyncAgentOrchestrator({config!r}, timeout_seconds=5, max_concurrent={most}) as orchestrator:
        def told(event):
            print(event.run_id, flush=True)
        done = await orchestrator.execute_workflow(
            "graph", {task!r}, resume={resume!r}, cache="off", on_step=told
        )
        sys.exit(0 if done.success else 3)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def forge():
    """Processes that have imported everything already."""
    with Forge() as forge:
        yield forge


class Program:
    """A process of the forge's; `code` once it has ended."""

    def __init__(self, storm, forge, source):
        project = storm.project
        environment = {**os.environ, **storm.server.environment(), "PYTHONPATH": str(ROOT)}
        self.out = project.folder / f"out-{time.monotonic_ns()}.txt"
        self.code, self._pid, self._known = None, None, threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(forge, source, project.folder, environment), daemon=True
        )
        self._thread.start()

    def _run(self, forge, source, folder, environment):
        with self.out.open("w+") as out:
            program = {"code": source, "name": "storm", "folder": str(folder), "environment": environment}
            self.code = ask(forge.socket, program, (out.fileno(),) * 3, self._began)
        self._known.set()

    def _began(self, pid):
        self._pid = pid
        self._known.set()

    def signal(self, number):
        """Whether it was in time."""
        self._known.wait()
        if self.code is not None:
            return False
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            return False
        return True

    def ended(self):
        self._thread.join(timeout=60)
        assert self.code is not None, self.out.read_text()
        return self.code


class Bulk:
    """`run many` over the same rows, again and again, until all of them are there."""

    def __init__(self, storm, forge):
        self._storm, self._forge, self._chance = storm, forge, storm.chance
        self.lost = 0
        rows = [{"agent": self._chance.choice(AGENTS), "task": f"Row {number}"} for number in range(ROWS)]
        self.rows, self._folder = rows, storm.project.folder
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self._folder / "tasks.jsonl").write_text(text)

    def start(self, output, *more, limit=0):
        words = ["run", "many", "tasks.jsonl", "-o", output, "--max-concurrent", str(AT_A_TIME)]
        words += [
            "--max-tokens",
            str(MAX_TOKENS),
            "--price",
            f"{MODEL}=3,15",
            "--timeout",
            "5",
            "--json",
            *more,
        ]
        return Program(self._storm, self._forge, _PROGRAM.format(limit=limit, words=words))

    def break_off(self, output):
        """One start that something happens to."""
        requests, bills = self._storm.server.requests, len(self._storm.server.bills)
        target = len(requests) + self._chance.randrange(1, ROWS // 2)
        full = self._chance.random() < 0.3
        program = self.start(output, limit=12_000 if full else 0)
        while len(requests) < target and program.code is None:
            time.sleep(0.002)
        killed = program.signal(self._chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT)))
        program.ended()
        if full:
            # The cache could not keep them for the run beside it.
            self.lost += len(self._storm.server.bills) - bills
        elif killed:
            self.lost += AT_A_TIME
        self._tear(output)

    def _tear(self, output):
        path = self._folder / output
        if path.exists() and path.stat().st_size and self._chance.random() < 0.3:
            # What a kill in the middle of a write leaves.
            with path.open("ab") as file:
                file.write(b'{"index": 5, "key": "1')

    def results(self, output):
        with (self._folder / output).open() as lines:
            return [json.loads(line) for line in lines]

    def check(self, output):
        found = self.results(output)
        assert Counter(one["index"] for one in found) == Counter(range(ROWS))
        for one in found:
            assert one["success"], one["error"]
            said = json.loads(one["output"].split("\n", 1)[0])
            row = self.rows[one["index"]]
            assert (said["agent"], said["task"]) == (row["agent"], row["task"])


def test_killed_bulk_runs_share_cache(storm, forge):
    server, bulk = storm.server, Bulk(storm, forge)
    # Its waits are real ones.
    server.weather.share, server.weather.silent = 0.1, 0.0
    beside = bulk.start("beside.jsonl")
    for _ in range(2):
        bulk.break_off("out.jsonl")
    beside.ended()
    server.weather.share = 0.0
    for output in ("out.jsonl", "beside.jsonl"):
        code = bulk.start(output, "--retry-failed").ended()
        assert code == 0
        bulk.check(output)
    whole = Counter(bill.received.body["messages"][0]["content"] for bill in server.bills if bill.whole)
    assert set(whole) == {row["task"] for row in bulk.rows}
    # Of one that is killed what was on the wire is lost, and no more.
    assert sum(whole.values()) - len(whole) <= bulk.lost
    assert not storm.project.leftovers()


def test_killed_workflow_resumes(storm, forge):
    server, project = storm.server, storm.project
    server.weather.share = 0.0
    resume, kills = None, 0
    for more in (*[True] * storm.chance.randrange(1, 4), False):
        source = _WORKFLOW.format(config=str(project.config), most=AT_A_TIME, task="graph", resume=resume)
        program = Program(storm, forge, source)
        if more:
            target = len(server.requests) + storm.chance.randrange(1, 3)
            while len(server.requests) < target and program.code is None:
                time.sleep(0.001)
            time.sleep(storm.chance.random() * 0.02)
            kills += program.signal(signal.SIGKILL)
        code = program.ended()
        words = program.out.read_text().split()
        resume = resume or (words[0] if words else None)
    assert code == 0, program.out.read_text()
    whole = Counter(
        bill.received.body["messages"][0]["content"].split("\n")[0] for bill in server.bills if bill.whole
    )
    assert len(whole) == 4
    # At most two steps are on the wire at a time.
    assert sum(whole.values()) - 4 <= 2 * kills
