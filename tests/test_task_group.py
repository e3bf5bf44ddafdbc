"""Task groups: all tasks have ended when the block is left, and the first error is raised itself."""

import asyncio

import anyio
import pytest

from claude_force.engine.task_group import TaskGroup, cancel_and_wait


class Sleeper:
    """A task that cleans up when it is cancelled."""

    def __init__(self):
        self.cleaned_up = False

    async def run(self):
        try:
            await asyncio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(0.01)
                self.cleaned_up = True


async def fail():
    raise ValueError("a defect")


async def cancel_itself():
    raise asyncio.CancelledError


async def run_group(*functions):
    async with TaskGroup() as group:
        for function in functions:
            group.start_soon(function)


async def test_waits_for_its_tasks():
    ended = []

    async def work(number):
        await asyncio.sleep(0)
        ended.append(number)

    async with TaskGroup() as group:
        for number in range(3):
            group.start_soon(work, number)
    assert ended == [0, 1, 2]


async def test_raises_the_first_error_itself():
    sleeper = Sleeper()
    with pytest.raises(ValueError, match="a defect"):
        await run_group(sleeper.run, fail)
    assert sleeper.cleaned_up


async def test_raises_the_error_of_a_nested_group():
    sleeper = Sleeper()
    with pytest.raises(ValueError, match="a defect"):
        await run_group(lambda: run_group(fail), sleeper.run)
    assert sleeper.cleaned_up


async def test_cancelled_task_cancels_the_group():
    sleeper = Sleeper()
    with pytest.raises(asyncio.CancelledError):
        await run_group(sleeper.run, cancel_itself)
    assert sleeper.cleaned_up


async def test_error_in_the_block_cancels_tasks():
    sleeper = Sleeper()
    with pytest.raises(KeyError):
        async with TaskGroup() as group:
            group.start_soon(sleeper.run)
            await asyncio.sleep(0)
            raise KeyError("in the block")
    assert sleeper.cleaned_up


async def test_cancel_waits_for_cleanup():
    sleeper = Sleeper()
    running = asyncio.ensure_future(run_group(sleeper.run, sleeper.run))
    await asyncio.sleep(0.01)
    await cancel_and_wait(running)
    assert running.cancelled()
    assert sleeper.cleaned_up


async def test_ends_with_a_scope_of_anyio():
    sleeper = Sleeper()
    with anyio.move_on_after(0.01) as scope:
        await run_group(sleeper.run)
    assert scope.cancelled_caught
    assert sleeper.cleaned_up


async def test_cancel_and_wait_outlasts_a_cancelled_scope():
    sleeper = Sleeper()
    running = asyncio.ensure_future(sleeper.run())
    await asyncio.sleep(0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await cancel_and_wait(running)
        assert sleeper.cleaned_up
