"""Whether another attempt is made, and after how long. Pure.

The backoff is exponential with full jitter: Marc Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Callable

from .. import settings
from ..errors import CallError


@dataclass(frozen=True)
class RetryPolicy:
    """`attempts` counts the first one; times are seconds; `uniform(low, high)` draws the jitter."""

    attempts: int = settings.MAX_ATTEMPTS
    base: float = settings.BACKOFF_BASE_SECONDS
    cap: float = settings.BACKOFF_CAP_SECONDS
    uniform: Callable[[float, float], float] = random.uniform

    def gives_up(self, attempt: int, error: BaseException) -> bool:
        """Whether `error`, met in attempt number `attempt`, is final."""
        return attempt >= self.attempts or not (isinstance(error, CallError) and error.retryable)

    def delay(self, attempt: int, error: BaseException) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 1.

        A `retry-after` is a floor: the jitter comes on top, so that a fleet that was told
        the same time does not come back in the same moment.
        """
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))
        asked = error.retry_after if isinstance(error, CallError) else None
        return (asked or 0.0) + self.uniform(0.0, ceiling)
