"""Where the marks of an axis lie: for amounts, for durations, for moments. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import tzinfo
from typing import Callable, List, Sequence, Tuple

from ..formatting import pluralize
from . import text

# A mark: its place from 0 to 1 along the axis, and its label.
Mark = Tuple[float, str]

MINUTE, HOUR, DAY = 60, 3600, 86400
# Seconds that a bar may stand for.
BIN_SECONDS = (
    1, 2, 5, 10, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
    HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY,
)  # fmt: skip
MOST_BINS = 48
BINS_PER_DECADE = 12

_LEAST = 5e-324


def step_for(top: float, most: int) -> float:
    """The least of 1, 2, 5, 10, ... times a power of ten that parts `top` into at most `most` steps."""
    # A float has a least value; what can't be parted is a step as it is.
    power = max(10.0 ** math.floor(math.log10(max(top / most, _LEAST))), _LEAST)
    return next(power * factor for factor in (1, 2, 5, 10, 20) if top / (power * factor) <= most + 1e-9)


def amounts(top: float, most: int, label: Callable[[float], str]) -> Tuple[float, List[Mark]]:
    """The axis from 0 to at least `top` (> 0): where it ends, and its marks."""
    step = step_for(top, most)
    steps = math.ceil(top / step - 1e-9)
    return steps * step, [(number / steps, label(number * step)) for number in range(steps + 1)]


@dataclass(frozen=True)
class Decades:
    """A logarithmic axis of durations in milliseconds, from 10 ** `low` to 10 ** `high`."""

    low: int
    high: int

    @classmethod
    def around(cls, values: Sequence[float]) -> Decades:
        """Wide enough for all `values`; what is under a tenth of a millisecond counts as that."""
        seen = [value for value in values if value > 0] or [1.0]
        low = max(-1, math.floor(math.log10(min(seen))))
        return cls(low, max(low + 1, math.ceil(math.log10(max(seen)) + 1e-9)))

    @property
    def bins(self) -> int:
        return (self.high - self.low) * BINS_PER_DECADE

    def place(self, ms: float) -> float:
        """From 0 to 1."""
        return (math.log10(max(ms, 10.0**self.low)) - self.low) / (self.high - self.low)

    def bin_of(self, ms: float) -> int:
        """Its number, from 0."""
        return min(self.bins - 1, int(self.place(ms) * self.bins))

    def edge(self, number: int) -> float:
        """Where bin `number` begins, in milliseconds."""
        return float(10 ** (self.low + number / BINS_PER_DECADE))

    def marks(self) -> List[Mark]:
        """At the powers of ten; on a short axis at 2 and 5 times these too."""
        factors = (1, 2, 5) if self.high - self.low <= 2 else (1,)
        values = [factor * 10.0**power for power in range(self.low, self.high) for factor in factors]
        return [(self.place(value), _decade(value)) for value in [*values, 10.0**self.high]]


def _decade(ms: float) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:,.0f} s"


@dataclass(frozen=True)
class Clock:
    """An axis of moments: `bins` bars of `width` seconds from `start`, Unix time, shown in `zone`."""

    start: float
    width: int
    bins: int
    zone: tzinfo

    @classmethod
    def around(cls, began: float, ended: float, zone: tzinfo) -> Clock:
        """Bars of a round width, at most MOST_BINS of them, whose edges are round in `zone`."""
        shift = text.offset_seconds(began, zone)
        widths = (*BIN_SECONDS, 28 * DAY * math.ceil((ended - began) / (28 * DAY * (MOST_BINS - 2)) + 1))
        for width in widths:
            start = math.floor((began + shift) / width) * width - shift
            bins = math.floor((ended - start) / width) + 1
            if bins <= MOST_BINS:
                break
        return cls(start, width, bins, zone)

    @property
    def bar(self) -> str:
        """How long a bar is."""
        for name, seconds in (("day", DAY), ("hour", HOUR), ("minute", MINUTE)):
            if self.width % seconds == 0:
                return pluralize(self.width // seconds, name)
        return pluralize(self.width, "second")

    def bin_of(self, unix: float) -> int:
        """Its number, from 0."""
        return min(self.bins - 1, max(0, int((unix - self.start) // self.width)))

    def label(self, number: int) -> str:
        """When bar `number` begins."""
        return text.moment(self.start + number * self.width, self.zone)

    def marks(self, most: int = 6) -> List[Mark]:
        """At the edges of bars, evenly."""
        form = "%H:%M:%S" if self.width < MINUTE else "%H:%M" if self.width < 6 * HOUR else "%d %b"
        if form == "%H:%M" and self.bins * self.width > DAY:
            form = "%d %b %H:%M"
        return [
            (number / self.bins, text.moment(self.start + number * self.width, self.zone, form))
            for number in range(0, self.bins + 1, math.ceil(self.bins / most))
        ]
