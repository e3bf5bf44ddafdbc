"""Callbacks of the sync face: they are called in the engine's thread, and may end the program.

asyncio lets SystemExit and KeyboardInterrupt of a task end the whole event loop, and then nobody wakes the
caller. So they travel as CallbackExit to the caller's thread, and are raised there.
"""

from __future__ import annotations

from functools import wraps
from typing import Any, AsyncIterable, AsyncIterator, Callable, Iterator, List, Optional, Sized, TypeVar

from .bulk import Task, Tasks
from .engine.result_builder import Observer

C = TypeVar("C", bound=Callable[..., Any])

_EXITS = (SystemExit, KeyboardInterrupt)


class CallbackExit(BaseException):
    """A callback wants to end the program; `reason` is what it raised. No `except Exception` stops it."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(reason)
        self.reason = reason


def guarded(callback: Optional[C]) -> Optional[C]:
    """The callback; what would end the event loop is raised as CallbackExit."""
    return None if callback is None else _guarded(callback)


def _guarded(callback: C) -> C:
    @wraps(callback, assigned=(), updated=())
    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except _EXITS as reason:
            raise CallbackExit(reason) from None

    return call  # type: ignore[return-value]


class GuardedObservers(List[Observer]):
    """A caller's list of observers, each of them guarded when it is told."""

    def __iter__(self) -> Iterator[Observer]:
        return map(_guarded, super().__iter__())


def guarded_tasks(tasks: Tasks) -> Tasks:
    """The tasks; likewise what their iterator raises. A list stays as it is."""
    if isinstance(tasks, Sized):
        return tasks
    return _each_of(tasks) if isinstance(tasks, AsyncIterable) else _all_of(iter(tasks))


def _all_of(tasks: Iterator[Task]) -> Iterator[Task]:
    try:
        yield from tasks
    except _EXITS as reason:
        raise CallbackExit(reason) from None


async def _each_of(tasks: AsyncIterable[Task]) -> AsyncIterator[Task]:
    try:
        async for task in tasks:
            yield task
    except _EXITS as reason:
        raise CallbackExit(reason) from None
