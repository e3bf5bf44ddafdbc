"""Shared pace and shared budgets as functions in Postgres: one round trip for each decision, by its clock.

The buckets are those of `limits.rate_limiter`, which describes them; here all workers fill and empty the same
ones. Rows are locked in one order, budgets by id and then buckets by model and kind, so that no two wait for
each other.

Where no budget is kept, their commits do not wait for the disk: what a crash of Postgres would lose of the
pace is made good by the next answer's headers. A budget has to be on the disk before the money is spent.
"""

from __future__ import annotations

from .tables import SCHEMA

# What a budget's other reservations may give back is looked at so often, in seconds.
_LOOK_AGAIN = 0.1
EXCEEDED = -1.0

ADMIT = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.cf_admit(
  p_id text, p_life text, p_model text, p_need float8[], p_worst bigint, p_budgets text[]
) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
  moment float8; pause float8 := 0; one record; here float8;
BEGIN
  -- Asked again because the answer was lost on the way.
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

# `p_limits` and `p_left` are what the answer's headers told, null where they told nothing.
SETTLE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.cf_settle(
  p_id text, p_used float8[], p_spent bigint, p_limits float8[], p_left float8[], p_seconds float8,
  p_pause float8
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  moment float8; mine {SCHEMA}.cf_attempts; place int; level_now float8; under_way float8[];
BEGIN
  -- Not there: the worker was taken for dead, and what it held counts at its worst.
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
    -- Some of what is under way may not have reached the server when it counted.
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

# What a worker that died had on the wire may be billed in full.
BURY = f"""
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

ALL = (ADMIT, SETTLE, BURY)
