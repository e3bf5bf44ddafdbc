"""Structured concurrency: a task group that ends as one call would, with one error or a cancellation."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any, Awaitable, Callable, Optional, Type

import anyio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class TaskGroup:
    """Runs tasks that have all ended when its block is left.

    It differs from a task group of anyio in two ways. It raises the first error of its tasks, not a group
    of errors, so that callers can catch it. And a task that is cancelled by itself, such as by a call whose
    shared work was cancelled, cancels the group, where anyio would go on without that task.

        async with TaskGroup() as group:
            for url in urls:
                group.start_soon(fetch, url)

    A task that has to finish something after its cancellation does that in `anyio.CancelScope(shield=True)`.
    """

    def __init__(self) -> None:
        self._group = anyio.create_task_group()
        self._is_cancelled = False

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Starts `function(*args)` as a task of the group."""
        self._group.start_soon(self._run, function, *args)

    async def _run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await function(*args)
        except asyncio.CancelledError:
            self._is_cancelled = True
            self._group.cancel_scope.cancel()
            raise

    async def __aenter__(self) -> TaskGroup:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as errors:
            first = _first_of(errors)
        else:
            if error is None and self._is_cancelled:
                raise asyncio.CancelledError
            return
        raise first


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def cancel_and_wait(task: asyncio.Future[Any]) -> None:
    """Cancels `task` and returns when it has ended, also within a cancelled scope of anyio."""
    task.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.gather(task, return_exceptions=True)
