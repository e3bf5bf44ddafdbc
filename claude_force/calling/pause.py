"""One answer that says "later" holds the whole fleet back, not the one task that was given it."""

from __future__ import annotations

import random
from typing import Callable

from ..errors import CallError, OverloadedError, RateLimitError
from .clock import Clock

# Seconds over which attempts begin again, so that they do not all come in one moment.
_SPREAD = 0.5


class Pause:
    """Attempts of one pool of connections wait here before they take a slot."""

    def __init__(self, clock: Clock, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._clock, self._uniform = clock, uniform
        self._until = 0.0

    def after(self, error: CallError) -> None:
        """Takes note of a 429 or a 529 that names a time; other failures are their own call's matter."""
        if isinstance(error, (RateLimitError, OverloadedError)) and error.retry_after:
            self._until = max(self._until, self._clock.now() + error.retry_after)

    async def over(self) -> None:
        """Returns when nothing is to be waited for any more."""
        while self._until > self._clock.now():
            left = self._until - self._clock.now()
            await self._clock.sleep(left + self._uniform(0.0, _SPREAD))
