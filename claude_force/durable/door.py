"""Which way a call takes: to workers, or through a file of this machine's."""

from __future__ import annotations

from ..clock import Clock
from ..engine.executor import CallBackend, Send
from .database_url import parse
from .postgres_backend import How, PostgresBackend
from .sqlite_backend import SqliteBackend


def open_door(url: str, send: Send, how: How, clock: Clock) -> CallBackend:
    """Stands in for `CachingExecutor`. Raises InvalidOptionError for a URL that can't be used."""
    address = parse(url)
    return SqliteBackend(address, send, clock) if address.is_sqlite else PostgresBackend(address, how, clock)
