"""Where attempts wait in the order of arrival: for the end of a pause, for the pace, for room on the wire."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Optional, Type

from ..errors import CallError, ClosedError, RateLimitError
from .clock import Clock
from .forecast import counted
from .pace import Need, Pace, Rates
from .terms import Watch
from .transport import Meter
from .window import Window

# The longest that the first in line sleeps without a look at what has changed.
_NAP_SECONDS = 1.0
_NOTHING = Need(0.0)


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
        self.under_way = 0
        self._waits_for_room = self._shut = False

    @property
    def room(self) -> int:
        """How many attempts may be on the wire at present."""
        return int(self._window.size)

    def load(self) -> Load:
        paused = self._window.wait(self._clock.now())
        return Load(self.under_way, self.room, paused, self._pace.rates())

    def passage(self, need: Need, meter: Meter, watch: Watch) -> Passage:
        """Entered when an attempt may be made. Raises ClosedError once the gate is shut."""
        return Passage(self, need, meter, watch)

    async def enter(self, need: Need) -> float:
        """Returns the time, when it is this one's turn and there is room."""
        async with self._turn:
            while not self._opens(need):
                await self._nap(need)
            began = self._clock.now()
            self._pace.take(need, began)
            self.under_way += 1
            return began

    def leave(
        self, need: Need, meter: Meter, began: float, beside: int, error: Optional[BaseException]
    ) -> float:
        """Takes note of how an attempt ended. Returns the seconds of a pause that it starts."""
        now, used, pause = self._clock.now(), need, 0.0
        self.under_way -= 1
        if error is None:
            self._window.succeeded(began, beside, self._waits_for_room)
        elif isinstance(error, CallError):
            pause = self._window.failed(error, began, now)
            used = _NOTHING if isinstance(error, RateLimitError) else need
        self._pace.learn(meter.headers, began, now)
        self._pace.settle(need, counted(meter.usage) if meter.usage else used, now)
        meter.ended = now
        self._changed.set()
        return pause

    def shut(self) -> None:
        """From now on nobody passes; what is on the wire goes on."""
        self._shut = True
        self._changed.set()

    async def empty(self) -> None:
        """Returns when nothing is on the wire."""
        while self.under_way:
            self._changed.clear()
            await self._changed.wait()

    def _opens(self, need: Need) -> bool:
        if self._shut:
            raise ClosedError("The call had not been sent when the orchestrator was stopped")
        self._waits_for_room = not self._window.has_room(self.under_way)
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


class Passage:
    """One attempt's way through the gate, there and back."""

    __slots__ = ("_began", "_beside", "_gate", "_meter", "_need", "_watch")

    def __init__(self, gate: Gate, need: Need, meter: Meter, watch: Watch) -> None:
        self._gate, self._need, self._meter, self._watch = gate, need, meter, watch
        self._began, self._beside = 0.0, 0

    async def __aenter__(self) -> None:
        self._began = self._meter.began = await self._gate.enter(self._need)
        self._beside, self._meter.window = self._gate.under_way, self._gate.room

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        pause = self._gate.leave(self._need, self._meter, self._began, self._beside, error)
        if pause and isinstance(error, CallError):
            self._watch.paused(pause, error)
