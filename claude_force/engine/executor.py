"""Executes calls: joins an identical one in flight, finds the answer in the cache, or sends the call."""

from __future__ import annotations

import asyncio
import time
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Awaitable, Callable, Dict, Generic, Hashable, List, NoReturn, Optional, Tuple, TypeVar

import anyio

from ..cache.diagnostics import explained
from ..cache.request_key import OFF, USE, RequestKey, request_key
from ..costs import clear_cost
from ..errors import (
    BudgetExceededError,
    CallError,
    ClaudeForceError,
    ClosedError,
    DeadlineExceededError,
    InvalidOptionError,
    UnknownPriceError,
)
from ..limits.call_context import CallbackError, CallContext
from ..limits.call_cost import CallCost
from ..types import Call, Clock, Reply
from .async_cache import AsyncResponseCache
from .call_sender import CallSender
from .call_settings import CallSettings
from .result_builder import as_shared

T = TypeVar("T")
_Key = Tuple[asyncio.AbstractEventLoop, Hashable]

# Returns the sender for a call of this model.
Connect = Callable[[str, CallContext], Awaitable[CallSender]]
# Takes the seconds left for the work (None: unbounded) and the CallCost that receives its attempts.
Work = Callable[[Optional[float], CallCost], Awaitable[T]]

# The leader's budget failed the work; those who joined have other budgets, or none.
_BUDGET_ERRORS = (BudgetExceededError, UnknownPriceError)


class CachingExecutor:
    """Executes calls in this process: single flight, then the cache, then the sender of `connect`.

    Example:
        executor = CachingExecutor(lambda model, context: pool.sender(settings, model), Clock())
        reply = await executor.execute(call, USE, settings, 60.0, CallContext())
    """

    max_in_flight: Optional[int] = None

    def __init__(self, connect: Connect, clock: Clock) -> None:
        self._connect, self._clock = connect, clock
        self._flights: SingleFlight[Reply] = SingleFlight()
        self._cache: Optional[AsyncResponseCache] = None
        self._settings: Optional[CallSettings] = None

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """Implements `CallBackend.run_id`: no run is durable here."""
        if given is not None:
            raise InvalidOptionError("run_id names a durable run: give the orchestrator durable=URL too.")
        return None

    async def execute(
        self,
        call: Call,
        cache_policy: str,
        settings: CallSettings,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Joins an identical call that is in flight, else starts one. Raises InputError, CallError."""
        key = request_key(call, settings.service) if cache_policy != OFF else None
        call_cost = context.call_cost or CallCost()
        if key is None or settings.excludes(call.agent_name):
            sender = await self._sender(call, context)
            return await sender.send(call, deadline_seconds, context, call_cost)
        cache = await self.cache_for(settings)
        # Avoid a closure: with hundreds of calls in flight, its cells slow down garbage collection.
        work = partial(self._lookup_or_send, call, cache_policy, key, cache, context)
        flight_key = (cache_policy, key.fields())
        budget_key = (context.budgets, context.shared_limits, context.price)
        reply, pays = await self._flights.run(flight_key, work, deadline_seconds, call_cost, budget_key)
        return call_cost.added_to(reply if pays else as_shared(reply))

    async def _lookup_or_send(
        self,
        call: Call,
        cache_policy: str,
        key: RequestKey,
        cache: AsyncResponseCache,
        context: CallContext,
        left: Optional[float],
        call_cost: CallCost,
    ) -> Reply:
        cached, began = cache.get_in_memory(key) if cache_policy == USE else None, self._clock.now()
        if cached is not None:
            return cached
        with cache.lease(key) as lease:
            if cache_policy == USE:
                cached, is_acquired = await lease.get_or_acquire()
            else:
                is_acquired = await lease.acquire()
            if cached is None and not is_acquired:
                await lease.wait(left, partial(context.check_open, call.model))
                # The process that had the lease may have cached the answer.
                cached = await cache.get(key) if cache_policy == USE else None
            if cached is not None:
                return cached
            if left is not None:
                left -= self._clock.now() - began
            sender = await self._sender(call, context)
            reply = await sender.send(call, left, context, call_cost)
            await cache.put(key, reply)
            return reply

    async def _sender(self, call: Call, context: CallContext) -> CallSender:
        """Raises ClosedError before a connection is opened that nobody would close."""
        context.check_open(call.model)
        return await self._connect(call.model, context)

    def cache_key(self, call: Call, settings: CallSettings) -> Optional[bytes]:
        """Implements `CallBackend.cache_key`."""
        key = request_key(call, settings.service)
        if key is None or settings.excludes(call.agent_name):
            return None
        return key.digest()

    async def is_cached(self, call: Call, settings: CallSettings) -> bool:
        """Implements `CallBackend.is_cached`."""
        key = request_key(call, settings.service)
        if key is None:
            return False
        cache = await self.cache_for(settings)
        return await cache.run(lambda opened: opened.has(*key), False)

    async def explain_miss(self, call: Call, settings: CallSettings) -> Dict[str, Any]:
        """Implements `CallBackend.explain_miss`."""
        key = request_key(call, settings.service)
        if key is None:
            return explained(False, "An option of this call can't be written as JSON, so it is never cached.")
        cache = await self.cache_for(settings)
        return await cache.run(
            lambda opened: opened.explain_miss(*key), explained(False, "There is no cache.")
        )

    async def drain(self, seconds: float) -> None:
        """Does nothing: the calls in this process are the sender's."""

    def close_files(self) -> None:
        """Does nothing: the cache's files are closed by `close`."""

    async def close(self) -> None:
        """Ends calls that are left and closes the cache's files; a later call opens them again."""
        await self._flights.close()
        if self._cache is not None:
            await self._cache.close()

    async def cache_for(self, settings: CallSettings) -> AsyncResponseCache:
        """The cache that the settings describe; the one before is closed when that changes."""
        last, self._settings = self._settings, settings
        if self._cache is None or last is None or not settings.has_cache_of(last):
            before, is_shared = self._cache, settings.cache is not None
            self._cache = AsyncResponseCache(settings.open_cache, self._clock, shared=is_shared)
            if before is not None:
                await before.close()
        return self._cache


@dataclass
class _Flight(Generic[T]):
    """One run of the work.

    Attributes:
        cost: what its attempts have cost so far.
        budget_key: equal for callers who are charged to the same budgets; None where that is unknown.
        leader_left: the caller who started it was cancelled, and nobody has claimed the cost yet.
        waiting: a future for each caller who waits for it.
        is_closed: it was cancelled by `SingleFlight.close`.
    """

    task: asyncio.Future[T]
    cost: CallCost
    budget_key: Hashable = None
    leader_left: bool = False
    waiting: List[asyncio.Future[None]] = field(default_factory=list)
    is_closed: bool = False

    def is_final(self, error: ClaudeForceError, budget_key: Hashable) -> bool:
        """Whether a caller with this budget would meet the same error again."""
        if isinstance(error, _BUDGET_ERRORS):
            return budget_key is not None and budget_key == self.budget_key
        if isinstance(error, CallError):
            # A skipped call is one of a run that has ended; the other callers' runs may go on.
            return not (error.retryable or error.skipped or isinstance(error, DeadlineExceededError))
        return True

    def claim_cost(self) -> bool:
        """Makes one caller pay for the work, if its leader has left; returns whether it does."""
        claimed, self.leader_left = self.leader_left, False
        return claimed


@dataclass
class _Caller:
    """A caller who waits for work that it leads or has joined.

    Attributes:
        call_cost: receives what it pays for.
        budget_key: as in `_Flight`.
        leads: whether it has started the work that it waits for.
        has_joined: whether work that it joined has failed for a transient reason. The next failure is final.
        left: seconds until its deadline when it began to wait for this work; None without one.
    """

    call_cost: CallCost
    budget_key: Hashable
    deadline_seconds: Optional[float]
    started: float = field(default_factory=time.monotonic)
    leads: bool = False
    has_joined: bool = False
    left: Optional[float] = None

    def seconds_left(self) -> Optional[float]:
        """Returns the seconds until the deadline from now on, and sets `left` to them."""
        if self.deadline_seconds is not None:
            self.left = self.deadline_seconds - (time.monotonic() - self.started)
        return self.left

    def bounded(self, landed: asyncio.Future[None]) -> Awaitable[Any]:
        """Returns an awaitable that ends with `landed` or at the deadline.

        A leader waits without a bound: its work ends at the deadline by itself.
        """
        return landed if self.leads or self.left is None else asyncio.wait([landed], timeout=self.left)

    def outcome_of(self, flight: _Flight[T]) -> Optional[Tuple[T, bool]]:
        """Returns the result and whether this caller pays for it; None if it starts the work again.

        Raises the error of the work where another try would meet it again.
        """
        pays = self.leads or flight.claim_cost()
        try:
            return flight.task.result(), pays
        except asyncio.CancelledError:
            if pays:
                self.call_cost.absorb(flight.cost)
            if flight.is_closed:
                closed = ClosedError("The orchestrator was closed during the call")
                self.call_cost.copy_to(closed)
                raise closed from None
            # A callback of the leader may have cancelled its work; nobody has cancelled the others.
            if self.leads:
                raise
        except (CallError, UnknownPriceError) as error:
            is_late = self.left is not None and self.left <= 0
            if self.leads or self.has_joined or is_late or flight.is_final(error, self.budget_key):
                _fail(error, self.leads, pays, self.call_cost)
            if pays and isinstance(error, CallError):
                self.call_cost.absorb_error(error)
            self.has_joined = not isinstance(error, _BUDGET_ERRORS)
        except BaseException as error:
            if pays:
                self.call_cost.absorb(flight.cost)
            # Those who joined have other callbacks than the leader, or none.
            if self.leads or not isinstance(error, CallbackError):
                raise
        return None


class SingleFlight(Generic[T]):
    """Runs work by key, each in a task, so that cancelling one caller does not cancel the others.

    Example:
        flights = SingleFlight()
        answer, pays = await flights.run("key", work)
    """

    def __init__(self) -> None:
        self._flights: Dict[_Key, _Flight[T]] = {}

    async def run(
        self,
        key: Hashable,
        work: Work[T],
        deadline_seconds: Optional[float] = None,
        call_cost: Optional[CallCost] = None,
        budget_key: Hashable = None,
    ) -> Tuple[T, bool]:
        """Joins the work of this key that is in flight, or starts it as its leader.

        The leader pays for it. If the leader is cancelled, the work goes on for the others, and one of them
        pays the rest; if nobody waits any more, the work is cancelled and the last to leave pays.

        If work that was joined fails for a transient reason, one of those who joined starts it again, once.
        If it fails for the leader's budget, each of them starts it with its own budget, unless `budget_key`
        is the same. If a callback of the leader raises or cancels the work, the leader alone fails, and the
        others start it again.

        Args:
            deadline_seconds: bounds the wait of this caller.
            call_cost: receives what this caller pays for, as far as neither result nor error tell it.

        Returns:
            The outcome, and whether this caller pays for it.

        Raises:
            CallError: the work's, with its cost where this caller pays; or DeadlineExceededError.
        """
        loop_key = (asyncio.get_running_loop(), key)
        caller = _Caller(call_cost or CallCost(), budget_key, deadline_seconds)
        while True:
            flight = self._join_or_start(loop_key, work, caller)
            landed = asyncio.get_running_loop().create_future()
            flight.waiting.append(landed)
            try:
                await caller.bounded(landed)
                if not landed.done():
                    raise DeadlineExceededError(f"No answer within the deadline of {caller.left:g} s")
            except (asyncio.CancelledError, DeadlineExceededError) as error:
                flight.waiting.remove(landed)
                await self._leave(loop_key, flight, caller)
                if isinstance(error, DeadlineExceededError):
                    caller.call_cost.copy_to(error)
                raise
            flight.waiting.remove(landed)
            outcome = caller.outcome_of(flight)
            if outcome is not None:
                return outcome

    async def close(self) -> None:
        """Ends the work of this event loop, if there still is any; its callers get a ClosedError."""
        loop = asyncio.get_running_loop()
        flights = [flight for key, flight in self._flights.items() if key[0] is loop]
        for flight in flights:
            flight.is_closed = True
            flight.task.cancel()
        for flight in flights:
            await wait_until_ended(flight.task)

    def _join_or_start(self, key: _Key, work: Work[T], caller: _Caller) -> _Flight[T]:
        flight, left = self._flights.get(key), caller.seconds_left()
        caller.leads = flight is None
        if flight is not None:
            return flight
        cost = CallCost()
        # Owned by those who wait, of whom the last to leave cancels it and waits for its end, and by `close`.
        flight = _Flight(asyncio.ensure_future(work(left, cost)), cost, caller.budget_key)
        self._flights[key] = flight
        flight.task.add_done_callback(partial(self._land, key, flight))
        return flight

    def _land(self, key: _Key, flight: _Flight[T], _: object) -> None:
        self._forget(key, flight)
        for waiting in flight.waiting:
            if not waiting.done():
                waiting.set_result(None)
        if not flight.task.cancelled():
            # Retrieved here, so that asyncio does not complain where every caller has gone.
            flight.task.exception()

    def _forget(self, key: _Key, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _leave(self, key: _Key, flight: _Flight[T], caller: _Caller) -> None:
        """Ends the wait of one caller, and the work with it where nobody else waits."""
        if caller.leads:
            flight.leader_left = True
            if flight.waiting and not flight.task.done() and not flight.cost.is_answered:
                # The leader pays what was spent by now. An outcome would carry all of its cost.
                caller.call_cost.absorb(flight.cost)
        try:
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()
                await wait_until_ended(flight.task)
        finally:
            if not flight.waiting and flight.claim_cost():
                caller.call_cost.absorb(flight.cost)


def _fail(error: ClaudeForceError, leads: bool, pays: bool, call_cost: CallCost) -> NoReturn:
    """Raises `error` with the cost that falls to this caller."""
    own = error if leads else copy(error)
    if isinstance(own, CallError):
        if not pays:
            clear_cost(own)
        if not call_cost.is_empty:
            call_cost.absorb_error(own)
            call_cost.copy_to(own)
    raise own from (error.__cause__ if leads else error)


async def wait_until_ended(task: asyncio.Future[T]) -> None:
    """Returns when a cancelled task has ended, also if the caller is cancelled meanwhile: the task's
    connection is closed then, and its cost complete."""
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
