"""The driver's door: a call goes to whoever carries it out, and its outcome comes back by the database."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import anyio
from anyio import to_thread

from .. import settings
from ..cache.request_key import OFF, USE, RequestKey
from ..clock import Clock
from ..engine.async_cache import AsyncResponseCache
from ..engine.connection_pool import CallerSettings
from ..engine.executor import CacheConfig, CachingExecutor
from ..engine.result_builder import shared
from ..engine.single_flight import SingleFlight
from ..errors import CancelledCallError, ClosedError, DeadlineExceededError
from ..limits.budget import to_nano_usd
from ..limits.call_context import CallContext
from ..limits.call_cost import CallCost
from ..limits.rate_limiter import Rates
from ..types import Call, Reply
from .budget_ids import BudgetIds, call_id_of, cancelled, checked_run_id, counted_before, fingerprinted, paid
from .calls import CancelQueued, Enqueue
from .database import Database
from .database_url import DatabaseUrl
from .db_worker import DbWorker
from .delivery import BudgetCharge, Collect, Delivered, Row
from .serialization import CallRequest, Outcome, order_text, read_outcome
from .shared_cache import SharedCache
from .shared_limiter import SetByHand

POLL_SECONDS = 0.05
# What a worker gets to say that the deadline has passed, and what the call has cost until then.
_DEADLINE_GRACE = 1.0

How = Callable[[], CallerSettings]


class PostgresBackend:
    """The door to workers, over Postgres."""

    most = settings.MOST_HANDED_OVER

    def __init__(self, address: DatabaseUrl, how: How, clock: Clock) -> None:
        self._how, self._clock = how, clock
        self._database = Database(address)
        self._desk = DbWorker(self._database)
        self._flights: SingleFlight[Reply] = SingleFlight()
        self._inner = CachingExecutor(_never, clock)
        self._cache: Optional[SharedCache] = None
        self._purses = BudgetIds()
        self._post: Optional[_Post] = None
        self._rates: Optional[Rates] = None
        self._ready = self._draining = False
        self._session = threading.Lock()

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """The one that is given, else a new one. Raises InvalidOptionError for one that can't be kept."""
        return checked_run_id(given)

    async def answer(
        self,
        call: Call,
        policy: str,
        kept: CacheConfig,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """As `Door.answer`. Raises InvalidOptionError for a call that has no written form, DatabaseError
        for a database that can't be used."""
        question = fingerprinted(call, kept)
        kept = await self._opened(kept)
        if policy == OFF or not kept.enabled or kept.excludes(call.agent_name):
            return await self._made(call, OFF, question, kept, context, deadline_seconds)
        make = partial(self._made, call, policy, question, kept, context)
        call_cost = context.call_cost or CallCost()
        key, purse = (policy, question.key()), context.budgets
        reply, led = await self._flights.run(key, make, deadline_seconds, call_cost, purse)
        return call_cost.with_inherited(reply if led else shared(reply))

    async def _made(
        self,
        call: Call,
        policy: str,
        question: RequestKey,
        kept: CacheConfig,
        context: CallContext,
        left: Optional[float],
    ) -> Reply:
        call_id, began = call_id_of(context, question), self._clock.now()
        with _within(left):
            # What was paid for in this run and not delivered comes before what others have paid for.
            outcome = await self._delivered(call_id, context) if context.call_id else None
            if outcome is None and policy == USE:
                outcome = await (await self._answers(kept)).get(question)
            if outcome is None:
                rest = None if left is None else left - (self._clock.now() - began)
                outcome = await self._through_worker(
                    call_id, self._order(call, policy, context), context, rest
                )
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    async def _delivered(self, call_id: str, context: CallContext) -> Optional[Outcome]:
        """An answer that is there; a failure is left to `HandOver`, which knows whether it is made good."""
        row = (await self._desk.do(Collect((call_id,), self._posted().taken()))).get(call_id)
        return self._received(row, context) if row is not None and row.success else None

    async def _through_worker(
        self, call_id: str, order: Tuple[CallRequest, Enqueue], context: CallContext, left: Optional[float]
    ) -> Outcome:
        if self._draining:
            raise _not_sent()
        post = self._posted()
        waiting: Optional[asyncio.Future[Row]] = None
        try:
            await self._desk.do(replace(order[1], call_id=call_id, left=left))
            # Not before: an outcome that lay there until now is the one that is to be made good.
            waiting = post.expect(call_id)
            if self._draining:
                self._desk.leave(CancelQueued((call_id,)))
            context.listener.started(1)
            outcome = self._received(await waiting, context)
            if self._draining and isinstance(outcome, CancelledCallError):
                raise _not_sent()
            return outcome
        except asyncio.CancelledError:
            # Nobody waits for that: the database may be away.
            self._desk.leave(cancelled(call_id))
            raise
        finally:
            if waiting is not None:
                post.forget(call_id, waiting)

    def _order(self, call: Call, policy: str, context: CallContext) -> Tuple[CallRequest, Enqueue]:
        ids = self._purses.ids(context)
        # All of them: it is not known yet which model answers.
        prices = {model: dict(rates) for model, rates in self._how().prices.items()}
        order = CallRequest(call, policy, context.first_of_many, ids, prices)
        most = tuple((identity, to_nano_usd(budget.usd)) for identity, budget in zip(ids, context.budgets))
        return order, Enqueue("", call.agent_name, order_text(order), None, most)

    def _received(self, row: Row, context: CallContext) -> Outcome:
        """The outcome, on the driver's own books too."""
        outcome = read_outcome(row.figures, row.text, self._clock.now())
        if row.delivered:
            outcome = counted_before(outcome, row.age)
        usd = paid(outcome)
        for budget in context.budgets:
            budget.settle(0.0, usd)
        owing = self._purses.owing(context, row) if usd else ()
        charges = [
            BudgetCharge(self._purses.id_of(budget), to_nano_usd(budget.usd), to_nano_usd(usd))
            for budget in owing
        ]
        self._posted().seen.append(Delivered(row.call_id, tuple(charges)))
        if charges:
            # At once, so that it is no part of what the next call may cost.
            self._desk.leave(Collect((), self._posted().taken()))
        return outcome

    def _posted(self) -> _Post:
        loop = asyncio.get_running_loop()
        if self._post is None or self._post.loop is not loop:
            self._post = _Post(loop, self._desk, self._clock)
        return self._post

    async def _opened(self, kept: CacheConfig) -> CacheConfig:
        """How answers are kept, with the cache that workers share in the place of this machine's."""
        if not self._ready:
            await to_thread.run_sync(self._prepare_once)
        rates = self._how().rates
        if any(rates) and rates != self._rates:
            self._rates = rates
            await self._desk.do(SetByHand(rates))
        if self._cache is None:
            self._cache = SharedCache(self._database, kept.ttl_hours, kept.max_size_mb)
        self._cache.bound(kept.ttl_hours, kept.max_size_mb)
        self._cache.exclude_agents = frozenset(kept.cache.exclude_agents) if kept.cache else frozenset()
        return replace(kept, cache=self._cache)

    def _prepare_once(self) -> None:
        # A lock of threads, as the orchestrator may be used in several loops.
        with self._session:
            if not self._ready:
                self._database.prepare()
                self._ready = True

    async def _answers(self, kept: CacheConfig) -> AsyncResponseCache:
        return await self._inner.cache_for(kept)

    def identity(self, call: Call, kept: CacheConfig) -> Optional[bytes]:
        """As `Door.identity`."""
        return self._inner.identity(call, kept)

    async def has(self, call: Call, kept: CacheConfig) -> bool:
        """As `Door.has`, of the shared cache."""
        return await self._inner.has(call, await self._opened(kept))

    async def explain_miss(self, call: Call, kept: CacheConfig) -> Dict[str, Any]:
        """As `Door.explain_miss`, of the shared cache."""
        return await self._inner.explain_miss(call, await self._opened(kept))

    async def drain(self, seconds: float) -> None:
        """Hands over nothing new, takes back what no worker has begun, and waits for the rest, at most so
        long."""
        self._draining = True
        post = self._posted()
        with anyio.move_on_after(seconds):
            await self._desk.do(CancelQueued(post.call_ids))
            await post.empty()

    async def close(self) -> None:
        """Ends what is waited for and lets go of all connections; a later call opens them again."""
        post, self._post = self._post, None
        self._draining = False
        if post is not None:
            await post.close()
        await self._inner.close()
        await to_thread.run_sync(self.shut)

    def shut(self) -> None:
        """As `close`, where the loop of its calls is gone."""
        post, self._post = self._post, None
        if post is not None:
            self._desk.leave(Collect((), post.taken()))
        if self._cache is not None:
            self._cache.close()
        self._desk.shut()


@contextmanager
def _within(seconds: Optional[float]) -> Iterator[None]:
    """Raises DeadlineExceededError after so long and the time that a worker gets to say the same."""
    with anyio.move_on_after(None if seconds is None else seconds + _DEADLINE_GRACE) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineExceededError(f"No answer within the deadline of {seconds:g} s")


def _not_sent() -> ClosedError:
    return ClosedError("The call had not been sent when the orchestrator was stopped")


class _Post:
    """Outcomes that are waited for in one event loop, and one look for all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, desk: DbWorker, clock: Clock) -> None:
        self.loop, self._desk, self._clock = loop, desk, clock
        self._waiting: Dict[str, List[asyncio.Future[Row]]] = {}
        self._looking: Optional[asyncio.Future[None]] = None
        self.seen: List[Delivered] = []

    def expect(self, call_id: str) -> asyncio.Future[Row]:
        waiting: asyncio.Future[Row] = self.loop.create_future()
        self._waiting.setdefault(call_id, []).append(waiting)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        return waiting

    def forget(self, call_id: str, waiting: asyncio.Future[Row]) -> None:
        others = [one for one in self._waiting.pop(call_id, []) if one is not waiting]
        if others:
            self._waiting[call_id] = others

    def taken(self) -> Tuple[Delivered, ...]:
        """Tickets that were delivered, and of which the database is told now."""
        seen, self.seen = tuple(self.seen), []
        return seen

    @property
    def call_ids(self) -> Tuple[str, ...]:
        """Those that are waited for."""
        return tuple(self._waiting)

    async def empty(self) -> None:
        """Returns when nothing is waited for."""
        while self._waiting:
            await self._clock.sleep(POLL_SECONDS)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for call_id, waiting in self._waiting.items():
            self._desk.leave(cancelled(call_id))
            for one in waiting:
                if not one.done():
                    one.set_exception(ClosedError("The orchestrator was closed during the call"))
        if self.seen:
            # Done as the desk is shut, which does not wait for a database that is away.
            self._desk.leave(Collect((), self.taken()))

    async def _look(self) -> None:
        try:
            while self._waiting or self.seen:
                found = await self._desk.do(Collect(tuple(self._waiting), self.taken()))
                for call_id, row in found.items():
                    for one in self._waiting.get(call_id, []):
                        if not one.done():
                            one.set_result(row)
                await self._clock.sleep(POLL_SECONDS)
        except Exception as error:
            for one in [one for several in self._waiting.values() for one in several]:
                if not one.done():
                    one.set_exception(error)


async def _never(call: Call, left: Optional[float], context: CallContext) -> Reply:
    raise AssertionError("a driver sends nothing")
