"""Rate limits: token buckets that refill continuously, and the headers that tell their state.

Source: the API's documentation, chapter "Rate limits".
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable, Dict, List, Optional

from .replies import Refused

# Far below a token, far above what float arithmetic loses.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class RateLimit:
    """Limits for each minute; None means unlimited. Tokens read from the prompt cache are not counted."""

    requests_per_minute: Optional[int] = None
    input_tokens_per_minute: Optional[int] = None
    output_tokens_per_minute: Optional[int] = None

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if value is not None and not value >= 1:
                raise ValueError(f"{name} is {value!r}; it must be a number from 1 up, or None.")


class Bucket:
    """Holds a minute's worth and starts full. `clock` gives seconds."""

    def __init__(self, name: str, per_minute: int, clock: Callable[[], float]) -> None:
        self.name = name
        self.limit = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at = clock()

    def level(self) -> float:
        """What can be taken now; below 0 after more was taken than there was."""
        now = self._clock()
        self._level = min(self.limit, self._level + (now - self._at) * self.limit / 60)
        self._at = now
        return self._level

    def wait(self, amount: float) -> float:
        """Seconds until `amount` can be taken. More than the bucket can hold needs a full bucket."""
        missing = min(amount, self.limit) - self.level()
        return max(0.0, missing - _ROUNDING) * 60 / self.limit

    def take(self, amount: float) -> None:
        self._level = self.level() - amount


class Limiter:
    """The buckets of one organisation."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float]) -> None:
        self._requests = _bucket("requests", limit.requests_per_minute, clock)
        self._input = _bucket("input-tokens", limit.input_tokens_per_minute, clock)
        self._output = _bucket("output-tokens", limit.output_tokens_per_minute, clock)

    def admit(self, input_tokens: int) -> None:
        """Takes one request and its tokens, or raises Refused with 429 and takes nothing.

        Output is not known yet: one token must be there, the rest is taken by `charge`.
        """
        needs = [(self._requests, 1), (self._input, input_tokens), (self._output, 1)]
        waits = [(bucket.wait(amount), bucket.name) for bucket, amount in needs if bucket]
        seconds, name = max(waits, default=(0.0, ""))
        if seconds > 0:
            message = f"This request would exceed your organization's rate limit of {name} per minute."
            raise Refused(429, message, retry_after=str(math.ceil(seconds)))
        for bucket, amount in needs[:2]:
            if bucket:
                bucket.take(amount)

    def charge(self, output_tokens: int) -> None:
        if self._output:
            self._output.take(output_tokens)

    def headers(self) -> Dict[str, str]:
        """The `anthropic-ratelimit-*` headers of every limit that is set.

        Those of `tokens` are input and output together, as the API has them without a workspace limit.
        """
        found: Dict[str, str] = {}
        for bucket in (self._requests, self._input, self._output):
            if bucket:
                found.update(_headers(bucket.name, [bucket]))
        tokens = [bucket for bucket in (self._input, self._output) if bucket]
        if tokens:
            found.update(_headers("tokens", tokens))
        return found


def _bucket(name: str, per_minute: Optional[int], clock: Callable[[], float]) -> Optional[Bucket]:
    return None if per_minute is None else Bucket(name, per_minute, clock)


def _headers(name: str, buckets: List[Bucket]) -> Dict[str, str]:
    full_in = max(bucket.wait(bucket.limit) for bucket in buckets)
    reset = datetime.fromtimestamp(math.ceil(time.time() + full_in), timezone.utc)
    remaining = sum(max(0, math.floor(bucket.level() + _ROUNDING)) for bucket in buckets)
    return {
        f"anthropic-ratelimit-{name}-limit": str(sum(bucket.limit for bucket in buckets)),
        f"anthropic-ratelimit-{name}-remaining": str(remaining),
        f"anthropic-ratelimit-{name}-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
