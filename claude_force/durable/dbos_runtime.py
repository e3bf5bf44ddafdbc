"""DBOS in this process. There is one instance in a process; a user's own is detected and never touched."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import lru_cache
from typing import Any, Awaitable, Callable, List, Optional

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from sqlalchemy.exc import DBAPIError

from ..errors import DatabaseError
from .calls import APP_VERSION
from .database import APPLICATION, QUEUE, WORKFLOW, Database
from .schema import SCHEMA

# How often DBOS looks for work, in seconds.
POLL_SECONDS = 0.05
_POOL = 4
_PAGE = 500

# Makes one call, given its id and generation; returns a word that DBOS records.
RunCall = Callable[[str, int], Awaitable[str]]

_run_call: Optional[RunCall] = None


async def _workflow(call_id: str, generation: int) -> str:
    """The workflow that DBOS runs for each call."""
    if _run_call is None:
        raise RuntimeError("no worker is running in this process")
    return await _run_call(call_id, generation)


def launch(database: Database, name: str, run_call: RunCall) -> None:
    """Starts taking calls under a worker's name, which has to be the same after a restart.

    Calls run in the running event loop, if there is one. Raises DatabaseError where this process has a DBOS
    already.
    """
    global _run_call
    if _run_call is not None:
        raise DatabaseError(
            "This process makes durable calls already: close the worker or the orchestrator that does."
        )
    _configure(database, name)
    _register()
    DBOS.listen_queues([QUEUE])
    _run_call = run_call
    try:
        DBOS.launch()
    except BaseException:
        destroy()
        raise


@lru_cache(maxsize=None)
def _register() -> None:
    """Registers the workflow once: DBOS remembers it beyond `destroy`."""
    DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(_workflow)


def make_queue(database: Database, claims: int) -> None:
    """Registers the queue. `claims` bounds the calls that one worker may have claimed at a time."""
    database.client.register_queue(
        QUEUE, worker_concurrency=claims, polling_interval_sec=POLL_SECONDS, application_name=APPLICATION
    )


def _configure(database: Database, name: str) -> None:
    config: DBOSConfig = {
        "name": APPLICATION,
        "system_database_url": database.address.plain,
        "application_version": APP_VERSION,
        "executor_id": name,
        "serializer": DBOSPortableJSONSerializer(),
        "sys_db_pool_size": _POOL,
        "run_migrations": False,
        "log_level": "WARNING",
    }
    if database.is_sqlite:
        config["system_database_engine"] = database.engine
    else:
        config["dbos_system_schema"] = SCHEMA
    DBOS(config=config)
    # If an instance exists, DBOS returns it and ignores the configuration.
    if (DBOS.executor_id, DBOS.application_version) != (name, APP_VERSION):
        raise DatabaseError(
            "This process already runs a DBOS application, and it can run only one. Run the worker in "
            "another process (claude-force worker), and use Postgres for `durable`."
        )


def wait_until_recorded(
    database: Database, name: str, seconds: float, open_calls: Callable[[], float] = lambda: 0
) -> None:
    """Blocks until DBOS has recorded the end of all calls that the worker claimed, except `open_calls`.

    Returns after `seconds`, or where the database is away: what is not recorded is offered again.
    """
    deadline = time.monotonic() + seconds
    with suppress(DBAPIError):
        while len(claimed(database, name)) > open_calls() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def destroy() -> None:
    """Stops taking calls and ends DBOS in this process. Blocks."""
    global _run_call
    DBOS.destroy()
    _run_call = None


def claimed(database: Database, name: str) -> List[str]:
    """Returns the workflow ids that the worker has claimed and not ended."""
    found = _workflows(database, executor_id=name, status="PENDING", queue_name=QUEUE)
    return [one.workflow_id for one in found]


def put_back(database: Database, workflow_ids: List[str]) -> None:
    """Returns claimed workflows to the queue; those that have ended stay ended."""
    for start in range(0, len(workflow_ids), _PAGE):
        database.client.resume_workflows(workflow_ids[start : start + _PAGE], queue_name=QUEUE)


def claimants(database: Database) -> List[str]:
    """Returns the names of the workers that have claimed calls."""
    found = _workflows(database, status="PENDING", queue_name=QUEUE)
    return sorted({one.executor_id for one in found if one.executor_id})


def cancel_queued(database: Database, run_id: str) -> None:
    """Removes a run's calls from the queue; claimed ones end by themselves."""
    while ids := _first_of_run(database, run_id, "ENQUEUED"):
        database.client.cancel_workflows(ids)


def delete_run(database: Database, run_id: str) -> None:
    """Deletes what DBOS has recorded of a run that has ended."""
    while ids := _first_of_run(database, run_id, None):
        database.client.delete_workflows(ids)


def _first_of_run(database: Database, run_id: str, status: Optional[str]) -> List[str]:
    found = _workflows(database, workflow_id_prefix=f"{run_id}:", status=status, limit=_PAGE)
    return [one.workflow_id for one in found]


def _workflows(database: Database, **filters: Any) -> List[Any]:
    found: List[Any] = database.client.list_workflows(load_input=False, load_output=False, **filters)
    return found
