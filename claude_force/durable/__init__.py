"""Runs that outlive their process, on DBOS: SQLite on one machine, Postgres for many workers. An extra.

`AsyncAgentOrchestrator(durable=URL)` sends its calls through one of two backends. `PostgresBackend` writes
them into tables; a `Worker` in any process takes them from DBOS's queue, makes them with the ordinary engine
and saves the results, which the backend polls for. `SqliteBackend` runs queue and calls in its own process.

The path of a call: backend -> calls.Enqueue -> DBOS -> worker -> calls.SaveResult -> delivery.Collect.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, List

from ..errors import DatabaseError
from ..formatting import install_command

if TYPE_CHECKING:
    from ..engine.backend import CallBackend
    from ..engine.executor import Connect
    from ..types import Clock
    from .runs import Runs
    from .worker import Worker

_MODULES = {"Runs": ".runs", "Worker": ".worker"}
_REQUIRED = ("dbos", "sqlalchemy", "psycopg")

__all__ = ["Runs", "Worker"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_installed()
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> List[str]:
    return sorted(__all__)


def open_backend(url: str, connect: Connect, clock: Clock) -> CallBackend:
    """Returns the backend for a database. `connect` opens connections here, which only SQLite needs.

    Raises InvalidOptionError for a URL that can't be used, DatabaseError where the extra is not installed.
    """
    check_installed()
    # Imported here: they need the extra.
    from .database import parse_url
    from .postgres_backend import PostgresBackend
    from .sqlite_backend import SqliteBackend

    address = parse_url(url)
    if address.is_sqlite:
        return SqliteBackend(address, connect, clock)
    return PostgresBackend(address, clock)


def check_installed() -> None:
    """Raises DatabaseError where this Python is too old, or packages of the extra are missing."""
    if sys.version_info < (3, 10):
        running = ".".join(map(str, sys.version_info[:2]))
        raise DatabaseError(f"Durable runs need Python 3.10 or newer, and this is {running}.")
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        raise DatabaseError(
            f"Durable runs need {', '.join(missing)}. Install them: {install_command('durable')}"
        )
