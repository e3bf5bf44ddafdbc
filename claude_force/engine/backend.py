"""What an orchestrator asks of whatever executes its calls, and how their answers are cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Protocol

from ..cache.request_key import Service
from ..limits.call_context import CallContext
from ..response_cache import ResponseCache
from ..types import Call, Reply
from .async_cache import Cache


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
