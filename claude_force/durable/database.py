"""One database: its URL, connections, schema, and DBOS's client, which starts nothing in this process."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Iterator, List, NamedTuple

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from ..errors import DatabaseError, InvalidOptionError
from ..storage.output_paths import check_output_database
from .schema import MADE_BY, SCHEMA, create_all

logger = logging.getLogger(__name__)

APPLICATION, QUEUE, WORKFLOW = "claude-force", "claude-force-calls", "claude_force.call"
# Raise the first number when the tables or the functions change.
_VERSION = f"1.{version('dbos')}"
_SETUP_LOCK = 0x636C61756465
_LOCK_PAUSE = 0.1
_POOL = 4
# Postgres ends a transaction that is idle for so long, so that a frozen process gives up its locks.
_IDLE_SECONDS = 10
_SQLITE_WITH_SUBSECONDS = (3, 42)
# The SQLSTATE of a standby server that follows another one.
_READ_ONLY = "25006"

_POSTGRES = ("postgresql", "postgres")
_SECRET_PARAMETERS = ("password", "sslpassword", "passfile")
# Any other parameter is hidden: a misspelt name may hold a secret.
_SHOWN_PARAMETERS = ("host", "port", "dbname", "sslmode")


class DatabaseUrl(NamedTuple):
    """A checked URL; `str()` of it shows no secret.

    Example: `str(parse_url("postgresql://me:secret@host/db"))` is `"postgresql://me:***@host/db"`.
    """

    url: URL

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def plain(self) -> str:
        """The URL for DBOS, with the password."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=False)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        shown = self.url.difference_update_query(
            [name for name in self.url.query if name not in _SHOWN_PARAMETERS]
        )
        plain = shown.set(drivername=self.url.get_backend_name())
        return plain.render_as_string(hide_password=True)

    def redact(self, text: str) -> str:
        """Returns `text`, such as a database driver's error, without this URL's secrets."""
        secrets = [str(value) for name, value in self.url.query.items() if name in _SECRET_PARAMETERS]
        for secret in [*secrets, str(self.url.password or "")]:
            text = text.replace(secret, "***") if secret else text
        return text


def parse_url(given: Any) -> DatabaseUrl:
    """Raises InvalidOptionError for anything but the URL of a Postgres database or an SQLite file."""
    if not isinstance(given, str) or "://" not in given:
        raise _invalid("it is not a URL")
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # Their messages repeat the URL.
        raise _invalid("it can't be read") from None
    backend = url.get_backend_name()
    if backend in _POSTGRES:
        if "@" in f"{url.host}{url.database}":
            # The text after the first one is likely a part of the password, and would be shown.
            raise _invalid("it has a second '@'; write the '@' of a password as %40")
        return DatabaseUrl(url.set(drivername="postgresql+psycopg"))
    if backend == "sqlite":
        if not url.database or url.database == ":memory:":
            raise _invalid("SQLite needs a file")
        return DatabaseUrl(url.set(drivername="sqlite"))
    raise _invalid(f"{backend} is not supported")


def _invalid(why: str) -> InvalidOptionError:
    return InvalidOptionError(
        f"The database's URL can't be used: {why}. Give postgresql://user:password@host/database, or "
        "sqlite:///path/to/file.db."
    )


class Database:
    """Connects on first use, under the name "claude-force OWNER" in Postgres's list. Thread-safe."""

    def __init__(self, address: DatabaseUrl, owner: str = "driver") -> None:
        self.address = address
        self.is_sqlite = address.is_sqlite
        self.engine = _sqlite_engine(address) if address.is_sqlite else _postgres_engine(address, owner)
        self.is_prepared = False
        self._preparing = threading.Lock()
        self._client: DBOSClient | None = None

    @property
    def client(self) -> DBOSClient:
        """DBOS's client. It uses the same connections, so that it can enqueue within our transactions."""
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
        """Opens a transaction."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[sa.Connection]:
        """Opens a connection on which each statement is a transaction."""
        with self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def prepare(self) -> None:
        """Creates missing tables, once. Raises DatabaseError where the database can't be reached or used."""
        try:
            with self._preparing:
                if not self.is_prepared and not self._is_current():
                    self._create()
                self.is_prepared = True
        except DBAPIError as error:
            raise DatabaseError(f"The database {self.address} can't be used: {self.reason(error)}") from None

    def reason(self, error: BaseException) -> str:
        """Returns a database driver's message on one line, without secrets."""
        message = str(getattr(error, "orig", None) or error)
        return self.address.redact(" ".join(message.split()))

    def close(self) -> None:
        """Closes all connections; the next use opens new ones."""
        if self._client is not None:
            self._client.destroy()
            self._client = None
        self.engine.dispose()

    def _is_current(self) -> bool:
        with self.engine.connect() as connection:
            schema = None if self.is_sqlite else SCHEMA
            if not sa.inspect(connection).has_table(MADE_BY.name, schema=schema):
                return False
            # A newer version's schema is usable: DBOS only adds to its tables.
            found = connection.execute(sa.select(MADE_BY.c.version)).scalar()
            return _version_numbers(found) >= _version_numbers(_VERSION)

    def _create(self) -> None:
        with self._exclusive() as connection:
            if self._is_current():
                return
            DBOS.migrate(self.address.plain, schema="dbos" if self.is_sqlite else SCHEMA)
            create_all(connection)
            connection.execute(sa.delete(MADE_BY))
            connection.execute(sa.insert(MADE_BY).values(version=_VERSION))
            logger.info("made the tables of durable runs in %s", self.address)

    @contextmanager
    def _exclusive(self) -> Iterator[sa.Connection]:
        """Opens a transaction that only one process has at a time."""
        if self.is_sqlite:
            with self.engine.connect() as connection:
                yield connection
                connection.commit()
            return
        # Polls instead of waiting in the server: DBOS creates indexes concurrently, which waits for the
        # snapshots of all statements, including one that waits for a lock.
        with self.autocommit() as locking:
            while not locking.exec_driver_sql(f"SELECT pg_try_advisory_lock({_SETUP_LOCK})").scalar():
                time.sleep(_LOCK_PAUSE)
            try:
                with self.engine.begin() as connection:
                    yield connection
            finally:
                locking.exec_driver_sql(f"SELECT pg_advisory_unlock({_SETUP_LOCK})")


def _sqlite_engine(address: DatabaseUrl) -> sa.Engine:
    try:
        check_output_database(str(address.url.database))
    except OSError as error:
        raise DatabaseError(
            f"The database {address} can't be used: {error.strerror}. Give a file in a folder that "
            "this user can write to."
        ) from error
    # No pool: an idle connection would hold the file's lock.
    engine = sa.create_engine(address.url, poolclass=NullPool, connect_args={"timeout": 30})
    if sqlite3.sqlite_version_info < _SQLITE_WITH_SUBSECONDS:
        sa.event.listen(engine, "connect", _add_subseconds)
    return engine


def _add_subseconds(connection: Any, _: object) -> None:
    """Adds `unixepoch('subsec')`, which DBOS uses on Python 3.12 and newer, to SQLite before 3.42."""
    connection.create_function("unixepoch", -1, lambda *_: time.time())


def _postgres_engine(address: DatabaseUrl, owner: str) -> sa.Engine:
    engine = sa.create_engine(
        address.url,
        pool_size=_POOL,
        max_overflow=_POOL,
        hide_parameters=True,
        connect_args={"application_name": connection_name(owner), "connect_timeout": 10},
    )
    sa.event.listen(engine, "connect", _limit_idle_time)
    return engine.execution_options(schema_translate_map={None: SCHEMA})


def _limit_idle_time(connection: Any, _: object) -> None:
    """Sets the timeout by a statement, as some poolers refuse the `options` of a connection."""
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
    connection.commit()


def _version_numbers(text: str | None) -> List[int]:
    return [int(part) for part in (text or "").split(".") if part.isdecimal()]


def connection_name(owner: str) -> str:
    """Returns the name under which Postgres lists the connections of a worker's incarnation or a driver."""
    return f"{APPLICATION} {owner}"


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: no connection, a server that restarts or fails over, a lock."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(error, OperationalError) or error.connection_invalidated or state == _READ_ONLY
