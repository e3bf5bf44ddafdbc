"""Single flight: identical work that is under way is joined, not started again."""

from __future__ import annotations

import asyncio
import time
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Awaitable, Callable, Dict, Generic, Hashable, List, NoReturn, Optional, Tuple, TypeVar

import anyio

from ..costs import clear_cost
from ..errors import (
    BudgetExceededError,
    CallError,
    ClaudeForceError,
    DeadlineExceededError,
    UnknownPriceError,
)
from ..limits.call_cost import CallCost

T = TypeVar("T")

# Seconds that are left for the work, or None.
Work = Callable[[Optional[float]], Awaitable[T]]


# The budget is that of the caller who started it; those who joined have others, or none.
_OF_ITS_BUDGET = (BudgetExceededError, UnknownPriceError)


def _can_pass(error: ClaudeForceError) -> bool:
    if isinstance(error, CallError) and (error.retryable or error.skipped):
        # One that was skipped ended the run of the caller who started it, and not that of the others.
        return True
    return isinstance(error, (DeadlineExceededError, *_OF_ITS_BUDGET))


def _fail(error: ClaudeForceError, leads: bool, bears: bool, call_cost: CallCost) -> NoReturn:
    """For one who joined: unless it `bears` them, the requests and their cost are another caller's."""
    other = error if leads else copy(error)
    if isinstance(other, CallError):
        if not bears:
            clear_cost(other)
        call_cost.add_inherited(other)
    raise other from (error.__cause__ if leads else error)


@dataclass
class _Flight(Generic[T]):
    """`call_cost` is that of the caller who started it; `orphaned`: that one has left, and it goes on for the
    others, the first of whom to look bears the rest."""

    task: asyncio.Future[T]
    call_cost: CallCost
    purse: Hashable = None
    orphaned: bool = False
    waiting: List[asyncio.Future[None]] = field(default_factory=list)

    def cannot_afford(self, error: ClaudeForceError, purse: Hashable) -> bool:
        """Whether nobody who has this `purse` can, since the one who started it could not."""
        return isinstance(error, _OF_ITS_BUDGET) and purse is not None and purse == self.purse

    def bequeath(self) -> bool:
        """Whether the rest falls to the one who asks."""
        orphaned, self.orphaned = self.orphaned, False
        return orphaned

    def leave(self, leads: bool, call_cost: CallCost) -> None:
        """Called by one who no longer waits, with its own bill; the last one bears what nobody else can."""
        if self.waiting and leads:
            self.orphaned = True
            call_cost.transfer(self.task.done())
        elif not self.waiting and self.bequeath():
            call_cost.own_share().absorb(self.call_cost)


class SingleFlight(Generic[T]):
    """Work by key, each in a task of its own, so that no caller's cancellation is another's."""

    def __init__(self) -> None:
        self._flights: Dict[Hashable, _Flight[T]] = {}

    async def run(
        self,
        key: Hashable,
        work: Work[T],
        deadline_seconds: Optional[float] = None,
        call_cost: Optional[CallCost] = None,
        purse: Hashable = None,
    ) -> Tuple[T, bool]:
        """The outcome of `work`, and whether it counts for this caller: for the one who started it, or where
        that one was cancelled for one of those who joined.

        Where work that was joined fails for a reason that can pass, one of those who joined starts it again,
        once: when that fails too, all of them fail. Where it fails by the budget of the one who started it,
        each of them tries with its own, unless that is of the same `purse`. Work that nobody waits for any
        more is cancelled. `call_cost` is the caller's, for what `work` costs, and what falls to it of work
        that another started and left. Each cost is borne once, by the budget of the one who started the work.
        """
        call_cost, key = call_cost or CallCost(), (asyncio.get_running_loop(), key)
        started, joined_before = time.monotonic(), False
        while True:
            left = None if deadline_seconds is None else deadline_seconds - (time.monotonic() - started)
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._start(key, work, left, call_cost, purse)
            await self._landing(key, flight, leads, left, call_cost)
            bears = leads or flight.bequeath()
            try:
                return flight.task.result(), bears
            except asyncio.CancelledError:
                if bears and not leads:
                    call_cost.own_share().absorb(flight.call_cost)
                raise
            except (CallError, UnknownPriceError) as error:
                final = not _can_pass(error) or flight.cannot_afford(error, purse)
                if leads or joined_before or final or (left is not None and left <= 0):
                    _fail(error, leads, bears, call_cost)
                if bears and isinstance(error, CallError):
                    call_cost.inherit(error)
                joined_before = not isinstance(error, _OF_ITS_BUDGET)

    def _start(
        self, key: Hashable, work: Work[T], left: Optional[float], call_cost: CallCost, purse: Hashable
    ) -> _Flight[T]:
        flight = self._flights[key] = _Flight(asyncio.ensure_future(work(left)), call_cost, purse)
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

    async def _landing(
        self, key: Hashable, flight: _Flight[T], leads: bool, left: Optional[float], call_cost: CallCost
    ) -> None:
        """Returns when the work has ended. Raises DeadlineExceededError for one who joined and has no time
        left."""
        landed = asyncio.get_running_loop().create_future()
        flight.waiting.append(landed)
        try:
            if leads or left is None:
                await landed
            else:
                await asyncio.wait([landed], timeout=left)
                if not landed.done():
                    raise DeadlineExceededError(f"No answer within the deadline of {left:g} s")
        except (asyncio.CancelledError, DeadlineExceededError) as error:
            flight.waiting.remove(landed)
            await self._leave(key, flight, leads, call_cost)
            if isinstance(error, DeadlineExceededError):
                call_cost.own_share().copy_to(error)
            raise
        flight.waiting.remove(landed)

    async def _leave(self, key: Hashable, flight: _Flight[T], leads: bool, call_cost: CallCost) -> None:
        try:
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()
                await ended(flight.task)
        finally:
            flight.leave(leads, call_cost)


async def ended(task: asyncio.Future[T]) -> None:
    """Returns when a cancelled task has ended, also for a caller who is cancelled meanwhile. Its connection
    is closed then, and its bill complete."""
    again: Optional[asyncio.CancelledError] = None
    # A scope of anyio's cancels what is within it again and again.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                again = error
    if again is not None:
        raise again
