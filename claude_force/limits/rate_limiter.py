"""Pacing: no request before the limits have room for it. Pure; every method is told the time in seconds.

Source: the API's documentation, chapter "Rate limits": token buckets that hold a minute's worth and are
refilled continuously, and the headers `anthropic-ratelimit-*`. Tokens that are read from the prompt cache
do not count.
"""

from __future__ import annotations

from typing import List, Mapping, NamedTuple, Optional, Tuple

LIMIT_TYPES = ("requests", "input-tokens", "output-tokens")
_OUTPUT = LIMIT_TYPES.index("output-tokens")
# Of a bucket that mirrors the server's, a little stays in it: estimates miss, and remainders are rounded.
_SPARE = 0.05
# A limit set by hand is spread over the minute, as far as requests can be.
_BURST = 0.1


class TokenCost(NamedTuple):
    """What one request takes, in the order of `KINDS`."""

    requests: float = 1.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0


class Rates(NamedTuple):
    """Limits for each minute, in the order of `KINDS`; None is none."""

    requests: Optional[float] = None
    input_tokens: Optional[float] = None
    output_tokens: Optional[float] = None


NO_RATES = Rates()


class TokenBucket:
    """Holds up to `capacity`, of which `spare` is not used, and gains `per_minute` evenly."""

    def __init__(
        self, per_minute: float, capacity: float, level: float, now: float, spare: float = 0.0
    ) -> None:
        self.per_minute, self.capacity, self.spare = per_minute, capacity, spare
        self._level, self._at = level, now

    def level(self, now: float) -> float:
        """What is in it; below 0 after more was used than was expected."""
        if now > self._at:
            level = self._level + (now - self._at) * self.per_minute / 60
            # Asked for fifteen times in a call: `min` would take as long as the rest.
            self._level = level if level < self.capacity else self.capacity
            self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` can be taken. More than it holds needs a full bucket."""
        if not amount:
            return 0.0
        missing = min(amount + self.spare, self.capacity) - self.level(now)
        return missing * 60 / self.per_minute if missing > 1e-6 else 0.0

    def add(self, amount: float, now: float) -> None:
        self._level = min(self.capacity, self.level(now) + amount)

    def lower(self, level: float, now: float) -> None:
        self._level = min(self.level(now), level)


class RateLimiter:
    """The buckets of one model: those that are set by hand, which all models share, and those that the
    server's headers tell of, which has limits for each model."""

    def __init__(self, given: Rates, now: float) -> None:
        self._begin(
            [
                (kind, TokenBucket(limit, max(1.0, limit * _BURST), max(1.0, limit * _BURST), now))
                for kind, limit in enumerate(given)
                if limit is not None
            ]
        )

    def share_manual_limits(self) -> RateLimiter:
        """A pace that shares what is set by hand, and has still to learn the rest."""
        other = RateLimiter.__new__(RateLimiter)
        other._begin(self._manual_buckets)
        return other

    def _begin(self, given: List[Tuple[int, TokenBucket]]) -> None:
        self._manual_buckets = given
        self._server_buckets: List[Optional[TokenBucket]] = [None] * len(LIMIT_TYPES)
        self._all: List[Tuple[int, TokenBucket]] = list(self._manual_buckets)
        self._in_flight = [0.0] * len(LIMIT_TYPES)

    @property
    def has_limits(self) -> bool:
        """Whether there is any limit to keep."""
        return bool(self._all)

    def rates(self, *others: RateLimiter) -> Rates:
        """The limits that are known, of this model and `others` together; the tighter of two."""
        learned = zip(*(pace._server_buckets for pace in (self, *others)))
        known = [sum(one.per_minute for one in kind if one) if any(kind) else None for kind in learned]
        for kind, bucket in self._manual_buckets:
            before = known[kind]
            known[kind] = bucket.per_minute if before is None else min(before, bucket.per_minute)
        return Rates(*known)

    def wait(self, need: TokenCost, now: float) -> float:
        """Seconds until `need` can be taken."""
        longest = 0.0
        for kind, bucket in self._all:
            longest = max(longest, bucket.wait(need[kind], now))
        return longest

    def wait_for_model_limits(self, need: TokenCost, now: float) -> float:
        """As `wait`, for the limits that no other model shares."""
        longest = 0.0
        for kind, bucket in enumerate(self._server_buckets):
            if bucket is not None:
                longest = max(longest, bucket.wait(need[kind], now))
        return longest

    def take(self, need: TokenCost, now: float) -> None:
        """Whatever the level: the one who takes has waited."""
        for kind, bucket in self._all:
            bucket.add(-need[kind], now)
        for kind, amount in enumerate(need):
            self._in_flight[kind] += amount

    def settle(self, need: TokenCost, used: TokenCost, now: float) -> None:
        """Puts `used` in the place of what was taken."""
        for kind, amount in enumerate(need):
            self._in_flight[kind] -= amount
        for kind, bucket in self._all:
            bucket.add(need[kind] - used[kind], now)

    def update_from_headers(
        self, headers: Mapping[str, str], sent: float, now: float, written: float = 0.0
    ) -> None:
        """Takes over what an answer's headers tell, to a request that was sent at `sent` and is settled.

        What was left when the server answered, with what has come in since the request was sent, is the
        most there can be now; others may use the same limits. `reset` tells nothing that these two do not.
        `written` are the answer's output tokens, which come after its headers.
        """
        for kind, name in enumerate(LIMIT_TYPES):
            limit = header_number(headers.get(f"anthropic-ratelimit-{name}-limit"))
            left = header_number(headers.get(f"anthropic-ratelimit-{name}-remaining"))
            if limit and left is not None:
                level = left + (now - sent) * limit / 60
                self._set_server_limit(kind, limit, level, now, written if kind == _OUTPUT else 0.0)

    def _set_server_limit(self, kind: int, limit: float, level: float, now: float, uncounted: float) -> None:
        known = self._server_buckets[kind]
        if known is not None and known.per_minute == limit:
            known.lower(level, now)
            return
        # Some of what is under way may not have reached the server when it counted.
        level = min(limit, level) - self._in_flight[kind] - uncounted
        self._server_buckets[kind] = TokenBucket(limit, limit, level, now, spare=limit * _SPARE)
        self._all = self._manual_buckets + [
            (at, bucket) for at, bucket in enumerate(self._server_buckets) if bucket
        ]


def header_number(text: Optional[str]) -> Optional[float]:
    """What a header of the limits says; None where it is missing or no amount."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
