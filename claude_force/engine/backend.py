"""What an orchestrator asks of whatever executes its calls."""

from __future__ import annotations

from typing import Any, Dict, Optional, Protocol

from ..limits.call_context import CallContext
from ..types import Call, Reply
from .call_settings import CallSettings


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
        settings: CallSettings,
        deadline_seconds: Optional[float],
        context: CallContext,
    ) -> Reply:
        """Joins an identical call that is in flight, else starts one. Raises InputError, CallError."""

    def cache_key(self, call: Call, settings: CallSettings) -> Optional[bytes]:
        """Equal for calls that share one answer; None for a call that is never cached."""

    async def is_cached(self, call: Call, settings: CallSettings) -> bool:
        """Whether the call would be answered from the cache."""

    async def explain_miss(self, call: Call, settings: CallSettings) -> Dict[str, Any]:
        """As `ResponseCache.explain_miss`."""

    async def drain(self, seconds: float) -> None:
        """Starts no call elsewhere any more, and waits up to `seconds` for those that are there."""

    def close_files(self) -> None:
        """Closes what outlives the event loop, once that is gone."""

    async def close(self) -> None:
        """Ends waiting calls and closes files and connections; a later call opens them again."""
