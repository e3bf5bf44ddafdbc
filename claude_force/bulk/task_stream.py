"""Many calls: any stream of tasks in, results out as they end, never more in memory than are under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from ..engine.result_builder import CallLabels, failed
from ..errors import InputError
from ..limits.call_context import NULL_LISTENER, CallListener
from ..types import AgentResult
from .progress import ProgressTracker

T = TypeVar("T")
Task = Tuple[str, str]
Tasks = Union[Iterable[Task], AsyncIterable[Task]]
OnResult = Callable[[int, AgentResult], None]
# An index, an agent, its task, and who watches it.
RunOne = Callable[[int, str, str, CallListener], Awaitable[AgentResult]]

# Calls that wait for their next attempt hold no slot, so others take it; with few of them, a small fleet that
# probes an overloaded server would use up all their attempts.
_FEWEST_WAITING, _MOST_WAITING = 24, 88


def most_under_way(concurrent: int) -> int:
    """How many tasks to take on where `concurrent` attempts may be on the wire."""
    return concurrent + min(concurrent + _FEWEST_WAITING, _MOST_WAITING)


async def stream_results(
    tasks: Tasks,
    run: RunOne,
    most_under_way: int,
    in_order: bool = False,
    tracker: Optional[ProgressTracker] = None,
) -> AsyncGenerator[AgentResult, None]:
    """Runs `(agent_name, task)` pairs; each result has the `index` of its task.

    A task is taken from `tasks` only when fewer than `most_under_way` are unfinished or not yet taken by
    the caller: a slow caller slows the run and does not fill the memory. A caller who stops early cancels
    what is under way. With `in_order` results come in the order of the tasks. `tracker` is told of each row.

    Raises what `tasks` raises, after the results of what was under way by then.
    """
    crew = _Crew(run, most_under_way, tracker)
    early: Dict[int, AgentResult] = {}
    due = 0
    feeding = asyncio.ensure_future(crew.feed(tasks))
    try:
        while True:
            result = await crew.next()
            if result is None:
                break
            # What comes in any order is always the one that is due.
            early[result.index if in_order and result.index is not None else due] = result
            while due in early:
                yield early.pop(due)
                crew.room.release()
                due += 1
        await feeding
    finally:
        await crew.end(feeding)


async def run_row(
    index: int, task: Any, run: RunOne, tracker: Optional[ProgressTracker] = None
) -> AgentResult:
    """One task's result, whatever it is: a task that can't be run is a failed one."""
    name = str(task[0]) if isinstance(task, (tuple, list)) and task else ""
    listener = tracker.row(index, name) if tracker is not None else None
    try:
        agent_name, text = parse_task(index, task)
        result = await run(index, agent_name, text, listener or NULL_LISTENER)
    except InputError as error:
        result = failed(CallLabels(name), error, None, 0.0)
    result.index = index
    if listener is not None:
        listener.finished(result)
    return result


def parse_task(index: int, task: Any) -> Task:
    """The agent's name and the task. Raises InputError for anything else, and the one that a task is."""
    if isinstance(task, InputError):
        raise task
    if not isinstance(task, (tuple, list)) or len(task) != 2:
        raise InputError(f"Task {index} is {task!r:.80}; write it as (agent_name, task).")
    return task[0], task[1]


@dataclass
class _Crew:
    """The tasks that are under way. `room` counts how many more may be taken on."""

    run: RunOne
    most: int
    tracker: Optional[ProgressTracker] = None
    jobs: Set[asyncio.Future[AgentResult]] = field(default_factory=set)

    def __post_init__(self) -> None:
        # One less: room is made after a task was taken on, for the next.
        self.room = asyncio.Semaphore(self.most - 1)
        self._ended: asyncio.Queue[Any] = asyncio.Queue()
        self._given, self._fed = 0, -1

    async def feed(self, tasks: Tasks) -> None:
        count = 0
        try:
            async for task in aiter_any(tasks):
                job = asyncio.ensure_future(run_row(count, task, self.run, self.tracker))
                self.jobs.add(job)
                job.add_done_callback(self._ended.put_nowait)
                count += 1
                await self.room.acquire()
        finally:
            self._ended.put_nowait(count)

    async def next(self) -> Optional[AgentResult]:
        """The next to end; None when as many have ended as were fed."""
        while self._given != self._fed:
            ended = await self._ended.get()
            if isinstance(ended, int):
                self._fed = ended
                continue
            self.jobs.discard(ended)
            self._given += 1
            result: AgentResult = ended.result()
            return result
        return None

    async def end(self, feeding: asyncio.Future[None]) -> None:
        rest: List[asyncio.Future[Any]] = [feeding, *self.jobs]
        for job in rest:
            job.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def aiter_any(tasks: Union[Iterable[T], AsyncIterable[T]]) -> AsyncIterator[T]:
    """The tasks, wherever they come from."""
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task
