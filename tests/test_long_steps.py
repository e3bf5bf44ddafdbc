"""Steps whose task has long answers: bounded by the model's context, and refused before they are sent."""

import pytest
from fleet import fleet, write_project

from claude_force.errors import InvalidTaskError
from claude_force.testing import faults
from claude_force.workflow import Step, Workflow

FOUR = tuple(Step(name, "python-expert", task=f"Write {name}") for name in "abcd")
LAST = Step("last", "code-reviewer", dependencies=("a", "b", "c", "d"))
GRAPH = Workflow("long", (*FOUR, LAST))
LONG = 32_000


def long_answer(body):
    return "word " * (LONG // 5)


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


async def test_answers_of_128000_characters_are_told(project):
    async with fleet(project, {"answer": long_answer, "output_tokens": 8000}) as (running, server):
        result = await running.execute_workflow(GRAPH, "x", max_tokens=16_000)
        assert result.success, result.steps
        assert len(server.requests) == 5
        assert len(server.requests[-1].body["messages"][0]["content"]) > 4 * LONG


async def test_run_that_failed_at_such_a_step_is_resumed(project):
    def plan(received):
        is_last = "previous_answer" in received.body["messages"][0]["content"]
        return faults.status(400) if is_last and not healed else None

    healed = []
    async with fleet(project, {"answer": long_answer, "faults": plan}) as (running, server):
        first = await running.execute_workflow(GRAPH, "x", max_tokens=16_000, cache="off")
        assert not first.success
        healed.append(True)
        second = await running.execute_workflow(GRAPH, resume=first.run_id, max_tokens=16_000, cache="off")
        assert second.success
        assert len(server.requests) == 6


async def test_beyond_the_context_nothing_is_sent(project):
    def huge(body):
        return "x" * 300_000

    many = tuple(Step(f"s{number}", "python-expert", task=f"Write {number}") for number in range(4))
    last = Step(
        "last", "code-reviewer", dependencies=tuple(step.id for step in many), model="claude-haiku-4-5"
    )
    async with fleet(project, {"answer": huge}) as (running, server):
        result = await running.execute_workflow(Workflow("w", (*many, last)), "x", max_tokens=120_000)
        failed = next(step for step in result.steps if step.id == "last")
        assert isinstance(failed.results[-1].error, InvalidTaskError)
        assert "the context of claude-haiku-4-5, 200,000 tokens" in failed.reason
        assert "1,200," in failed.reason
        assert len(server.requests) == 4


async def test_plan_tells_of_it_before_anything_is_paid(project):
    last = Step("last", "code-reviewer", dependencies=("a", "b", "c", "d"), model="claude-haiku-4-5")
    async with fleet(project) as (running, server):
        plan = await running.plan(Workflow("w", (*FOUR, last)), "x", max_tokens=100_000)
        problems = {planned.step.id: planned.problem for planned in plan.steps}
        assert "with the longest answers before it: Task too large" in problems["last"]
        assert not any(problems[step.id] for step in FOUR)
        fine = await running.plan(GRAPH, "x", max_tokens=4096)
        assert not any(planned.problem for planned in fine.steps)
        assert server.requests == []


async def test_limit_of_a_callers_task_stays(project):
    async with fleet(project) as (running, server):
        with pytest.raises(InvalidTaskError, match="100,000"):
            await running.execute_workflow(GRAPH, "x" * 100_001)
        with pytest.raises(InvalidTaskError, match="100,000"):
            await running.execute_agent("python-expert", "x" * 100_001)
        assert server.requests == []
