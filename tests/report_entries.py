"""Made-up ledgers for the report's tests: a fleet's day in virtual time, and rows that bite."""

import heapq
import random
from datetime import datetime, timedelta, timezone
from itertools import count

from claude_force.ledger.entry import Entry

START = datetime(2026, 3, 14, 9, 30, tzinfo=timezone.utc)
AGENTS = ("code-reviewer", "security-specialist", "documentation-writer", "python-expert", "test-writer")
# Name, median seconds to answer, USD per million tokens in and out.
MODELS = (("claude-sonnet-5-5", 4.0, 3.0, 15.0), ("claude-haiku-5-5", 1.4, 1.0, 5.0), ("local-qwen", 2.5, None, None))
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PASSING = ("RateLimitError", "OverloadedError", "ConnectionFailedError", "SilenceError")
FINAL = {"RateLimitError": 429, "OverloadedError": 529, "RequestRefusedError": 400, "RequestTooLargeError": 413}


def fleet_entries(calls, seed=1, window=12, failing=0.03, run="5f2c9a1e", start=START):
    """`calls` executions of one run: slots, rate limits with backoff, cache hits, shared answers, failures."""
    chance = random.Random(f"{seed}:{calls}")
    free = [0.0] * window
    return [_execution(chance, free, number, calls, failing, run, start) for number in range(calls)]


def _execution(chance, free, number, calls, failing, run, start):
    storm = 0.35 < number / calls < 0.45
    agent = chance.choices(AGENTS, (8, 4, 3, 2, 1))[0]
    model, median, price_in, price_out = MODELS[chance.choices((0, 1, 2), (6, 4, 1 if agent == AGENTS[4] else 0))[0]]
    heapq.heapify(free)
    queued = max(0.0, free[0] - chance.expovariate(0.4))
    common = {"agent_name": agent, "model": model, "run": run, "task_hash": f"{chance.getrandbits(64):016x}"}
    tokens_in, tokens_out = int(chance.lognormvariate(7.5, 0.6)), int(chance.lognormvariate(6.2, 0.5))
    price = None if price_in is None else round((tokens_in * price_in + tokens_out * price_out) / 1e6, 8)
    kind = chance.random()
    if kind < 0.14:
        took = chance.uniform(0.0004, 0.004)
        return Entry(_iso(start, queued + took), execution_time_ms=_ms(took), wait_ms=_ms(took), cached=True,
                     estimated_cost=0.0, saved_cost=price, stop_reason="end_turn", **common)
    if kind < 0.16:
        took = chance.lognormvariate(1.0, 0.5)
        return Entry(_iso(start, queued + took), execution_time_ms=_ms(took), wait_ms=_ms(took), shared=True,
                     estimated_cost=0.0, saved_cost=price, stop_reason="end_turn", **common)
    return _sent(chance, free, queued, storm, failing, median, (tokens_in, tokens_out, price), start, common)


def _sent(chance, free, queued, storm, failing, median, bill, start, common):
    limit = len(free) // 2 if storm else len(free)
    timeline, error, at = [], None, heapq.heappop(free)
    doomed = chance.random() < failing
    for attempt in count(1):
        fails = doomed or (attempt < 3 and chance.random() < (0.5 if storm else 0.03))
        took = chance.uniform(0.1, 0.5) if fails else chance.lognormvariate(0, 0.45) * median
        error = chance.choice(tuple(FINAL)) if doomed else chance.choices(PASSING, (8, 3, 1, 1))[0]
        timeline.append((_ms(at - queued), _ms(at - queued + took), limit, error if fails else None))
        at += took
        if not fails or error.startswith("Request") or attempt == 3:
            break
        at += chance.uniform(0.5, 2.0) * attempt
    heapq.heappush(free, at)
    service = sum(ended - began for began, ended, _, _ in timeline)
    tokens_in, tokens_out, price = (0, 0, None) if doomed else bill
    read = tokens_in * 6 // 10 if chance.random() < 0.7 else 0
    return Entry(
        _iso(start, at), success=not doomed, execution_time_ms=_ms(at - queued), service_time_ms=round(service, 3),
        wait_ms=max(0.0, round(_ms(at - queued) - service, 3)), attempts=len(timeline), timeline=tuple(timeline),
        error_type=error if doomed else None, status=FINAL.get(error) if doomed else None,
        input_tokens=tokens_in, output_tokens=tokens_out, total_tokens=tokens_in + tokens_out, estimated_cost=price,
        cache_read_tokens=read, cache_write_tokens=0 if read else tokens_in // 2,
        stop_reason=None if doomed else chance.choices(("end_turn", "max_tokens"), (30, 1))[0],
        request_id="req_011C" + "".join(chance.choices(BASE62, k=20)), **common,
    )  # fmt: skip


def _ms(seconds):
    return round(seconds * 1000, 3)


def _iso(start, seconds):
    return (start + timedelta(seconds=seconds)).isoformat()
