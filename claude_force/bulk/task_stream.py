"""Streams of tasks: any iterable of tasks in, results out as they end, in bounded memory."""

from __future__ import annotations

import asyncio
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    Iterable,
    Optional,
    Tuple,
    TypeVar,
    Union,
)

from ..engine.result_builder import CallLabels, failed
from ..engine.task_group import TaskGroup, cancel_and_wait
from ..errors import InputError
from ..limits.call_context import NULL_LISTENER, CallbackError, CallListener
from ..types import AgentResult
from .progress import ProgressTracker

T = TypeVar("T")
Task = Tuple[str, str]
Tasks = Union[Iterable[Task], AsyncIterable[Task]]
OnResult = Callable[[int, AgentResult], None]
# Runs one task, given its index, agent, text and listener.
RunOne = Callable[[int, str, str, CallListener], Awaitable[AgentResult]]

# A call that waits for its next attempt holds no slot, so that another takes it. A small fleet that probes an
# overloaded server needs spare tasks, or all of them would use up their attempts.
_MIN_SPARE, _MAX_SPARE = 24, 88


def task_limit(concurrent: int) -> int:
    """Returns how many tasks may be unfinished where `concurrent` attempts may be in flight."""
    return concurrent + min(concurrent + _MIN_SPARE, _MAX_SPARE)


async def stream_results(
    tasks: Tasks,
    run: RunOne,
    limit: int,
    in_order: bool = False,
    tracker: Optional[ProgressTracker] = None,
) -> AsyncGenerator[AgentResult, None]:
    """Runs `(agent_name, task)` pairs; each result has the `index` of its task.

    A task is taken from `tasks` only while fewer than `limit` are unfinished or not yet read by the caller: a
    slow caller slows the run down and does not fill the memory. A caller that stops early cancels what is
    unfinished. With `in_order`, results come in the order of the tasks. `tracker` counts each row.

    Raises what `tasks` raises, after the results of the tasks taken before.
    """
    pool = _TaskPool(run, limit, tracker)
    # A task group can't be open across a yield, as another task may close this generator. The pool's group is
    # in a task that this generator owns.
    running = asyncio.ensure_future(pool.run_all(tasks))
    early: Dict[int, AgentResult] = {}
    due = 0
    try:
        while True:
            result = await pool.next_result()
            if result is None:
                break
            # In any order, each result is the one that is due.
            early[result.index if in_order and result.index is not None else due] = result
            while due in early:
                yield early.pop(due)
                pool.free.release()
                due += 1
        await running
    finally:
        await cancel_and_wait(running)


async def run_row(
    index: int, task: Any, run: RunOne, tracker: Optional[ProgressTracker] = None
) -> AgentResult:
    """Returns the result of one task; a task that can't be run has a failed result.

    Raises what a callback raises.
    """
    name = str(task[0]) if isinstance(task, (tuple, list)) and task else ""
    listener = tracker.row(index, name) if tracker is not None else None
    raised: Optional[BaseException] = None
    try:
        agent_name, text = parse_task(index, task)
        result = await run(index, agent_name, text, listener or NULL_LISTENER)
    except InputError as error:
        result = failed(CallLabels(name), error, None, 0.0)
    except CallbackError as error:
        raised = error.raised
    if raised is not None:
        # Not in the handler, which would add the CallbackError to its traceback.
        raise raised
    result.index = index
    if listener is not None:
        listener.finished(result)
    return result


def parse_task(index: int, task: Any) -> Task:
    """Returns the agent's name and the text. Raises InputError for anything else; raises a task that is an
    InputError.
    """
    if isinstance(task, InputError):
        raise task
    if not isinstance(task, (tuple, list)) or len(task) != 2:
        raise InputError(f"Task {index} is {task!r:.80}; write it as (agent_name, task).")
    return task[0], task[1]


class _TaskPool:
    """Runs the tasks of one stream in at most `limit` workers.

    Workers are reused: to start a task of a task group costs more than to hand over a row.

    Attributes:
        free: counts the tasks that may be taken on now.
    """

    def __init__(self, run: RunOne, limit: int, tracker: Optional[ProgressTracker]) -> None:
        self._run, self._limit, self._tracker = run, limit, tracker
        # One less than the limit: it is acquired after a task was taken, for the next one.
        self.free = asyncio.Semaphore(limit - 1)
        self._rows: asyncio.Queue[Any] = asyncio.Queue()
        self._ended: asyncio.Queue[Any] = asyncio.Queue()
        self._idle = 0

    async def run_all(self, tasks: Tasks) -> None:
        """Returns when all rows have ended. Raises what `tasks` raises, then."""
        failure: Optional[Exception] = None
        try:
            async with TaskGroup() as group:
                try:
                    await self._feed(tasks, group)
                except Exception as error:
                    failure = error
                self._rows.put_nowait(None)
        finally:
            self._ended.put_nowait(None)
        if failure is not None:
            raise failure

    async def next_result(self) -> Optional[AgentResult]:
        """Returns the next row to end, None after the last. Raises what a row raised."""
        ended = await self._ended.get()
        if isinstance(ended, Exception):
            raise ended
        result: Optional[AgentResult] = ended
        return result

    async def _feed(self, tasks: Tasks, group: TaskGroup) -> None:
        # All tasks are read here: an async generator may hold what only the same task can close.
        index = 0
        async for task in aiter_any(tasks):
            self._rows.put_nowait((index, task))
            if self._rows.qsize() > self._idle:
                group.start_soon(self._work)
            index += 1
            await self.free.acquire()

    async def _work(self) -> None:
        """Runs one row after another."""
        while True:
            self._idle += 1
            row = await self._rows.get()
            self._idle -= 1
            if row is None:
                # For the next worker.
                self._rows.put_nowait(None)
                return
            index, task = row
            try:
                self._ended.put_nowait(await run_row(index, task, self._run, self._tracker))
            except Exception as error:
                self._ended.put_nowait(error)


async def aiter_any(tasks: Union[Iterable[T], AsyncIterable[T]]) -> AsyncIterator[T]:
    """Iterates over an iterable or an async iterable."""
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task
