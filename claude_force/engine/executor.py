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
from .result_builder import as_shared
from .single_flight import SingleFlight

# Returns the sender for a call of this model.
Connect = Callable[[str, CallContext], Awaitable[CallSender]]


@dataclass(frozen=True)
class CacheConfig:
    """Whether and where answers are cached.

    Attributes:
        enabled: whether the user's own cache is used, in `~/.claude/cache`.
        ttl_hours, max_size_mb: the limits of that one.
        cache: a cache of the caller's, used instead.
        service: who answers; part of each call's key.
    """

    enabled: bool
    ttl_hours: float
    max_size_mb: float
    cache: Optional[Cache]
    service: Service

    def open(self) -> Cache:
        """Raises CacheError, OSError."""
        return self.cache or ResponseCache(self.ttl_hours, self.max_size_mb, enabled=self.enabled)

    def excludes(self, agent_name: str) -> bool:
        """Whether answers of this agent are never cached."""
        return self.cache is not None and agent_name in self.cache.exclude_agents


class CallBackend(Protocol):
    """Executes the calls of an orchestrator.

    `CachingExecutor` does it in this process; the backends of `durable` have calls that outlive it.
    """

    @property
    def max_in_flight(self) -> Optional[int]:
        """How many calls it takes at a time; None if the concurrency limit alone decides."""

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """Returns the id of a durable run: the given one, else a new one; None where runs are not durable.

        Raises InvalidOptionError for an id that can't be used.
        """

    async def execute(
        self,
        call: Call,
        cache_policy: str,
        cache_config: CacheConfig,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Joins an identical call that is in flight, else starts one. Raises InputError, CallError."""

    def cache_key(self, call: Call, cache_config: CacheConfig) -> Optional[bytes]:
        """Equal for calls that share one answer; None for a call that is never cached."""

    async def is_cached(self, call: Call, cache_config: CacheConfig) -> bool:
        """Whether the call would be answered from the cache."""

    async def explain_miss(self, call: Call, cache_config: CacheConfig) -> Dict[str, Any]:
        """As `ResponseCache.explain_miss`."""

    async def drain(self, seconds: float) -> None:
        """Starts no call elsewhere any more, and waits up to `seconds` for those that are there."""

    def close_files(self) -> None:
        """Closes what outlives the event loop, once that is gone."""

    async def close(self) -> None:
        """Ends waiting calls and closes files and connections; a later call opens them again."""


class CachingExecutor:
    """Executes calls in this process: single flight, then the cache, then the sender of `connect`.

    Example:
        executor = CachingExecutor(lambda model, context: pool.sender(settings, model), Clock())
        reply = await executor.execute(call, USE, cache_config, 60.0, CallContext())
    """

    max_in_flight: Optional[int] = None

    def __init__(self, connect: Connect, clock: Clock) -> None:
        self._connect, self._clock = connect, clock
        self._flights: SingleFlight[Reply] = SingleFlight()
        self._cache: Optional[AsyncResponseCache] = None
        self._cache_config: Optional[CacheConfig] = None

    def run_id(self, given: Optional[str]) -> Optional[str]:
        """Implements `CallBackend.run_id`: no run is durable here."""
        if given is not None:
            raise InvalidOptionError("run_id names a durable run: give the orchestrator durable=URL too.")
        return None

    async def execute(
        self,
        call: Call,
        cache_policy: str,
        cache_config: CacheConfig,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Joins an identical call that is in flight, else starts one. Raises InputError, CallError."""
        key = request_key(call, cache_config.service) if cache_policy != OFF else None
        call_cost = context.call_cost or CallCost()
        if key is None or cache_config.excludes(call.agent_name):
            sender = await self._sender(call, context)
            return await sender.send(call, deadline_seconds, context, call_cost)
        cache = await self.cache_for(cache_config)
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

    def cache_key(self, call: Call, cache_config: CacheConfig) -> Optional[bytes]:
        """Implements `CallBackend.cache_key`."""
        key = request_key(call, cache_config.service)
        if key is None or cache_config.excludes(call.agent_name):
            return None
        return key.digest()

    async def is_cached(self, call: Call, cache_config: CacheConfig) -> bool:
        """Implements `CallBackend.is_cached`."""
        key = request_key(call, cache_config.service)
        if key is None:
            return False
        cache = await self.cache_for(cache_config)
        return await cache.run(lambda opened: opened.has(*key), False)

    async def explain_miss(self, call: Call, cache_config: CacheConfig) -> Dict[str, Any]:
        """Implements `CallBackend.explain_miss`."""
        key = request_key(call, cache_config.service)
        if key is None:
            return explained(False, "An option of this call has no written form, so it is never kept.")
        cache = await self.cache_for(cache_config)
        return await cache.run(
            lambda opened: opened.explain_miss(*key), explained(False, "There is no cache.")
        )

    async def drain(self, seconds: float) -> None:
        """Does nothing: the calls in this process are the sender's."""

    def close_files(self) -> None:
        """Does nothing: the cache's files are closed by `close`."""

    async def close(self) -> None:
        """Closes the cache's files; a later call opens them again."""
        if self._cache is not None:
            await self._cache.close()

    async def cache_for(self, cache_config: CacheConfig) -> AsyncResponseCache:
        """The cache that `cache_config` describes; the one before is closed when that changes."""
        if self._cache is None or self._cache_config != cache_config:
            before, self._cache_config = self._cache, cache_config
            is_shared = cache_config.cache is not None
            self._cache = AsyncResponseCache(cache_config.open, self._clock, shared=is_shared)
            if before is not None:
                await before.close()
        return self._cache
