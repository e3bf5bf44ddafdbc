"""The settings of one call: the options at its start, and the service that answers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Optional

from .. import settings
from ..cache.request_key import ServiceFields, service_fields
from ..limits.rate_limiter import Rates
from ..options import AUTO, Options
from ..response_cache import ResponseCache
from .async_cache import Cache

_OPTIONS_OF_CACHE = ("enable_cache", "cache_ttl_hours", "cache_max_size_mb")
# All other options need other connections when they change.
_NOT_OF_SENDER = frozenset(
    {
        *_OPTIONS_OF_CACHE,
        *("budget_usd", "clock", "config_path", "deadline_seconds", "durable", "enable_memory"),
        *("enable_tracking", "observers", "response_cache"),
        *("tools", "max_turns", "max_tool_calls", "add_dirs"),
    }
)


@dataclass(frozen=True, eq=False)
class CallSettings:
    """The options of an orchestrator or a worker, and the service that answers.

        settings = settings_now(Options(max_concurrent=20))
        sender = await pool.sender(settings)

    Attributes:
        service: what decides who answers, from the environment: endpoint, headers, profile.
        cache: the store of answers; None for the user's own, where `options.enable_cache` is set.
    """

    options: Options
    service: ServiceFields = ()
    cache: Optional[Cache] = None

    @property
    def ceiling(self) -> int:
        """The most attempts that may ever be in flight."""
        most = self.options.max_concurrent
        return settings.MOST_CONCURRENT if most == AUTO else int(most)

    @property
    def rates(self) -> Rates:
        """The limits per minute that are set by hand."""
        return Rates(self.options.rpm, self.options.input_tpm, self.options.output_tpm)

    def has_sender_of(self, other: CallSettings) -> bool:
        """Whether calls with the other settings go over the same connections."""
        if self is other:
            return True
        names = (one.name for one in fields(Options) if one.name not in _NOT_OF_SENDER)
        return self.service == other.service and _are_equal(self.options, other.options, *names)

    def has_cache_of(self, other: CallSettings) -> bool:
        """Whether calls with the other settings use the same store of answers."""
        if self is other:
            return True
        return self.cache is other.cache and _are_equal(self.options, other.options, *_OPTIONS_OF_CACHE)

    def open_cache(self) -> Cache:
        """Raises CacheError, OSError."""
        options = self.options
        return self.cache or ResponseCache(
            options.cache_ttl_hours, options.cache_max_size_mb, enabled=options.enable_cache
        )

    def excludes(self, agent_name: str) -> bool:
        """Whether answers of this agent are never stored."""
        return self.cache is not None and agent_name in self.cache.exclude_agents


def settings_now(options: Options, last: Optional[CallSettings] = None) -> CallSettings:
    """The settings with the service that the environment names now: `last` unless something has changed."""
    found = service_fields(options.api_key, options.base_url)
    if last is not None and last.options is options and last.service == found:
        return last
    return CallSettings(options, found, options.response_cache)


def _are_equal(one: Options, other: Options, *names: str) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in names)
