"""The tables of durable runs, for both databases; on Postgres in a schema of their own, with DBOS's.

Times are the database's: no clock of a driver or a worker is ever compared with another's.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Float, Integer, LargeBinary, MetaData, Table, Text

SCHEMA = "claude_force"

_METADATA = MetaData()

# `id` is the ticket, "run:place:fingerprint"; `starts` counts how often a worker began it, `generation` how
# often it was handed over anew after it had failed or been cancelled.
CALLS = Table(
    "cf_calls",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("run", Text, nullable=False, index=True),
    Column("agent", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("generation", Integer, nullable=False, default=1),
    Column("starts", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("deadline", Float),
    Column("worker", Text),
)

# Rows are written once: of two workers that made the same call, the first one's answer is the call's.
RESULTS = Table(
    "cf_results",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("run", Text, nullable=False, index=True),
    Column("figures", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("success", Boolean, nullable=False),
    Column("cancelled", Boolean, nullable=False, default=False),
    Column("delivered", Boolean, nullable=False, default=False),
    Column("created", Float, nullable=False),
)

# `about` is JSON: what the run is, for those who list runs or resume one.
RUNS = Table(
    "cf_runs",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("about", Text, nullable=False),
    Column("created", Float, nullable=False),
)

# `life` is new with each start of the process that bears the name.
WORKERS = Table(
    "cf_workers",
    _METADATA,
    Column("name", Text, primary_key=True),
    Column("life", Text, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("started", Float, nullable=False),
    Column("seen", Float, nullable=False),
)

# Money is in whole nano-USD, which add up exactly.
BUDGETS = Table(
    "cf_budgets",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("most", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False, default=0),
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("created", Float, nullable=False),
)

# What is on the wire, of all workers; `life` tells whose it is.
ATTEMPTS = Table(
    "cf_attempts",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("life", Text, nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("requests", Float, nullable=False),
    Column("input", Float, nullable=False),
    Column("output", Float, nullable=False),
    Column("worst", BigInteger, nullable=False),
    Column("budgets", ARRAY(Text), nullable=False),
)

# Kind 0 to 2 as in `limits.rate_limiter.LIMIT_TYPES`; model "" has the limits set by hand, shared by all.
BUCKETS = Table(
    "cf_buckets",
    _METADATA,
    Column("model", Text, primary_key=True),
    Column("kind", Integer, primary_key=True),
    Column("per_minute", Float, nullable=False),
    Column("capacity", Float, nullable=False),
    Column("spare", Float, nullable=False),
    Column("level", Float, nullable=False),
    Column("at", Float, nullable=False),
)

PAUSES = Table(
    "cf_pauses",
    _METADATA,
    Column("model", Text, primary_key=True),
    Column("until", Float, nullable=False),
)

# `secret` is the id of the one that signed; without a common one each machine has entries of its own.
ANSWERS = Table(
    "cf_answers",
    _METADATA,
    Column("key", LargeBinary, primary_key=True),
    Column("secret", LargeBinary, primary_key=True),
    Column("agent", Text, nullable=False, index=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("used", Float, nullable=False, index=True),
    Column("hits", Integer, nullable=False, default=0),
)

# One row: what made the tables and the functions. A role that may not do so finds that nothing is to be done.
MADE_BY = Table("cf_made_by", _METADATA, Column("version", Text, primary_key=True))

_EVERYWHERE = (CALLS, RESULTS, RUNS, MADE_BY)


def create_all(connection: sa.Connection) -> None:
    """What is missing of them; SQLite needs only the first few, because there the worker is the driver."""
    sqlite = connection.dialect.name == "sqlite"
    _METADATA.create_all(connection, tables=list(_EVERYWHERE) if sqlite else None)


def need_not_wait(connection: sa.Connection) -> None:
    """This transaction's commit does not wait for the disk: for what is kept in another place too, or is on
    it with the next commit that waits. A crash of Postgres may lose the last moments of it."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")


def now(connection: sa.Connection) -> sa.ColumnElement[float]:
    """The database's time in Unix seconds, as of this statement and not of the transaction's begin."""
    if connection.dialect.name == "sqlite":
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
    return sa.literal_column("extract(epoch from clock_timestamp())::float8", Float)
