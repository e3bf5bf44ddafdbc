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
    Union,
)

from .errors import InputError
from .results import Run, failed
from .types import AgentResult

Task = Tuple[str, str]
Tasks = Union[Iterable[Task], AsyncIterable[Task]]
OnResult = Callable[[int, AgentResult], None]
RunOne = Callable[[str, str], Awaitable[AgentResult]]


async def stream(
    tasks: Tasks, run: RunOne, most_under_way: int, in_order: bool = False
) -> AsyncGenerator[AgentResult, None]:
    """Runs `(agent_name, task)` pairs; each result has the `index` of its task.

    A task is taken from `tasks` only when fewer than `most_under_way` are unfinished or not yet taken by
    the caller: a slow caller slows the run and does not fill the memory. A caller who stops early cancels
    what is under way. With `in_order` results come in the order of the tasks.

    Raises what `tasks` raises, after the results of what was under way by then.
    """
    crew = _Crew(run, most_under_way)
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


async def row(index: int, task: Any, run: RunOne) -> AgentResult:
    """One task's result, whatever it is: a task that can't be run is a failed one."""
    name = str(task[0]) if isinstance(task, (tuple, list)) and task else ""
    try:
        if not isinstance(task, (tuple, list)) or len(task) != 2:
            raise InputError(f"Task {index} is {task!r:.80}; write it as (agent_name, task).")
        result = await run(task[0], task[1])
    except InputError as error:
        result = failed(Run(name), error, None, 0.0)
    result.index = index
    return result


@dataclass
class _Crew:
    """The tasks that are under way. `room` counts how many more may be taken on."""

    run: RunOne
    most: int
    jobs: Set[asyncio.Future[AgentResult]] = field(default_factory=set)

    def __post_init__(self) -> None:
        # One less: room is made after a task was taken on, for the next.
        self.room = asyncio.Semaphore(self.most - 1)
        self._ended: asyncio.Queue[Any] = asyncio.Queue()
        self._given, self._fed = 0, -1

    async def feed(self, tasks: Tasks) -> None:
        count = 0
        try:
            async for task in _each(tasks):
                job = asyncio.ensure_future(row(count, task, self.run))
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


async def _each(tasks: Tasks) -> AsyncIterator[Task]:
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task
