"""Rate limits: no request is sent before the token buckets have room for it. Pure; times are seconds.

Source: the API's documentation, chapter "Rate limits": token buckets that hold a minute's worth and are
refilled continuously, and the headers `anthropic-ratelimit-*`. Tokens that are read from the prompt cache
do not count.
"""

from __future__ import annotations

from copy import copy
from typing import List, Mapping, NamedTuple, Optional, Tuple

LIMIT_TYPES = ("requests", "input-tokens", "output-tokens")
_OUTPUT = LIMIT_TYPES.index("output-tokens")
# The share of a server's bucket that is never used: estimates are off, and remainders are rounded.
_SPARE = 0.05
# A limit set by hand is spread over the minute: its bucket holds this share of it.
_BURST = 0.1


class TokenCost(NamedTuple):
    """What one request takes of the limits, in the order of `LIMIT_TYPES`."""

    requests: float = 1.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0


class Rates(NamedTuple):
    """Limits for each minute, in the order of `LIMIT_TYPES`; None means unlimited or unknown.

    Example: `Rates(requests=50)` are 50 requests a minute, with any number of tokens.
    """

    requests: Optional[float] = None
    input_tokens: Optional[float] = None
    output_tokens: Optional[float] = None


class TokenBucket:
    """Holds up to `capacity`, of which `spare` is never used, and gains `per_minute` evenly."""

    def __init__(
        self, per_minute: float, capacity: float, level: float, now: float, spare: float = 0.0
    ) -> None:
        self.per_minute, self.capacity, self.spare = per_minute, capacity, spare
        self._level, self._at = level, now

    def level(self, now: float) -> float:
        """What it holds; below 0 after more was used than was estimated."""
        if now > self._at:
            level = self._level + (now - self._at) * self.per_minute / 60
            # Called fifteen times in a call: `min` would double its cost.
            self._level = level if level < self.capacity else self.capacity
            self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` can be taken. More than it can hold needs a full bucket."""
        if not amount:
            return 0.0
        missing = min(amount + self.spare, self.capacity) - self.level(now)
        return missing * 60 / self.per_minute if missing > 1e-6 else 0.0

    def add(self, amount: float, now: float) -> None:
        self._level = min(self.capacity, self.level(now) + amount)

    def lower(self, level: float, now: float) -> None:
        """Lowers the level to `level` at most."""
        self._level = min(self.level(now), level)


class RateLimiter:
    """The token buckets of one model.

    Those of limits set by hand are shared by all models; those that the server's headers tell are this
    model's.

    Example:
        limiter = RateLimiter(Rates(requests=50), now=0.0)
        if not limiter.wait(TokenCost(1, 200, 500), now=0.0):
            limiter.take(TokenCost(1, 200, 500), now=0.0)
    """

    def __init__(self, manual: Rates, now: float) -> None:
        self._manual_buckets = [
            (kind, TokenBucket(limit, max(1.0, limit * _BURST), max(1.0, limit * _BURST), now))
            for kind, limit in enumerate(manual)
            if limit is not None
        ]
        self._forget_server_limits()

    def _forget_server_limits(self) -> None:
        self._server_buckets: List[Optional[TokenBucket]] = [None] * len(LIMIT_TYPES)
        self._buckets: List[Tuple[int, TokenBucket]] = list(self._manual_buckets)
        self._in_flight = [0.0] * len(LIMIT_TYPES)

    def share_manual_limits(self) -> RateLimiter:
        """Returns the limiter of another model, with the same buckets for the limits set by hand."""
        other = copy(self)
        other._forget_server_limits()
        return other

    def rates(self, *others: RateLimiter) -> Rates:
        """The known limits of this model and `others` together; the tighter of manual and server limit."""
        by_kind = zip(*(limiter._server_buckets for limiter in (self, *others)))
        known = [sum(one.per_minute for one in kind if one) if any(kind) else None for kind in by_kind]
        for kind, bucket in self._manual_buckets:
            server = known[kind]
            known[kind] = bucket.per_minute if server is None else min(server, bucket.per_minute)
        return Rates(*known)

    def wait(self, token_cost: TokenCost, now: float) -> float:
        """Seconds until `token_cost` can be taken."""
        longest = 0.0
        for kind, bucket in self._buckets:
            longest = max(longest, bucket.wait(token_cost[kind], now))
        return longest

    def wait_for_model_limits(self, token_cost: TokenCost, now: float) -> float:
        """As `wait`, for the limits that no other model shares."""
        longest = 0.0
        for kind, bucket in enumerate(self._server_buckets):
            if bucket is not None:
                longest = max(longest, bucket.wait(token_cost[kind], now))
        return longest

    def take(self, token_cost: TokenCost, now: float) -> None:
        """Takes it whatever the levels are."""
        for kind, bucket in self._buckets:
            bucket.add(-token_cost[kind], now)
        for kind, amount in enumerate(token_cost):
            self._in_flight[kind] += amount

    def settle(self, token_cost: TokenCost, used: TokenCost, now: float) -> None:
        """Replaces the estimate that was taken by what the request has used."""
        for kind, amount in enumerate(token_cost):
            self._in_flight[kind] -= amount
        for kind, bucket in self._buckets:
            bucket.add(token_cost[kind] - used[kind], now)

    def update_from_headers(
        self, headers: Mapping[str, str], sent: float, now: float, output_tokens: float = 0.0
    ) -> None:
        """Learns the server's limits from an answer to a request that was sent at `sent` and is settled.

        The remainder that the server reports, plus what has flowed in since the request was sent, is the
        most that there can be now: others may use the same limits. `reset` adds nothing to these two.
        `output_tokens` are the answer's; the server counts them after it has sent the headers.
        """
        for kind, name in enumerate(LIMIT_TYPES):
            limit = header_number(headers.get(f"anthropic-ratelimit-{name}-limit"))
            left = header_number(headers.get(f"anthropic-ratelimit-{name}-remaining"))
            if limit and left is not None:
                level = left + (now - sent) * limit / 60
                self._set_server_limit(kind, limit, level, now, output_tokens if kind == _OUTPUT else 0.0)

    def _set_server_limit(self, kind: int, limit: float, level: float, now: float, uncounted: float) -> None:
        known = self._server_buckets[kind]
        if known is not None and known.per_minute == limit:
            known.lower(level, now)
            return
        # The server may not have counted requests yet that are in flight.
        level = min(limit, level) - self._in_flight[kind] - uncounted
        self._server_buckets[kind] = TokenBucket(limit, limit, level, now, spare=limit * _SPARE)
        server_buckets = [(kind, bucket) for kind, bucket in enumerate(self._server_buckets) if bucket]
        self._buckets = self._manual_buckets + server_buckets


def header_number(text: Optional[str]) -> Optional[float]:
    """The amount in a rate-limit header; None if it is missing or not an amount."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
