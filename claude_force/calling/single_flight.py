"""Single flight: identical work that is under way is joined, not started again."""

from __future__ import annotations

import asyncio
import time
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Awaitable, Callable, Dict, Generic, Hashable, List, Optional, Tuple, TypeVar

from ..errors import (
    BudgetExceededError,
    CallError,
    ClaudeForceError,
    DeadlineExceededError,
    TransientError,
    UnknownPriceError,
)

T = TypeVar("T")

# Seconds that are left for the work, or None.
Work = Callable[[Optional[float]], Awaitable[T]]


# The budget is that of the caller who started it; those who joined have others, or none.
_OF_ITS_BUDGET = (BudgetExceededError, UnknownPriceError)


def _can_pass(error: ClaudeForceError) -> bool:
    return isinstance(error, (TransientError, DeadlineExceededError, *_OF_ITS_BUDGET))


def _without_attempts(error: ClaudeForceError) -> ClaudeForceError:
    """For one who joined: the requests and their cost are counted for the caller who started them."""
    other = copy(error)
    if isinstance(other, CallError):
        other.attempts, other.cost, other.timeline = 0, None, ()
    return other


@dataclass
class _Flight(Generic[T]):
    """`orphaned`: the caller who started it has left, and it goes on for the others."""

    task: asyncio.Future[T]
    orphaned: bool = False
    waiting: List[asyncio.Future[None]] = field(default_factory=list)


class SingleFlight(Generic[T]):
    """Work by key, each in a task of its own, so that no caller's cancellation is another's."""

    def __init__(self) -> None:
        self._flights: Dict[Hashable, _Flight[T]] = {}

    async def run(
        self, key: Hashable, work: Work[T], deadline_seconds: Optional[float] = None
    ) -> Tuple[T, bool]:
        """The outcome of `work`, and whether it counts for this caller: for the one who started it, or where
        that one was cancelled for one of those who joined.

        Where work that was joined fails for a reason that can pass, one of those who joined starts it again,
        once: when that fails too, all of them fail. Where it fails by the budget of the one who started it,
        each of them tries with its own. Work that nobody waits for any more is cancelled.
        """
        key = (asyncio.get_running_loop(), key)
        started = time.monotonic()
        joined_before = False
        while True:
            left = None if deadline_seconds is None else deadline_seconds - (time.monotonic() - started)
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._start(key, work, left)
            try:
                outcome = await self._outcome(key, flight, None if leads else left)
                leads, flight.orphaned = leads or flight.orphaned, False
                return outcome, leads
            except asyncio.CancelledError:
                flight.orphaned = flight.orphaned or leads
                raise
            except (CallError, UnknownPriceError) as error:
                if leads:
                    raise
                if joined_before or not _can_pass(error) or (left is not None and left <= 0):
                    raise _without_attempts(error) from error
                joined_before = not isinstance(error, _OF_ITS_BUDGET)

    def _start(self, key: Hashable, work: Work[T], left: Optional[float]) -> _Flight[T]:
        flight = self._flights[key] = _Flight(asyncio.ensure_future(work(left)))
        flight.task.add_done_callback(partial(self._landed, key, flight))
        return flight

    def _landed(self, key: Hashable, flight: _Flight[T], _: object) -> None:
        self._forget(key, flight)
        for one in flight.waiting:
            if not one.done():
                one.set_result(None)
        if not flight.task.cancelled():
            # Looked at here, so that asyncio has no complaint when everyone who waited is gone.
            flight.task.exception()

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _outcome(self, key: Hashable, flight: _Flight[T], patience: Optional[float]) -> T:
        landed = asyncio.get_running_loop().create_future()
        flight.waiting.append(landed)
        try:
            if patience is None:
                await landed
            else:
                await asyncio.wait([landed], timeout=patience)
        finally:
            flight.waiting.remove(landed)
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()
                # It has let go of its connection when the caller goes on.
                await asyncio.wait([flight.task])
        if not landed.done():
            raise DeadlineExceededError(f"No answer within the deadline of {patience:g} s")
        return flight.task.result()
