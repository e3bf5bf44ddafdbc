"""Executes a call: joins an identical one, finds its answer in the cache, or sends it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Awaitable, Callable, Dict, Optional, Protocol

from ..cache.diagnostics import explained
from ..cache.request_key import OFF, USE, RequestKey, Service, request_key
from ..clock import Clock
from ..errors import InvalidOptionError
from ..limits.call_context import CallContext
from ..limits.call_cost import CallCost
from ..response_cache import ResponseCache
from ..types import Call, Reply
from .async_cache import AsyncResponseCache, Cache
from .call_sender import CallSender
from .result_builder import shared
from .single_flight import SingleFlight

# The sender for calls of a model, with the settings of a context.
Connect = Callable[[str, CallContext], Awaitable[CallSender]]


@dataclass(frozen=True)
class CacheConfig:
    """Which answers are kept, and where: in `cache`, else in the user's own where that is `enabled`.

    `service` is who gives them.
    """

    enabled: bool
    ttl_hours: float
    max_size_mb: float
    cache: Optional[Cache]
    service: Service

    def opened(self) -> Cache:
        """Raises CacheError, OSError."""
        return self.cache or ResponseCache(self.ttl_hours, self.max_size_mb, enabled=self.enabled)

    def excludes(self, agent_name: str) -> bool:
        return self.cache is not None and agent_name in self.cache.exclude_agents


class CallBackend(Protocol):
    """Where an orchestrator's calls go in and answers come out; it knows nothing of what lies behind.

    `CachingExecutor` answers in this process. Behind the two of `durable` calls outlive it.
    """

    @property
    def most(self) -> Optional[int]:
        """Calls that it takes on at a time; None for as many as the wire has use for."""

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """The id of a run whose calls outlive the process: the given one, else a new one; None where none do.

        Raises InvalidOptionError for one that can't be kept.
        """

    async def answer(
        self,
        call: Call,
        policy: str,
        kept: CacheConfig,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Joins an identical call that is under way, else starts one. Raises InputError, CallError."""

    def identity(self, call: Call, kept: CacheConfig) -> Optional[bytes]:
        """Equal for calls that have one answer; None where that can't be told, or it is not kept."""

    async def has(self, call: Call, kept: CacheConfig) -> bool:
        """Whether the call would be answered from the cache."""

    async def explain_miss(self, call: Call, kept: CacheConfig) -> Dict[str, Any]:
        """As `ResponseCache.explain_miss`."""

    async def drain(self, seconds: float) -> None:
        """Of calls that are with others hands over nothing new, and waits for the rest, at most so long."""

    def shut(self) -> None:
        """Lets go of what outlives the event loop, once that is gone."""

    async def close(self) -> None:
        """Ends what is waited for and lets go of all files and connections; a later call opens them again."""


class CachingExecutor:
    """Executes calls in this process: single flight, then the cache, then the sender of `connect`.

    Example:
        executor = CachingExecutor(lambda model, context: pool.sender(settings, model), Clock())
        reply = await executor.answer(call, USE, cache_config, deadline_seconds=60.0, context=CallContext())
    """

    most: Optional[int] = None

    def __init__(self, connect: Connect, clock: Clock) -> None:
        self._connect, self._clock = connect, clock
        self._flights: SingleFlight[Reply] = SingleFlight()
        self._answers: Optional[AsyncResponseCache] = None
        self._kept: Optional[CacheConfig] = None

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """The id of a run whose calls outlive the process; here there are none. Raises InvalidOptionError."""
        if given is not None:
            raise InvalidOptionError("run_id names a durable run: give the orchestrator durable=URL too.")
        return None

    async def answer(
        self,
        call: Call,
        policy: str,
        kept: CacheConfig,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Joins an identical call that is under way, else starts one. Raises InputError, CallError."""
        question = request_key(call, kept.service) if policy != OFF else None
        call_cost = context.call_cost or CallCost()
        if question is None or kept.excludes(call.agent_name):
            sender = await self._sender(call, context)
            return await sender.send(call, deadline_seconds, context, call_cost)
        # Avoid a closure: with hundreds of calls under way, its cells slow down garbage collection.
        work = partial(self._lookup_or_send, call, policy, question, await self.cache_for(kept), context)
        key, budget_key = (policy, question.fields()), (context.budgets, context.shared_limits, context.price)
        reply, pays = await self._flights.run(key, work, deadline_seconds, call_cost, budget_key)
        return call_cost.added_to(reply if pays else shared(reply))

    async def _lookup_or_send(
        self,
        call: Call,
        policy: str,
        question: RequestKey,
        answers: AsyncResponseCache,
        context: CallContext,
        left: Optional[float],
        call_cost: CallCost,
    ) -> Reply:
        found, began = answers.get_in_memory(question) if policy == USE else None, self._clock.now()
        if found is not None:
            return found
        with answers.lease(question) as lease:
            found, leads = await lease.get_or_acquire() if policy == USE else (None, await lease.acquire())
            if found is None and not leads:
                await lease.wait(left, partial(context.check_open, call.model))
                # Those before it may have kept the answer.
                found = await answers.get(question) if policy == USE else None
            if found is not None:
                return found
            if left is not None:
                left -= self._clock.now() - began
            sender = await self._sender(call, context)
            reply = await sender.send(call, left, context, call_cost)
            await answers.put(question, reply)
            return reply

    async def _sender(self, call: Call, context: CallContext) -> CallSender:
        """Raises ClosedError before a connection is opened that nobody would close."""
        context.check_open(call.model)
        return await self._connect(call.model, context)

    def identity(self, call: Call, kept: CacheConfig) -> Optional[bytes]:
        """Equal for calls that have one answer; None where that can't be told, or it is not kept."""
        given = request_key(call, kept.service)
        if given is None or kept.excludes(call.agent_name):
            return None
        return given.digest()

    async def has(self, call: Call, kept: CacheConfig) -> bool:
        """Whether the call would be answered from the cache."""
        question = request_key(call, kept.service)
        if question is None:
            return False
        answers = await self.cache_for(kept)
        return await answers.run(lambda cache: cache.has(*question), False)

    async def explain_miss(self, call: Call, kept: CacheConfig) -> Dict[str, Any]:
        """As `ResponseCache.explain_miss`."""
        question = request_key(call, kept.service)
        if question is None:
            return explained(False, "An option of this call has no written form, so it is never kept.")
        answers = await self.cache_for(kept)
        return await answers.run(
            lambda cache: cache.explain_miss(*question), explained(False, "There is no cache.")
        )

    async def drain(self, seconds: float) -> None:
        """Of calls that are with others, none; those on this process's wire are the caller's."""

    def shut(self) -> None:
        """Lets go of what outlives the event loop, once that is gone; here there is nothing."""

    async def close(self) -> None:
        """Lets go of the cache's files; a later call opens them again."""
        if self._answers is not None:
            await self._answers.close()

    async def cache_for(self, kept: CacheConfig) -> AsyncResponseCache:
        """The cache that `kept` names, as the engine asks it."""
        if self._answers is None or self._kept != kept:
            before, self._kept = self._answers, kept
            self._answers = AsyncResponseCache(kept.opened, self._clock, shared=kept.cache is not None)
            if before is not None:
                await before.close()
        return self._answers
