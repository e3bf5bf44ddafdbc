"""One database: connections, the tables in it, and DBOS's client, which starts nothing in this process."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Iterator, List

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from ..errors import DatabaseError
from ..storage.places import check_named_database
from . import functions
from .database_url import DatabaseUrl
from .tables import MADE_BY, SCHEMA, create_all

logger = logging.getLogger(__name__)

APPLICATION, QUEUE, WORKFLOW = "claude-force", "claude-force-calls", "claude_force.call"
# Raised when the tables or the functions change.
_VERSION = f"1.{version('dbos')}"
_MAKING = 0x636C61756465
_LOCK_PAUSE = 0.1
_POOL = 4
# A process that is frozen in the middle of a transaction lets go of what that holds, such as the lock of who
# looks after dead workers.
_IDLE_SECONDS = 10
_KNOWS_SUBSECONDS = (3, 42)
# What Postgres says while it follows another server.
_READ_ONLY = "25006"


class Database:
    """Connects at first use, under the name "claude-force WHO". Thread-safe."""

    def __init__(self, address: DatabaseUrl, who: str = "driver") -> None:
        self.address = address
        self.is_sqlite = address.is_sqlite
        self.engine = _engine(address, who)
        self._client: DBOSClient | None = None

    @property
    def client(self) -> DBOSClient:
        """DBOS's, on the same connections: what it enqueues can be part of a transaction of ours."""
        if self._client is None:
            self._client = DBOSClient(
                system_database_engine=self.engine,
                dbos_system_schema=None if self.is_sqlite else SCHEMA,
                serializer=DBOSPortableJSONSerializer(),
                application_name=APPLICATION,
                lazy=True,
                retry_connection_errors=False,
            )
        return self._client

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[sa.Connection]:
        """A connection on which each statement is a transaction."""
        with self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def prepare(self) -> None:
        """Makes what is missing in it. Raises DatabaseError where it can't be reached or used."""
        try:
            if not self._is_made():
                self._make()
        except DBAPIError as error:
            raise DatabaseError(f"The database {self.address} can't be used: {self.reason(error)}") from None

    def reason(self, error: BaseException) -> str:
        """What a driver said, on one line and without secrets."""
        told = str(getattr(error, "orig", None) or error)
        return self.address.hidden(" ".join(told.split()))

    def close(self) -> None:
        """Closes all connections; the next use opens new ones."""
        if self._client is not None:
            self._client.destroy()
            self._client = None
        self.engine.dispose()

    def _is_made(self) -> bool:
        with self.engine.connect() as connection:
            schema = None if self.is_sqlite else SCHEMA
            if not sa.inspect(connection).has_table(MADE_BY.name, schema=schema):
                return False
            # What a newer version made is good for this one: DBOS only adds to its tables.
            return _numbers(connection.execute(sa.select(MADE_BY.c.version)).scalar()) >= _numbers(_VERSION)

    def _make(self) -> None:
        with self._alone() as connection:
            if self._is_made():
                return
            schema = "dbos" if self.is_sqlite else SCHEMA
            DBOS.migrate(self.address.plain, schema=schema)
            create_all(connection)
            if not self.is_sqlite:
                for function in functions.ALL:
                    connection.exec_driver_sql(function)
            connection.execute(sa.delete(MADE_BY))
            connection.execute(sa.insert(MADE_BY).values(version=_VERSION))
            logger.info("made the tables of durable runs in %s", self.address)

    @contextmanager
    def _alone(self) -> Iterator[sa.Connection]:
        """Several that start at once make the tables one after the other."""
        if self.is_sqlite:
            with self.engine.connect() as connection:
                yield connection
                connection.commit()
            return
        # Not one that waits in the server: DBOS makes indexes concurrently, which waits for all open
        # snapshots, that of a statement which waits for a lock among them.
        with self.autocommit() as locking:
            while not locking.exec_driver_sql(f"SELECT pg_try_advisory_lock({_MAKING})").scalar():
                time.sleep(_LOCK_PAUSE)
            try:
                with self.engine.begin() as connection:
                    yield connection
            finally:
                locking.exec_driver_sql(f"SELECT pg_advisory_unlock({_MAKING})")


def _engine(address: DatabaseUrl, who: str) -> sa.Engine:
    if address.is_sqlite:
        try:
            check_named_database(str(address.url.database))
        except OSError as error:
            raise DatabaseError(
                f"The database {address} can't be used: {error.strerror}. Give a file in a folder that "
                "this user can write to."
            ) from error
        # A file needs no pool, and a connection that lingers would hold its lock.
        engine = sa.create_engine(address.url, poolclass=NullPool, connect_args={"timeout": 30})
        if sqlite3.sqlite_version_info < _KNOWS_SUBSECONDS:
            sa.event.listen(engine, "connect", _teach_subseconds)
        return engine
    engine = sa.create_engine(
        address.url,
        pool_size=_POOL,
        max_overflow=_POOL,
        hide_parameters=True,
        connect_args={"application_name": connection_name(who), "connect_timeout": 10},
    )
    sa.event.listen(engine, "connect", _bound_transactions)
    return engine.execution_options(schema_translate_map={None: SCHEMA})


def _bound_transactions(connection: Any, _: object) -> None:
    """Not by `options` of the connection, which some poolers refuse."""
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
    connection.commit()


def _numbers(text: str | None) -> List[int]:
    return [int(part) for part in (text or "").split(".") if part.isdecimal()]


def _teach_subseconds(connection: Any, _: object) -> None:
    """On Python 3.12 and newer DBOS takes for granted what SQLite has since 3.42: unixepoch('subsec')."""
    connection.create_function("unixepoch", -1, lambda *_: time.time())


def connection_name(who: str) -> str:
    """As Postgres lists the connection."""
    return f"{APPLICATION} {who}"


def is_lost(error: BaseException) -> bool:
    """Whether the same work may succeed later: no connection, a server that restarts or that another takes
    the place of, a lock."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(error, OperationalError) or error.connection_invalidated or state == _READ_ONLY
