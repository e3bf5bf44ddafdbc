"""The database schema of durable runs: tables for both databases, and functions for Postgres.

On Postgres everything, DBOS's tables included, is in the schema `claude_force`. Times are the database's: the
clocks of drivers and workers are never compared with each other.

The functions decide on shared rate limits and budgets in one round trip, by the database's clock. Their token
buckets exist twice for a reason: `limits.rate_limiter` limits one process, in memory and without I/O; workers
on many machines need buckets that all of them can see and lock. Rows are locked in one order, budgets by id,
then buckets by model and kind, so that no two transactions wait for each other.
"""

from __future__ import annotations

from typing import Any, List

import sqlalchemy as sa
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Float, Integer, LargeBinary, MetaData, Table, Text

SCHEMA = "claude_force"

_METADATA = MetaData()


def _columns(kind: Any, *names: str) -> List[Column[Any]]:
    return [Column(name, kind, nullable=False) for name in names]


# `id` is "run:place:fingerprint". `starts` counts how often workers started the call, `generation` how often
# it was enqueued: again after it had failed, been cancelled or been released.
CALLS = Table(
    "cf_calls",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("run", Text, nullable=False, index=True),
    *_columns(Text, "agent", "body"),
    Column("generation", Integer, nullable=False, default=1),
    Column("starts", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("deadline", Float),
    Column("worker", Text),
)

# Rows are written once: where two workers made the same call, the first answer counts.
RESULTS = Table(
    "cf_results",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("run", Text, nullable=False, index=True),
    *_columns(Text, "figures", "text"),
    Column("success", Boolean, nullable=False),
    Column("cancelled", Boolean, nullable=False, default=False),
    Column("delivered", Boolean, nullable=False, default=False),
    Column("created", Float, nullable=False),
)

RUNS = Table(
    "cf_runs",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("about", Text, nullable=False),
    Column("created", Float, nullable=False),
)

# `life` identifies one incarnation of a worker: it changes with each start of a process under that name.
WORKERS = Table(
    "cf_workers",
    _METADATA,
    Column("name", Text, primary_key=True),
    Column("life", Text, nullable=False),
    Column("concurrency", Integer, nullable=False),
    *_columns(Float, "started", "seen"),
)

# Amounts are whole nano-USD, so that sums are exact. `most` is the budget's limit.
BUDGETS = Table(
    "cf_budgets",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("most", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False, default=0),
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("created", Float, nullable=False),
)

# Requests in flight, of all workers; `life` is the worker's incarnation.
ATTEMPTS = Table(
    "cf_attempts",
    _METADATA,
    Column("id", Text, primary_key=True),
    Column("life", Text, nullable=False, index=True),
    Column("model", Text, nullable=False),
    *_columns(Float, "requests", "input", "output"),
    Column("worst", BigInteger, nullable=False),
    Column("budgets", ARRAY(Text), nullable=False),
)

# `kind` is an index of `limits.rate_limiter.LIMIT_TYPES`. Model "" holds the limits that the user set.
BUCKETS = Table(
    "cf_buckets",
    _METADATA,
    Column("model", Text, primary_key=True),
    Column("kind", Integer, primary_key=True),
    *_columns(Float, "per_minute", "capacity", "spare", "level", "at"),
)

PAUSES = Table("cf_pauses", _METADATA, Column("model", Text, primary_key=True), *_columns(Float, "until"))

# `secret` identifies the signing secret: machines with different secrets keep separate entries.
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

# One row: the version that made the schema, so that a role without that right sees that nothing is missing.
MADE_BY = Table("cf_made_by", _METADATA, Column("version", Text, primary_key=True))

_ON_SQLITE = (CALLS, RESULTS, RUNS, MADE_BY)


def create_all(connection: sa.Connection) -> None:
    """Creates missing tables and functions. SQLite needs no table that only workers use."""
    if connection.dialect.name == "sqlite":
        _METADATA.create_all(connection, tables=list(_ON_SQLITE))
        return
    _METADATA.create_all(connection)
    for function in (ADMIT, SETTLE, CHARGE_LOST):
        connection.exec_driver_sql(function)


def commit_without_fsync(connection: sa.Connection) -> None:
    """Lets this transaction's commit return before it is on disk.

    For data that a crash of Postgres may lose: it exists elsewhere too, or the next ordinary commit saves it.
    """
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")


def now(connection: sa.Connection) -> sa.ColumnElement[float]:
    """The database's time in Unix seconds at this statement, not at the start of its transaction."""
    if connection.dialect.name == "sqlite":
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
    return sa.literal_column("extract(epoch from clock_timestamp())::float8", Float)


# Seconds until an attempt asks again that has no room beside other attempts' reservations.
_LOOK_AGAIN = 0.1
# What ADMIT returns for an attempt that a budget can never admit.
EXCEEDED = -1.0

# ADMIT returns 0 for an admitted attempt, else the seconds to wait, or EXCEEDED. Without a budget its commit
# does not wait for the disk: the headers of the next answer repair the bucket levels that a crash loses. With
# a budget it does, before the money is spent.
ADMIT = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.cf_admit(
  p_id text, p_life text, p_model text, p_need float8[], p_worst bigint, p_budgets text[]
) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
  moment float8; pause float8 := 0; one record; here float8;
BEGIN
  -- Admitted before: the reply was lost, and the caller asks again.
  IF EXISTS (SELECT 1 FROM {SCHEMA}.cf_attempts WHERE id = p_id) THEN RETURN 0; END IF;
  IF cardinality(p_budgets) = 0 THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  FOR one IN SELECT * FROM {SCHEMA}.cf_budgets WHERE id = ANY(p_budgets) ORDER BY id FOR UPDATE LOOP
    IF one.spent + p_worst > one.most THEN RETURN {EXCEEDED}; END IF;
    IF one.spent + one.reserved + p_worst > one.most THEN pause := {_LOOK_AGAIN}; END IF;
  END LOOP;
  PERFORM 1 FROM {SCHEMA}.cf_buckets WHERE model IN ('', p_model) ORDER BY model, kind FOR UPDATE;
  moment := extract(epoch from clock_timestamp());
  SELECT greatest(pause, coalesce(max(until), 0) - moment) INTO pause
    FROM {SCHEMA}.cf_pauses WHERE model IN ('', p_model);
  FOR one IN SELECT * FROM {SCHEMA}.cf_buckets WHERE model IN ('', p_model) AND p_need[kind + 1] > 0 LOOP
    here := least(one.capacity, one.level + (moment - one.at) * one.per_minute / 60);
    pause := greatest(
      pause, (least(p_need[one.kind + 1] + one.spare, one.capacity) - here) * 60 / one.per_minute);
  END LOOP;
  IF pause > 1e-6 THEN RETURN pause; END IF;
  UPDATE {SCHEMA}.cf_buckets
    SET level = least(capacity, level + (moment - at) * per_minute / 60) - p_need[kind + 1], at = moment
    WHERE model IN ('', p_model);
  UPDATE {SCHEMA}.cf_budgets SET reserved = reserved + p_worst WHERE id = ANY(p_budgets);
  INSERT INTO {SCHEMA}.cf_attempts VALUES
    (p_id, p_life, p_model, p_need[1], p_need[2], p_need[3], p_worst, p_budgets);
  RETURN 0;
END $$
"""

# SETTLE replaces an attempt's estimates by what it used, and learns limits from the answer's headers:
# `p_limits` and `p_left` are null where a header was missing.
SETTLE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.cf_settle(
  p_id text, p_used float8[], p_spent bigint, p_limits float8[], p_left float8[], p_seconds float8,
  p_pause float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  moment float8; mine {SCHEMA}.cf_attempts; place int; level_now float8; under_way float8[];
BEGIN
  -- Missing: the worker was declared dead, and the attempt was charged at its worst.
  DELETE FROM {SCHEMA}.cf_attempts WHERE id = p_id RETURNING * INTO mine;
  IF mine.id IS NULL THEN RETURN; END IF;
  IF cardinality(mine.budgets) = 0 THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  PERFORM 1 FROM {SCHEMA}.cf_budgets WHERE id = ANY(mine.budgets) ORDER BY id FOR UPDATE;
  UPDATE {SCHEMA}.cf_budgets SET reserved = reserved - mine.worst, spent = spent + p_spent
    WHERE id = ANY(mine.budgets);
  PERFORM 1 FROM {SCHEMA}.cf_buckets WHERE model IN ('', mine.model) ORDER BY model, kind FOR UPDATE;
  moment := extract(epoch from clock_timestamp());
  UPDATE {SCHEMA}.cf_buckets
    SET level = least(capacity, level + (moment - at) * per_minute / 60
      + (ARRAY[mine.requests, mine.input, mine.output])[kind + 1] - p_used[kind + 1]), at = moment
    WHERE model IN ('', mine.model);
  FOR place IN 1..3 LOOP
    CONTINUE WHEN p_limits[place] IS NULL OR p_left[place] IS NULL OR p_limits[place] <= 0;
    level_now := p_left[place] + p_seconds * p_limits[place] / 60;
    UPDATE {SCHEMA}.cf_buckets SET level = least(level, level_now)
      WHERE model = mine.model AND kind = place - 1 AND per_minute = p_limits[place];
    CONTINUE WHEN FOUND;
    -- Requests in flight may not have reached the server when it counted.
    SELECT ARRAY[coalesce(sum(requests), 0), coalesce(sum(input), 0), coalesce(sum(output), 0)]
      INTO under_way FROM {SCHEMA}.cf_attempts WHERE model = mine.model;
    level_now := least(p_limits[place], level_now) - under_way[place];
    INSERT INTO {SCHEMA}.cf_buckets VALUES
      (mine.model, place - 1, p_limits[place], p_limits[place], p_limits[place] * 0.05, level_now, moment)
      ON CONFLICT (model, kind) DO UPDATE SET per_minute = excluded.per_minute, capacity = excluded.capacity,
        spare = excluded.spare, level = excluded.level, at = excluded.at;
  END LOOP;
  IF p_pause > 0 THEN
    INSERT INTO {SCHEMA}.cf_pauses VALUES ('', moment + p_pause)
      ON CONFLICT (model) DO UPDATE SET until = greatest({SCHEMA}.cf_pauses.until, excluded.until);
  END IF;
END $$
"""

# CHARGE_LOST charges a dead worker's requests in flight at their worst: they may be billed in full.
CHARGE_LOST = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.cf_bury(p_life text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  buried int;
BEGIN
  PERFORM 1 FROM {SCHEMA}.cf_budgets WHERE id IN
    (SELECT unnest(budgets) FROM {SCHEMA}.cf_attempts WHERE life = p_life) ORDER BY id FOR UPDATE;
  WITH gone AS (DELETE FROM {SCHEMA}.cf_attempts WHERE life = p_life RETURNING worst, budgets),
    held AS (SELECT unnest(budgets) AS id, worst FROM gone),
    sums AS (SELECT id, sum(worst)::bigint AS worst FROM held GROUP BY id),
    moved AS (UPDATE {SCHEMA}.cf_budgets SET reserved = reserved - sums.worst, spent = spent + sums.worst
      FROM sums WHERE {SCHEMA}.cf_budgets.id = sums.id RETURNING 1)
    SELECT count(*) INTO buried FROM gone;
  RETURN buried;
END $$
"""
