"""The books of agents with tools are those of the server, whatever happens and whenever one is cancelled."""

import asyncio
import random

import pytest
from billing import Steps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from tool_agents import (
    AGENT,
    Answer,
    Notes,
    agents,
    call,
    calls,
    check_calls_have_results,
    script,
    task_of,
)

from claude_force.costs import cost_or_bound
from claude_force.errors import CancelledCallError
from claude_force.ledger.reader import LedgerReader

REASONS = ("tool_use", "tool_use", "tool_use", "end_turn", "max_tokens", "refusal", "pause_turn")


class Story:
    """Random answers: of each request, by its task and its number of messages, so that a retry differs."""

    def __init__(self, seed, other="Note"):
        self._chance, self._other = random.Random(seed), other
        self.requests = {}

    def __call__(self, body):
        chance, task = self._chance, task_of(body)
        self.requests[task] = self.requests.get(task, 0) + 1
        tokens = {"input_tokens": chance.randint(1, 150), "output_tokens": chance.randint(1, 100)}
        kind = chance.random()
        if kind < 0.1:
            return Answer(status=529)
        if kind < 0.2:
            return Answer(lost=chance.choice(["free", "billed"]), **tokens)
        if kind < 0.25:
            return Answer("Broken off", cut="text", **tokens)
        reason = chance.choice(REASONS)
        if reason == "tool_use" or kind > 0.9:
            number = len(body["messages"])
            names = [chance.choice(["Look", self._other]) for _ in range(chance.randint(1, 4))]
            blocks = [call(f"t{number}-{place}", name) for place, name in enumerate(names)]
            return calls(*blocks, stop_reason=reason, **tokens)
        return Answer("Some text.", reason, **tokens)


class Told:
    """What the observers are told."""

    def __init__(self):
        self.results = []

    def __call__(self, completed):
        self.results.append(completed.result)

    @property
    def at_most(self):
        return sum(cost_or_bound(one.cost, one.cost_at_most) for one in self.results)

    @property
    def at_least(self):
        return sum(one.cost or 0.0 for one in self.results)


async def unreliable(use):
    await asyncio.sleep(0)
    if hash(use.id) % 5 == 0:
        raise RuntimeError("It broke")


def check_ledger(orchestrator, told, project):
    """Its lines have what the observers were told: of each paid request one line."""
    orchestrator.tracker.flush()
    entries = list(LedgerReader(project.parent / "metrics").entries())
    wholes = [entry for entry in entries if not entry.turn]
    ended = {entry.execution for entry in wholes}
    # Nobody is told of a run that was cancelled before it sent anything; what it shared cost it nothing.
    assert not any(entry.attempts for entry in entries if entry.execution not in ended)
    turns = [entry for entry in entries if entry.turn and entry.execution in ended]
    assert len(wholes) == len(told.results)
    assert sum(entry.attempts for entry in turns) == sum(one.attempts for one in told.results)
    assert len(turns) == sum(len(one.turns) for one in told.results)
    known = sum(entry.estimated_cost or 0.0 for entry in entries)
    assert known >= told.at_least - 1e-9
    bounds = sum(cost_or_bound(entry.estimated_cost, entry.cost_at_most) for entry in entries)
    assert bounds == pytest.approx(told.at_most)


def new_ledger(project):
    for file in (project.parent / "metrics").glob("*"):
        file.unlink()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=some.integers(0, 10**6),
    max_turns=some.integers(1, 6),
    max_tool_calls=some.none() | some.integers(0, 6),
    call_budget=some.none() | some.floats(0.002, 0.03),
    budget=some.none() | some.floats(0.004, 0.06),
)
def test_any_schedule(project, seed, max_turns, max_tool_calls, call_budget, budget):
    """Bounds and budgets hold, each call has one result, and the books are the server's."""
    new_ledger(project)

    async def run():
        told, story = Told(), Story(seed)
        options = {"max_retries": 2, "budget_usd": budget, "observers": [told], "max_concurrent": 3}
        async with agents(project, story, Notes(unreliable), **options) as (orchestrator, server):
            results = await orchestrator.execute_multiple(
                [(AGENT, f"task {number}") for number in range(4)],
                tools="edit",
                max_tokens=100,
                max_turns=max_turns,
                max_tool_calls=max_tool_calls,
                call_budget_usd=call_budget,
            )
            check_calls_have_results(server.requests)
            billed = server.billed
            for result, row in zip(results, range(4)):
                assert story.requests.get(f"task {row}", 0) == result.attempts <= 2 * max_turns
                assert len(result.turns) <= max_turns
                paid = billed[f"task {row}"]
                assert paid <= cost_or_bound(result.cost, result.cost_at_most) + 1e-9
                if result.cost is not None:
                    assert result.cost == pytest.approx(paid)
                if call_budget is not None:
                    assert paid <= call_budget + 1e-9
                ran = [one for one in result.tool_calls if "Not run" not in (one.error or "")]
                assert max_tool_calls is None or len(ran) <= max_tool_calls
            if budget is not None:
                assert sum(billed.values()) <= orchestrator.spent_usd + 1e-9 <= budget + 2e-9
            check_ledger(orchestrator, told, project)

    asyncio.run(run())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=some.integers(0, 10**9),
    policy=some.sampled_from(["use", "refresh", "off"]),
    budget=some.none() | some.floats(0.004, 0.06),
    grants_edits=some.booleans(),
)
def test_any_schedule_of_identical_runs(project, seed, policy, budget, grants_edits):
    """What one paid for and others were given is on the books once."""
    new_ledger(project)
    task = f"task {seed} {policy} {budget} {grants_edits}"

    async def run():
        told, story = Told(), Story(seed, "Note" if grants_edits else "Look")
        options = {"max_retries": 2, "budget_usd": budget, "observers": [told], "enable_cache": True}
        async with agents(project, story, Notes(unreliable), **options) as (orchestrator, server):
            results = await orchestrator.execute_multiple(
                [(AGENT, task)] * 4, tools="edit", max_tokens=100, max_turns=5, cache=policy
            )
            check_calls_have_results(server.requests)
            billed = sum(server.billed.values())
            assert len(server.requests) == sum(result.attempts for result in results)
            assert billed <= told.at_most + 1e-9
            if all(one.cost is not None or one.cost_at_most == 0 for one in results):
                assert told.at_least == pytest.approx(billed)
            if budget is not None:
                assert billed <= orchestrator.spent_usd + 1e-9 <= budget + 2e-9
            check_ledger(orchestrator, told, project)

    asyncio.run(run())


FOUR_TURNS = script(
    calls(call("t1"), call("t2"), input_tokens=30),
    calls(call("t3", "Note"), call("t4"), output_tokens=20),
    Answer("Go on", "pause_turn"),
)


def plan_of_four(body):
    return FOUR_TURNS(body) if "tools" in body else Answer()


async def cancelled_at(project, step):
    """Runs an agent and cancels it at this step of any task; returns whether it was still running."""
    steps, told = Steps(), Told()
    tools = Notes(pausing)
    options = {"observers": [told], "budget_usd": 1.0}
    async with agents(project, plan_of_four, tools, **options) as (orchestrator, server):
        orchestrator.enable_tracking = False
        await orchestrator.execute_agent(AGENT, "warm up")
        orchestrator.enable_tracking = True
        told.results.clear()
        before = orchestrator.spent_usd
        asyncio.get_running_loop().set_task_factory(steps.make_task)
        steps.at, steps.count = step, 0
        running = asyncio.ensure_future(orchestrator.execute_agent(AGENT, "Look", tools="edit"))
        steps.victim = running
        outcome = (await asyncio.gather(running, return_exceptions=True))[0]
        steps.victim = None
        asyncio.get_running_loop().set_task_factory(None)
        was_cancelled = isinstance(outcome, asyncio.CancelledError)
        assert (tools.running, tools.closed) == (0, tools.opened)
        assert was_cancelled or outcome.success
        for _ in range(3):
            await asyncio.sleep(0.001)
        check_calls_have_results(server.requests[1:])
        assert server.billed["Look"] <= told.at_most + 1e-9
        assert server.billed["Look"] <= orchestrator.spent_usd - before + 1e-9
        if was_cancelled and told.results:
            # Or cancelled after its end, while its tools were closed.
            assert told.results[0].success or isinstance(told.results[0].error, CancelledCallError)
        check_ledger(orchestrator, told, project)
    return was_cancelled


async def pausing(use):
    await asyncio.sleep(0)


@pytest.mark.timeout(120)
def test_cancelled_at_every_step(project):
    """At any await: no tool runs on, what was sent is on the books, and the ledger has it once."""
    step, ended = 0, 0
    while ended < 3:
        step += 1
        new_ledger(project)
        ended += not asyncio.run(cancelled_at(project, step))
    assert step > 30


async def one_of_three_cancelled_at(project, step):
    """Runs an agent three times at once, and cancels the first at this step; returns whether it was."""
    steps, told = Steps(), Told()
    options = {"observers": [told], "budget_usd": 1.0, "enable_cache": True}
    async with agents(project, plan_of_four, Notes(pausing), **options) as (orchestrator, server):
        asyncio.get_running_loop().set_task_factory(steps.make_task)
        steps.at, steps.count = step, 0
        running = [
            asyncio.ensure_future(orchestrator.execute_agent(AGENT, f"Look {step}", tools="edit"))
            for _ in range(3)
        ]
        steps.victim = running[0]
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        steps.victim = None
        asyncio.get_running_loop().set_task_factory(None)
        assert all(one.success for one in outcomes[1:])
        check_calls_have_results(server.requests)
        billed = sum(server.billed.values())
        assert billed <= told.at_most + 1e-9 and billed <= orchestrator.spent_usd + 1e-9
        check_ledger(orchestrator, told, project)
    return isinstance(outcomes[0], asyncio.CancelledError)


@pytest.mark.timeout(120)
def test_one_of_three_is_cancelled(project, soak):
    """What the others share with it stays on the books."""
    chance = random.Random(1)
    for step in range(1, 150) if soak else chance.sample(range(1, 150), 30):
        new_ledger(project)
        asyncio.run(one_of_three_cancelled_at(project, step))
