"""The whole fleet against a server with limits and storms, hours in seconds: simulated time, no waiting."""

import asyncio
import random
from dataclasses import replace

import pytest
from virtual_time import LoopClock, SimulatedServer, run_virtually, sender_to

from claude_force.bulk import stream_results
from claude_force.engine.result_builder import CallLabels, failed, succeeded
from claude_force.errors import CallError
from claude_force.limits.call_context import DEFAULT_CONTEXT
from claude_force.limits.rate_limiter import Rates
from claude_force.testing import RateLimit
from claude_force.types import Call

LIMIT = RateLimit(1_000, 200_000, 40_000)
MODEL = "claude-sonnet-5-5"


def mixed(rows, mean_input, mean_output, seed=7):
    """Calls whose sizes differ a hundredfold."""
    chance = random.Random(seed)
    for number in range(rows):
        size = min(60_000, int(chance.lognormvariate(0, 1) * 4 * mean_input / 1.65) + 8)
        answer = min(4_000, int(chance.lognormvariate(0, 0.8) * mean_output / 1.38) + 1)
        yield Call("a", (), f"{number:06d}".ljust(size, "x"), MODEL, 4096, {"answer": answer})


class SilentServer(SimulatedServer):
    """Keeps its limits without the headers that tell of them; `named`: a 429 says when to come again."""

    def __init__(self, *arguments, named, **more):
        super().__init__(*arguments, **more)
        self.named = named

    async def attempt(self, call, record):
        try:
            return await super().attempt(call, record)
        except CallError as error:
            error.retry_after = error.retry_after if self.named else None
            raise
        finally:
            record.headers = {}


async def run_fleet(sender, calls, under_way):
    """Results with `ended` and `began`, in the order of ending."""
    by_task = {}

    def tasks():
        for call in calls:
            by_task[call.task] = call
            yield ("a", call.task)

    async def run(index, agent, task, watch):
        began = LoopClock().now()
        try:
            result = succeeded(
                CallLabels(agent), await sender.send(by_task[task], None, DEFAULT_CONTEXT), 0.0
            )
        except CallError as error:
            result = failed(CallLabels(agent), error, MODEL, 0.0)
        result.began, result.ended = began, LoopClock().now()
        return result

    return [result async for result in stream_results(tasks(), run, under_way)]


def share_of_limit(server, start, end):
    """The highest of the three limits' use between two times, in seconds."""
    minutes = (end - start) / 60
    inside = [(size, answer) for at, size, answer in server.tokens if start <= at < end]
    return max(
        len(inside) / 1_000 / minutes,
        sum(size for size, _ in inside) / 200_000 / minutes,
        sum(answer for _, answer in inside) / 40_000 / minutes,
    )


@pytest.mark.parametrize(
    ("mean_input", "mean_output"), [(120, 70), (400, 20), (40, 8)], ids=["output", "input", "requests"]
)
@pytest.mark.parametrize("adaptive", [True, False])
def test_5000_rows_use_tightest_limit(mean_input, mean_output, adaptive):
    server = SimulatedServer(LIMIT, latency=lambda chance: chance.uniform(0.5, 6.0))

    async def work():
        sender = sender_to(server, 500 if adaptive else 100, adaptive)
        return await run_fleet(sender, mixed(5_000, mean_input, mean_output), 216)

    results = run_virtually(work())
    assert sorted(result.index for result in results) == list(range(5_000))
    assert all(result.success for result in results)
    last = server.tokens[-1][0]
    assert share_of_limit(server, 60.0, last - 5) >= 0.95
    assert server.statuses()[429] / len(server.log) < 0.01
    # Nobody is overtaken by more than those who were under way with it.
    assert max(result.ended - result.began for result in results) < 60


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("named", [True, False], ids=["retry-after", "nothing"])
def test_unknown_limits_cost_few_rows(adaptive, named):
    server = SilentServer(
        RateLimit(60, None, None), latency=lambda chance: chance.uniform(0.5, 2), named=named
    )

    async def work():
        return await run_fleet(sender_to(server, 500 if adaptive else 10, adaptive), mixed(600, 40, 8), 34)

    results = run_virtually(work())
    assert sum(result.success for result in results) >= 590
    assert server.statuses()[429] / len(server.log) < 0.2
    # Sixty of them at once, one in each second after.
    assert server.log[-1][0] < 1.05 * 540


def test_models_have_separate_limits():
    def run(models):
        server = SimulatedServer(LIMIT, latency=lambda chance: chance.uniform(0.5, 6.0))

        async def work():
            calls = mixed(4_000, 120, 70)
            spread = (replace(call, model=models[at % len(models)]) for at, call in enumerate(calls))
            return await run_fleet(sender_to(server, 200), spread, 400)

        results = run_virtually(work())
        assert all(result.success for result in results)
        assert server.statuses()[429] / len(server.log) < 0.01
        return max(result.ended for result in results)

    # The first minute's worth is there at once; the rest of it takes half as long with twice the limits.
    assert run(["one", "two"]) < 0.6 * run(["one"])


def test_manual_limits_cover_all_models():
    server = SimulatedServer()

    async def work():
        calls = (replace(call, model=f"model-{at % 3}") for at, call in enumerate(mixed(1_500, 50, 10)))
        return await run_fleet(sender_to(server, 50, rates=Rates(600, None, None)), calls, 116)

    run_virtually(work())
    times = [at for at, _ in server.log]
    assert max(sum(start <= at < start + 60 for at in times) for start in times[::50]) <= 660


def test_manual_limits_hold_every_minute():
    server = SimulatedServer()

    async def work():
        return await run_fleet(sender_to(server, 50, rates=Rates(600, None, None)), mixed(3_000, 50, 10), 116)

    run_virtually(work())
    times = [at for at, _ in server.log]
    busiest = max(sum(start <= at < start + 60 for at in times) for start in times[::50])
    assert 590 <= busiest <= 660
    assert times[-1] < 3_000 / 600 * 60 + 5


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("retry_after", [None, 5])
def test_waits_out_ten_minutes_of_529(adaptive, retry_after):
    storm = (60.0, 660.0)
    server = SimulatedServer(
        latency=lambda chance: chance.uniform(1, 3),
        status=lambda now: 529 if storm[0] <= now < storm[1] else None,
        retry_after=retry_after,
    )

    async def work():
        return await run_fleet(sender_to(server, 100, adaptive), mixed(12_000, 50, 10), 216)

    results = run_virtually(work())
    assert all(result.success for result in results)
    assert len(server.log) / len(results) < 1.2
    during = [at for at, status in server.log if storm[0] + 30 <= at < storm[1]]
    assert len(during) <= 600 / 5
    before = sum(30 <= at < 60 for at, _ in server.log)
    after = sum(storm[1] + 60 <= at < storm[1] + 90 for at, _ in server.log)
    assert after >= 0.9 * before


def test_small_fleet_survives_storm():
    server = SimulatedServer(status=lambda now: 529 if 20 <= now < 620 else None)

    async def work():
        return await run_fleet(sender_to(server, 3), mixed(200, 50, 10), 30)

    assert all(result.success for result in run_virtually(work()))


def test_connection_outage_costs_no_rows():
    server = SimulatedServer(status=lambda now: 502 if 20 <= now < 320 else None)

    async def work():
        return await run_fleet(sender_to(server, 10), mixed(1_000, 50, 10), 36)

    assert all(result.success for result in run_virtually(work()))


def test_adaptive_limit_finds_capacity():
    server = SimulatedServer(status=lambda now: 529 if server.in_flight > 40 else None)

    async def work():
        return await run_fleet(sender_to(server, 500, adaptive=True), mixed(5_000, 50, 10), 1016)

    results = run_virtually(work())
    assert sum(result.success for result in results) >= 4_990
    refused = server.statuses()[529]
    assert refused / len(server.log) < 0.05
    # Forty at a time, a second each: how near it comes to that.
    assert len(results) / max(result.ended for result in results) > 0.7 * 40


def test_unused_limit_does_not_grow():
    server = SimulatedServer(LIMIT, latency=lambda chance: 0.2)

    async def work():
        sender = sender_to(server, 500, adaptive=True)
        return await run_fleet(sender, mixed(3_000, 40, 8), 1016)

    results = run_virtually(work())
    assert all(result.success for result in results)
    assert server.most_in_flight < 500


def test_while_paused_the_gate_says_so():
    server = SimulatedServer(status=lambda now: 429 if now < 1 else None, retry_after=30)

    async def work():
        sender = sender_to(server, 5)
        sending = asyncio.ensure_future(run_fleet(sender, mixed(5, 50, 10), 10))
        await asyncio.sleep(3)
        paused = sender.admission.load().paused
        await sending
        return paused

    assert 25 < run_virtually(work()) < 30
