"""Where attempts wait in the order of arrival: for the end of a pause, for the pace, for room on the wire."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import AsyncIterator

from ..errors import CallError, ClosedError, RateLimitError
from .clock import Clock
from .forecast import counted
from .pace import Need, Pace, Rates
from .terms import Watch
from .transport import Meter
from .window import Window

# The longest that the first in line sleeps without a look at what has changed.
_NAP_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """What is on the wire now, out of `window`, and the limits that are known; `paused` is in seconds."""

    under_way: int
    window: int
    paused: float
    limits: Rates


class Gate:
    """Only the first in line looks whether there is room, so that no herd wakes where one can go."""

    def __init__(self, window: Window, pace: Pace, clock: Clock) -> None:
        self._window, self._pace, self._clock = window, pace, clock
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._under_way = 0
        self._waits_for_room = self._shut = False

    def load(self) -> Load:
        paused = self._window.wait(self._clock.now())
        return Load(self._under_way, int(self._window.size), paused, self._pace.rates())

    @asynccontextmanager
    async def passage(self, need: Need, meter: Meter, watch: Watch) -> AsyncIterator[None]:
        """Entered when an attempt may be made. Raises ClosedError once the gate is shut."""
        async with self._turn:
            while not self._opens(need):
                await self._nap(need)
            began = self._clock.now()
            self._pace.take(need, began)
            self._under_way += 1
            beside = self._under_way
        used = need
        try:
            yield
            self._window.succeeded(began, beside, self._waits_for_room)
        except CallError as error:
            pause = self._window.failed(error, began, self._clock.now())
            if pause:
                watch.paused(pause, error)
            if isinstance(error, RateLimitError):
                used = Need(0.0)
            raise
        finally:
            now = self._clock.now()
            self._under_way -= 1
            self._pace.learn(meter.headers, began, now)
            self._pace.settle(need, counted(meter.usage) if meter.usage else used, now)
            self._changed.set()

    def shut(self) -> None:
        """From now on nobody passes; what is on the wire goes on."""
        self._shut = True
        self._changed.set()

    async def empty(self) -> None:
        """Returns when nothing is on the wire."""
        while self._under_way:
            self._changed.clear()
            await self._changed.wait()

    def _opens(self, need: Need) -> bool:
        if self._shut:
            raise ClosedError("The call had not been sent when the orchestrator was stopped")
        self._waits_for_room = not self._window.has_room(self._under_way)
        return not self._waits_for_room and not self._seconds(need)

    def _seconds(self, need: Need) -> float:
        now = self._clock.now()
        return max(self._window.wait(now), self._pace.wait(need, now))

    async def _nap(self, need: Need) -> None:
        if self._waits_for_room:
            self._changed.clear()
            await self._changed.wait()
        else:
            await self._clock.sleep(min(self._seconds(need), _NAP_SECONDS))
