"""How many attempts may be in flight, and when none may start. Pure; times are seconds.

Slow start and additive increase, multiplicative decrease: Van Jacobson and Michael J. Karels, "Congestion
Avoidance and Control", 1988. The pause after a storm of failures is a circuit breaker that is half open for
one attempt at a time.
"""

from __future__ import annotations

import random
from typing import Callable

from .. import settings
from ..errors import CallError, OverloadedError, RateLimitError, TransientError

# Spreads the return of many clients that were all given the same time.
_SPREAD_SECONDS = 0.5
# The fewest and the most failures in a row, without a success, that make a storm.
_MIN_STORM, _MAX_STORM = 5, 20
_FIRST_PROBE_SECONDS, _LONGEST_PROBE_SECONDS = 1.0, 20.0
# The shortest pause after a 429, which may name no time, or only the time until one request fits: it doubles
# with each 429, and shrinks a little with each success.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, _PAUSE_DECAY = 1.0, 10.0, 0.9
# How long a reduced ceiling stays as it is: another program needs the file descriptors that it took, and each
# try for more may take one from it.
_REDUCED_SECONDS = 30.0


class AdaptiveConcurrencyLimit:
    """The number of attempts that may be in flight.

    It is `ceiling`, or if `adaptive` as many as the server turns out to take. It is paused when the server
    asks for that, and during a storm, and then starts again with one attempt; each success makes room for
    one more.

    Attributes:
        size: how many attempts may be in flight, a float.
        ceiling: what `size` never exceeds.

    Example:
        limit = AdaptiveConcurrencyLimit(100, adaptive=True)
        pause = limit.record_failure(RateLimitError("slow down"), began=0.0, now=1.0)
    """

    def __init__(
        self, ceiling: int, adaptive: bool, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.ceiling, self.adaptive = float(ceiling), adaptive
        self._configured, self._reduced_at = float(ceiling), float("-inf")
        self.size = float(min(ceiling, settings.MAX_CONCURRENT)) if adaptive else float(ceiling)
        self._slow_start_until = self._size_before_failures = float(ceiling)
        self._proven_size = 1.0
        self._uniform = uniform
        self._failures = 0
        self._last_cut = self._paused_until = float("-inf")
        self._probe_delay = self._guessed_pause = 0.0
        self._has_succeeded = False

    def wait(self, now: float) -> float:
        """Seconds until an attempt may begin."""
        return max(0.0, self._paused_until - now)

    def has_room(self, in_flight: int) -> bool:
        return in_flight < int(self.size)

    def reduce_ceiling(self, most: int, now: float) -> None:
        """Limits the attempts to `most`, and to one at least.

        After half a minute without another call of this, the ceiling rises by one for as many successes as
        it is high.
        """
        self.ceiling, self._reduced_at = min(self.ceiling, max(1.0, float(most))), now
        self.size = min(self.size, self.ceiling)
        self._slow_start_until = min(self._slow_start_until, self.ceiling)
        self._proven_size = min(self._proven_size, self.ceiling)

    def record_success(self, began: float, in_flight_at_start: int, is_full: bool) -> None:
        """Records an attempt that began at `began`, when `in_flight_at_start` were in flight with it.

        `is_full` says that other attempts wait for room: without them there is no reason to grow.
        """
        if began < self._last_cut:
            # The server accepted it before it refused others, so it says nothing about now.
            return
        self._failures, self._probe_delay, self._has_succeeded = 0, 0.0, True
        self._guessed_pause *= _PAUSE_DECAY
        self._proven_size = max(self._proven_size, float(in_flight_at_start))
        if is_full and began >= self._reduced_at + _REDUCED_SECONDS:
            self._raise_ceiling()
        if is_full and self.size < self._slow_start_until:
            self.size = min(self._slow_start_until, self.size + 1)
        elif is_full and self.adaptive:
            self.size = min(self.ceiling, self.size + 1 / self.size)

    def _raise_ceiling(self) -> None:
        self.ceiling = min(self._configured, self.ceiling + 1 / self.ceiling)
        if not self.adaptive:
            self._slow_start_until = self.ceiling

    def record_failure(self, error: BaseException, began: float, now: float) -> float:
        """Records an attempt that began at `began`; returns the seconds of a pause that it starts."""
        if not isinstance(error, CallError) or not (error.retryable or isinstance(error, TransientError)):
            return 0.0
        wait = self.wait(now)
        is_refused = isinstance(error, (RateLimitError, OverloadedError))
        if not is_refused and not self._has_succeeded:
            # An address where nobody ever answered is more often wrong than overloaded.
            return 0.0
        if not self._failures:
            self._size_before_failures = self.size
        self._failures += 1
        is_probe = began >= self._paused_until
        if is_refused:
            self._record_refusal(error, began, now)
        if self._failures >= max(_MIN_STORM, min(_MAX_STORM, int(self._size_before_failures))) and is_probe:
            self._start_storm(now)
        return self.wait(now) if self.wait(now) > wait else 0.0

    def _record_refusal(self, error: CallError, began: float, now: float) -> None:
        # One burst is one cut: an attempt that began before the cut says nothing about the time after it, and
        # failures without a success among them are one burst.
        is_new_burst = began >= self._last_cut
        if is_new_burst and self._failures == 1:
            self._last_cut = now
            if self.adaptive:
                self.size = self._slow_start_until = max(1.0, self.size / 2)
        seconds = error.retry_after or 0.0
        if is_new_burst and isinstance(error, RateLimitError):
            self._last_cut = now
            self._guessed_pause = min(
                _LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, 2 * self._guessed_pause)
            )
            seconds = max(seconds, self._guessed_pause)
        if seconds:
            self._pause(seconds, now)

    def _pause(self, seconds: float, now: float) -> None:
        self.size = 1.0
        self._paused_until = max(self._paused_until, now + seconds + self._uniform(0.0, _SPREAD_SECONDS))

    def _start_storm(self, now: float) -> None:
        if self.adaptive and not self._probe_delay:
            # The server will take as many as before; if that is too many, fewer will be proven next time.
            self._slow_start_until, self._proven_size = self._proven_size, self._proven_size / 2
        self._probe_delay = min(_LONGEST_PROBE_SECONDS, max(_FIRST_PROBE_SECONDS, 2 * self._probe_delay))
        self.size, self._last_cut = 1.0, now
        # At least half of the delay: a probe that comes at once finds what the last one found.
        until = now + self._uniform(self._probe_delay / 2, self._probe_delay)
        self._paused_until = max(self._paused_until, until)
