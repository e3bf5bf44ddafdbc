"""Entries for the report's tests: the run of a fleet in virtual time."""

import heapq
import random
from datetime import datetime, timedelta, timezone

from ledgers import line_of

from claude_force.ledger.entry import Entry, decode_lines

START = datetime(2026, 3, 14, 9, 30, tzinfo=timezone.utc)
AGENTS = ("code-reviewer", "security-specialist", "documentation-writer", "python-expert", "test-writer")
# Name, median seconds to answer, USD for a million tokens in and out.
MODELS = (
    ("claude-sonnet-5-5", 4.0, 3.0, 15.0),
    ("claude-haiku-5-5", 1.4, 1.0, 5.0),
    ("local-qwen", 2.5, None, None),
)
PASSING = ("RateLimitError", "OverloadedError", "ConnectionFailedError", "SilenceError")
FINAL = {
    "RateLimitError": 429,
    "OverloadedError": 529,
    "RequestRefusedError": 400,
    "RequestTooLargeError": 413,
}
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def rows_of(entries):
    """Decodes the lines of entries."""
    rows, skipped = decode_lines([line_of(entry).encode() + b"\n" for entry in entries])
    assert not skipped
    return rows


def fleet_entries(calls, **more):
    """`calls` executions of one run: slots, a storm that halves them, backoff, cache hits, shared answers."""
    fleet = Fleet(calls, **more)
    return [fleet.execution(number) for number in range(calls)]


class Fleet:
    def __init__(self, calls, seed=1, window=12, failing=0.03, run="5f2c9a1e", start=START):
        self.chance = random.Random(f"{seed}:{calls}")
        self.free, self.window, self.parked = [0.0] * window, window, 0
        self.failing, self.run, self.start = failing, run, start
        took = calls * 2.9 / window
        self.storm = (0.35 * took, 0.5 * took)

    def execution(self, number):
        chance = self.chance
        agent = chance.choices(AGENTS, (8, 4, 3, 2, 1))[0]
        model = chance.choices(MODELS, (6, 4, 1 if agent == AGENTS[4] else 0))[0]
        queued = max(0.0, self.free[0] - chance.expovariate(0.4))
        common = {"agent_name": agent, "model": model[0], "run": self.run}
        common["task_hash"] = f"{chance.getrandbits(64):016x}"
        tokens = int(chance.lognormvariate(7.5, 0.6)), int(chance.lognormvariate(6.2, 0.5))
        kind = chance.random()
        if kind < 0.16:
            return self.kept(queued, kind < 0.14, price(model, tokens), common)
        return self.sent(queued, model, tokens, common)

    def kept(self, queued, cached, saved, common):
        took = self.chance.uniform(0.0004, 0.004) if cached else self.chance.lognormvariate(1.0, 0.5)
        return Entry(
            self.iso(queued + took),
            execution_time_ms=ms(took),
            wait_ms=ms(took),
            cached=cached,
            shared=not cached,
            estimated_cost=0.0,
            saved_cost=saved,
            stop_reason="end_turn",
            **common,
        )

    def slot(self):
        at = heapq.heappop(self.free)
        while self.stormy(at) and self.parked < self.window // 2:
            self.parked += 1
            heapq.heappush(self.free, self.storm[1])
            at = heapq.heappop(self.free)
        return at

    def stormy(self, at):
        return self.storm[0] <= at < self.storm[1]

    def sent(self, queued, model, tokens, common):
        at = max(queued, self.slot())
        doomed = self.chance.random() < self.failing
        timeline = self.attempts(at, queued, model[1], doomed)
        ended, error = queued + timeline[-1][1] / 1000, timeline[-1][3]
        heapq.heappush(self.free, ended)
        return Entry(
            self.iso(ended),
            success=not doomed,
            execution_time_ms=timeline[-1][1],
            service_time_ms=round(sum(end - begin for begin, end, _, _ in timeline), 3),
            wait_ms=round(timeline[-1][1] - sum(end - begin for begin, end, _, _ in timeline), 3),
            attempts=len(timeline),
            timeline=tuple(timeline),
            error_type=error,
            status=FINAL.get(error),
            request_id="req_011C" + "".join(self.chance.choices(BASE62, k=20)),
            **({} if doomed else self.answer(model, tokens)),
            **common,
        )

    def attempts(self, at, queued, median, doomed):
        chance, timeline = self.chance, []
        for attempt in (1, 2, 3):
            limit = self.window // 2 if self.stormy(at) else self.window
            fails = doomed or (attempt < 3 and chance.random() < (0.5 if self.stormy(at) else 0.03))
            took = chance.uniform(0.1, 0.5) if fails else chance.lognormvariate(0, 0.45) * median
            error = chance.choice(tuple(FINAL)) if doomed else chance.choices(PASSING, (8, 3, 1, 1))[0]
            timeline.append((ms(at - queued), ms(at - queued + took), limit, error if fails else None))
            if not fails or error.startswith("Request"):
                break
            at += took + chance.uniform(0.5, 2.0) * attempt
        return timeline

    def answer(self, model, tokens):
        read = tokens[0] * 6 // 10 if self.chance.random() < 0.7 else 0
        written = 0 if read else tokens[0] // 10
        cost = price(model, tokens)
        return {
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "total_tokens": sum(tokens),
            "cache_read_tokens": read,
            "cache_write_tokens": written,
            "estimated_cost": cost,
            "prompt_cache_saving": cost and round((read * 0.9 - written * 0.25) * model[2] / 1e6, 8),
            "stop_reason": self.chance.choices(("end_turn", "max_tokens"), (30, 1))[0],
        }

    def iso(self, seconds):
        return (self.start + timedelta(seconds=seconds)).isoformat()


def price(model, tokens):
    """USD; None for a model without a price."""
    return None if model[2] is None else round((tokens[0] * model[2] + tokens[1] * model[3]) / 1e6, 8)


def ms(seconds):
    return round(seconds * 1000, 3)
