"""Calls that outlive their process, on DBOS: SQLite on one machine, Postgres for many workers. An extra.

A driver, `AsyncAgentOrchestrator(durable=URL)`, prepares calls and hands them over; a worker makes them by
the ordinary engine; results come back through a table. The rest of the package knows only `open_door`.

Whoever follows a call walks: driver (hand over) -> calls (tables) -> DBOS's queue -> worker (carry out) ->
calls (result) -> driver (deliver).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, List

from ..advice import install_command
from ..errors import DatabaseError

if TYPE_CHECKING:
    from .door import open_door
    from .runs import Runs
    from .worker import Worker

_HOMES = {"Runs": ".runs", "Worker": ".worker", "open_door": ".door"}
_NEEDED = ("dbos", "sqlalchemy", "psycopg")

__all__ = ["Runs", "Worker", "open_door"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_installed()
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> List[str]:
    return sorted(__all__)


def check_installed() -> None:
    """Raises DatabaseError where the extra can't work."""
    if sys.version_info < (3, 10):
        running = ".".join(map(str, sys.version_info[:2]))
        raise DatabaseError(f"Durable runs need Python 3.10 or newer, and this is {running}.")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise DatabaseError(
            f"Durable runs need {', '.join(missing)}. Install them: {install_command('durable')}"
        )
