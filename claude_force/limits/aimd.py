"""How many attempts may be on the wire, and when none may be. Pure; every method is told the time.

Slow start and additive increase, multiplicative decrease: Van Jacobson and Michael J. Karels, "Congestion
Avoidance and Control", 1988. The silence after a storm is a circuit breaker that is half open for one
attempt at a time.
"""

from __future__ import annotations

import random
from typing import Callable

from .. import settings
from ..errors import CallError, OverloadedError, RateLimitError, TransientError

# Seconds over which many fleets that were told the same time come back.
_SPREAD = 0.5
# Failures in a row, with no success among them, that make a storm.
_FEWEST, _MOST = 5, 20
_FIRST_PROBE_SECONDS, _LAST_PROBE_SECONDS = 1.0, 20.0
# How long all wait at least after a 429, as it may name no time, or only that until there is room for one:
# each time twice as long, and a little less after each success.
_FIRST_GUESS_SECONDS, _LAST_GUESS_SECONDS, _GUESS_DECAY = 1.0, 10.0, 0.9
# How long a lowered ceiling stays where it is: whoever took the descriptors needs them for a while, and each
# look for more may take one from them.
_LOWERED_SECONDS = 30.0


class AdaptiveConcurrencyLimit:
    """A fixed window has `ceiling` attempts, an `adaptive` one finds out how many the server takes.

    Either is closed while the server says "later", and begins again with one attempt, as does one that
    meets nothing but failures. Each success then makes room for one more.
    """

    def __init__(
        self, ceiling: int, adaptive: bool, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.ceiling, self.adaptive = float(ceiling), adaptive
        self._asked, self._lowered_at = float(ceiling), float("-inf")
        self.size = float(min(ceiling, settings.MAX_CONCURRENT)) if adaptive else float(ceiling)
        self._threshold = self._before = float(ceiling)
        self._proven = 1.0
        self._uniform = uniform
        self._failures = 0
        self._cut_at = self._closed_until = float("-inf")
        self._probe_after = self._guess = 0.0
        self._ever = False

    def wait(self, now: float) -> float:
        """Seconds until an attempt may begin."""
        return max(0.0, self._closed_until - now)

    def has_room(self, in_flight: int) -> bool:
        return in_flight < int(self.size)

    def reduce_ceiling(self, most: int, now: float) -> None:
        """From here on there may be `most` attempts at a time, and one at least; after half a minute without
        another call of this, one more for each window of successes."""
        self.ceiling, self._lowered_at = min(self.ceiling, max(1.0, float(most))), now
        self.size = min(self.size, self.ceiling)
        self._threshold = min(self._threshold, self.ceiling)
        self._proven = min(self._proven, self.ceiling)

    def record_success(self, began: float, in_flight_at_start: int, wanted: bool) -> None:
        """`beside`: attempts on the wire when this one began, itself among them. `wanted`: another attempt
        waits for room; a window that is not full has no reason to grow."""
        if began < self._cut_at:
            # The server took it on before it refused others: it says nothing of what holds now.
            return
        self._failures, self._probe_after, self._ever = 0, 0.0, True
        self._guess *= _GUESS_DECAY
        self._proven = max(self._proven, float(in_flight_at_start))
        if wanted and self.ceiling < self._asked and began >= self._lowered_at + _LOWERED_SECONDS:
            self._raise_ceiling()
        if wanted and self.size < self._threshold:
            self.size = min(self._threshold, self.size + 1)
        elif wanted and self.adaptive:
            self.size = min(self.ceiling, self.size + 1 / self.size)

    def _raise_ceiling(self) -> None:
        self.ceiling = min(self._asked, self.ceiling + 1 / self.ceiling)
        if not self.adaptive:
            self._threshold = self.ceiling

    def record_failure(self, error: BaseException, began: float, now: float) -> float:
        """Takes note of an attempt that began at `began`. Returns the seconds of a pause that it starts."""
        if not isinstance(error, CallError) or not (error.retryable or isinstance(error, TransientError)):
            return 0.0
        wait = self.wait(now)
        refused = isinstance(error, (RateLimitError, OverloadedError))
        if not refused and not self._ever:
            # No connection at all is more often a wrong address than a storm.
            return 0.0
        if not self._failures:
            self._before = self.size
        self._failures += 1
        probed = began >= self._closed_until
        if refused:
            self._refused(error, began, now)
        if self._failures >= max(_FEWEST, min(_MOST, int(self._before))) and probed:
            self._storm(now)
        return self.wait(now) if self.wait(now) > wait else 0.0

    def _refused(self, error: CallError, began: float, now: float) -> None:
        # One burst is one cut: what began before the cut tells nothing of what holds after it, and failures
        # without a success among them are one burst.
        fresh = began >= self._cut_at
        if fresh and self._failures == 1:
            self._cut_at = now
            if self.adaptive:
                self.size = self._threshold = max(1.0, self.size / 2)
        seconds = error.retry_after or 0.0
        if fresh and isinstance(error, RateLimitError):
            self._cut_at = now
            self._guess = min(_LAST_GUESS_SECONDS, max(_FIRST_GUESS_SECONDS, 2 * self._guess))
            seconds = max(seconds, self._guess)
        if seconds:
            self._close(seconds, now)

    def _close(self, seconds: float, now: float) -> None:
        self.size = 1.0
        self._closed_until = max(self._closed_until, now + seconds + self._uniform(0.0, _SPREAD))

    def _storm(self, now: float) -> None:
        if self.adaptive and not self._probe_after:
            # It will take as many as it took before; had they been too many, fewer will be proven next time.
            self._threshold, self._proven = self._proven, self._proven / 2
        self._probe_after = min(_LAST_PROBE_SECONDS, max(_FIRST_PROBE_SECONDS, 2 * self._probe_after))
        self.size, self._cut_at = 1.0, now
        # Not below half: a probe that comes at once finds what the last one found.
        until = now + self._uniform(self._probe_after / 2, self._probe_after)
        self._closed_until = max(self._closed_until, until)
