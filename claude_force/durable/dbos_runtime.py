"""DBOS in this process. It is one for the whole of it, so that nobody else's is ever touched."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import Awaitable, Callable, List, Optional

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

from ..errors import DatabaseError
from .calls import APP_VERSION
from .database import APPLICATION, QUEUE, WORKFLOW, Database
from .tables import SCHEMA

logger = logging.getLogger(__name__)

# How often DBOS looks for work, in seconds.
POLL_SECONDS = 0.05
_POOL = 4

# Carries one call out: its ticket and its generation.
Carry = Callable[[str, int], Awaitable[str]]

_carry: Optional[Carry] = None


async def _call(call_id: str, generation: int) -> str:
    """What DBOS runs; it is told what came of it in a word."""
    if _carry is None:
        raise RuntimeError("no worker is running in this process")
    return await _carry(call_id, generation)


def launch(database: Database, name: str, carry: Carry) -> None:
    """Begins to take calls, under a name that is the same after a restart.

    Where an event loop runs here, calls are carried out in it. Raises DatabaseError where this process
    has a DBOS already.
    """
    global _carry
    if _carry is not None:
        raise DatabaseError(
            "This process carries out durable calls already: close the worker or the orchestrator that does."
        )
    _construct(database, name)
    _register()
    DBOS.listen_queues([QUEUE])
    _carry = carry
    try:
        DBOS.launch()
    except BaseException:
        destroy()
        raise


@lru_cache(maxsize=None)
def _register() -> None:
    """Once: DBOS keeps what it was told, also when it is ended and begins again."""
    DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(_call)


def make_queue(database: Database, claims: int) -> None:
    """The one queue. `claims` is how many calls any worker may have claimed at a time."""
    database.client.register_queue(
        QUEUE, worker_concurrency=claims, polling_interval_sec=POLL_SECONDS, application_name=APPLICATION
    )


def _construct(database: Database, name: str) -> None:
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
    # Where there was one, DBOS hands that one out and looks at no config.
    if (DBOS.executor_id, DBOS.application_version) != (name, APP_VERSION):
        raise DatabaseError(
            "This process has a DBOS application of its own, and there can be one only. Run the worker in a "
            "process of its own (claude-force worker), and use Postgres for `durable`."
        )


def written_down(database: Database, name: str, seconds: float) -> None:
    """Returns when nothing is claimed under this name any more, at most after so long. Blocks."""
    deadline = time.monotonic() + seconds
    while claimed(database, name) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def destroy() -> None:
    """Takes no more calls and ends DBOS here. Blocks."""
    global _carry
    DBOS.destroy()
    _carry = None


def claimed(database: Database, name: str) -> List[str]:
    """Ids of workflows that the worker of this name has claimed and not ended."""
    found = database.client.list_workflows(
        executor_id=name, status="PENDING", queue_name=QUEUE, load_input=False, load_output=False
    )
    return [one.workflow_id for one in found]


def put_back(database: Database, workflow_ids: List[str]) -> None:
    """Makes them free to be claimed; those that have ended stay so."""
    for start in range(0, len(workflow_ids), 500):
        database.client.resume_workflows(workflow_ids[start : start + 500], queue_name=QUEUE)


def claimants(database: Database) -> List[str]:
    """Names of workers that have calls claimed."""
    found = database.client.list_workflows(
        status="PENDING", queue_name=QUEUE, load_input=False, load_output=False
    )
    return sorted({one.executor_id for one in found if one.executor_id})


def withdraw(database: Database, run_id: str) -> None:
    """Takes a run's calls out of the queue; those that are claimed end by themselves."""
    while True:
        queued = _workflows(database, run_id, "ENQUEUED")
        if not queued:
            return
        database.client.cancel_workflows(queued)


def forget(database: Database, run_id: str) -> None:
    """Removes what DBOS has of a run that has ended."""
    while True:
        ended = _workflows(database, run_id, None)
        if not ended:
            return
        database.client.delete_workflows(ended)


def _workflows(database: Database, run_id: str, status: Optional[str]) -> List[str]:
    """Ids of the first few."""
    found = database.client.list_workflows(
        workflow_id_prefix=f"{run_id}:", status=status, limit=500, load_input=False, load_output=False
    )
    return [one.workflow_id for one in found]
