"""Sends calls to workers: writes them into Postgres, and polls for their results."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Dict, Iterator, Optional, Union

import anyio
from anyio import to_thread

from .. import settings
from ..cache.request_key import OFF, USE, RequestKey
from ..engine.call_sender import CallSender
from ..engine.call_settings import CallSettings
from ..engine.executor import CachingExecutor, SingleFlight
from ..engine.result_builder import as_shared
from ..errors import CallError, CancelledCallError, ClaudeForceError, ClosedError, DeadlineExceededError
from ..limits.budget import to_nano_usd
from ..limits.call_context import CallbackError, CallContext
from ..limits.call_cost import CallCost
from ..limits.rate_limiter import Rates
from ..types import Call, Clock, Reply
from .calls import CancelQueued, Enqueue, save_cancelled
from .database import Database, DatabaseUrl
from .db_worker import DbWorker
from .delivery import (
    BudgetCharge,
    BudgetIds,
    Collect,
    Delivered,
    ResultPoller,
    ResultRow,
    budget_cost,
    outcome_of,
)
from .serialization import (
    CallRequest,
    Outcome,
    checked_request_key,
    checked_run_id,
    dump_request,
    new_call_id,
)
from .shared_cache import SharedCache
from .shared_limiter import SetRates

POLL_SECONDS = 0.05
# Added to the deadline, so that the worker can report that it has passed and what the call has cost.
_DEADLINE_GRACE = 1.0


class PostgresBackend:
    """Implements `CallBackend` for `AsyncAgentOrchestrator(durable="postgresql://...")`."""

    max_in_flight = settings.MAX_ENQUEUED_CALLS

    def __init__(self, address: DatabaseUrl, clock: Clock) -> None:
        self._clock = clock
        self._database = Database(address)
        self._worker = DbWorker(self._database)
        self._flights: SingleFlight[Reply] = SingleFlight()
        self._executor = CachingExecutor(_never_connect, clock)
        self._cache: Optional[SharedCache] = None
        self._budgets = BudgetIds()
        self._results = ResultPoller(self._worker, clock, POLL_SECONDS)
        self._rates: Optional[Rates] = None
        self._draining = False
        self.run_id, self.cache_key = checked_run_id, self._executor.cache_key

    async def execute(
        self,
        call: Call,
        cache_policy: str,
        settings: CallSettings,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Implements `CallBackend.execute`.

        Raises InvalidOptionError for an option that is not plain data, DatabaseError for a database that
        can't be used.
        """
        key = checked_request_key(call, settings)
        settings = await self._open(settings)
        if cache_policy == OFF or not settings.options.enable_cache or settings.excludes(call.agent_name):
            return await self._answer(call, OFF, key, settings, context, deadline_seconds)
        make = partial(self._answer, call, cache_policy, key, settings, context)
        call_cost = context.call_cost or CallCost()
        reply, led = await self._flights.run(
            (cache_policy, key.fields()), make, deadline_seconds, call_cost, context.budgets
        )
        return call_cost.added_to(reply if led else as_shared(reply))

    async def _answer(
        self,
        call: Call,
        cache_policy: str,
        key: RequestKey,
        settings: CallSettings,
        context: CallContext,
        seconds_left: Optional[float],
        call_cost: Optional[CallCost] = None,
    ) -> Reply:
        call_id, began = new_call_id(context, key), self._clock.now()
        with _deadline(seconds_left):
            # An answer of this run that was paid for and not delivered comes before the cache's.
            outcome = await self._saved_answer(call_id, context) if context.call_id else None
            if outcome is None and cache_policy == USE:
                outcome = await (await self._executor.cache_for(settings)).get(key)
            if outcome is None:
                rest = None if seconds_left is None else seconds_left - (self._clock.now() - began)
                # The prices of all models: which one answers is not known yet.
                prices = {model: dict(usd) for model, usd in (settings.options.prices or {}).items()}
                budgets = self._budgets.of(context)
                request = CallRequest(call, cache_policy, context.first_of_many, budgets, prices)
                op = _enqueue_op(call_id, request, rest, context)
                outcome = await self._send_to_worker(op, context, call_cost or context.call_cost)
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    async def _saved_answer(self, call_id: str, context: CallContext) -> Optional[Outcome]:
        """Returns an answer that is there; `Enqueue` decides about a failure."""
        row = (await self._worker.submit(Collect((call_id,)))).get(call_id)
        return self._receive(row, context) if row is not None and row.success else None

    async def _send_to_worker(
        self, op: Enqueue, context: CallContext, call_cost: Optional[CallCost]
    ) -> Outcome:
        """Returns the outcome. `call_cost` receives its cost if the caller is cancelled as it arrives."""
        if self._draining:
            raise _not_sent()
        result: asyncio.Future[ResultRow] = asyncio.get_running_loop().create_future()
        try:
            await self._worker.submit(op)
            # Watched only now: an earlier result is the failure that Enqueue has just reset.
            async with self._results.watch(op.call_id, partial(_settle, result)):
                if self._draining:
                    self._worker.submit_nowait(CancelQueued((op.call_id,)))
                context.listener.started(1)
                row = await result
        except (CallbackError, asyncio.CancelledError):
            # Not awaited: the database may be away.
            self._worker.submit_nowait(save_cancelled(op.call_id))
            if result.done() and not result.cancelled() and result.exception() is None:
                outcome = self._receive(result.result(), context)
                if call_cost is not None and isinstance(outcome, (Reply, CallError)):
                    call_cost.replace(outcome)
            raise
        outcome = self._receive(row, context)
        if self._draining and isinstance(outcome, CancelledCallError):
            raise _not_sent()
        return outcome

    def _receive(self, row: ResultRow, context: CallContext) -> Outcome:
        """Returns the outcome, and charges it to the caller's budgets here and in the database."""
        outcome = outcome_of(row, self._clock.now())
        usd = budget_cost(outcome)
        for budget in context.budgets:
            budget.settle(0.0, usd)
        charges = [
            BudgetCharge(self._budgets.id_of(budget), to_nano_usd(budget.usd), to_nano_usd(usd))
            for budget in (self._budgets.uncharged(context, row) if usd else ())
        ]
        self._results.mark_delivered(Delivered(row.call_id, tuple(charges)))
        return outcome

    async def _open(self, settings: CallSettings) -> CallSettings:
        """Prepares the database; returns the configuration with the shared cache, not the local one."""
        if not self._database.is_prepared:
            await to_thread.run_sync(self._database.prepare)
        rates = settings.rates
        if any(rates) and rates != self._rates:
            self._rates = rates
            await self._worker.submit(SetRates(rates))
        limits = settings.options.cache_ttl_hours, settings.options.cache_max_size_mb
        if self._cache is None:
            self._cache = SharedCache(self._database, *limits)
        self._cache.set_limits(*limits)
        own = settings.cache
        self._cache.exclude_agents = frozenset(own.exclude_agents) if own else frozenset()
        return replace(settings, cache=self._cache)

    async def is_cached(self, call: Call, settings: CallSettings) -> bool:
        """Implements `CallBackend.is_cached` over the shared cache."""
        return await self._executor.is_cached(call, await self._open(settings))

    async def explain_miss(self, call: Call, settings: CallSettings) -> Dict[str, Any]:
        """Implements `CallBackend.explain_miss` over the shared cache."""
        return await self._executor.explain_miss(call, await self._open(settings))

    async def drain(self, seconds: float) -> None:
        """Enqueues no more calls, cancels those that no worker has started, and waits for the rest."""
        self._draining = True
        with anyio.move_on_after(seconds):
            await self._worker.submit(CancelQueued(self._results.call_ids))
            while self._results.call_ids:
                await self._clock.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Ends all waiting calls with ClosedError and closes all connections; a later call reopens them."""
        self._draining = False
        for call_id in self._results.call_ids:
            self._worker.submit_nowait(save_cancelled(call_id))
        self._results.fail(ClosedError("The orchestrator was closed during the call"))
        await self._flights.close()
        await self._executor.close()
        await to_thread.run_sync(self.close_files)

    def close_files(self) -> None:
        """Does what is left of `close` when the event loop is gone."""
        if self._cache is not None:
            self._cache.close()
        self._results.flush()
        self._worker.close()


def _enqueue_op(
    call_id: str, request: CallRequest, seconds_left: Optional[float], context: CallContext
) -> Enqueue:
    limits = tuple((one, to_nano_usd(budget.usd)) for one, budget in zip(request.budgets, context.budgets))
    return Enqueue(call_id, request.call.agent_name, dump_request(request), seconds_left, limits)


def _settle(result: asyncio.Future[ResultRow], found: Union[ResultRow, ClaudeForceError]) -> None:
    if result.done():
        return
    if isinstance(found, ResultRow):
        result.set_result(found)
    else:
        result.set_exception(found)


@contextmanager
def _deadline(seconds: Optional[float]) -> Iterator[None]:
    """Raises DeadlineExceededError after `seconds`, and the time that a worker has to report the same."""
    with anyio.move_on_after(None if seconds is None else seconds + _DEADLINE_GRACE) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineExceededError(f"No answer within the deadline of {seconds:g} s")


def _not_sent() -> ClosedError:
    return ClosedError("The call had not been sent when the orchestrator was stopped")


async def _never_connect(model: str, context: CallContext) -> CallSender:
    raise AssertionError("the Postgres backend sends nothing itself")
