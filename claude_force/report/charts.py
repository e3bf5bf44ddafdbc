"""Bar charts as SVG without a script, and their axes. Pure.

Horizontal positions are in percent of the width and nothing is scaled, so that a chart fits a phone and a
desktop, and its text keeps its size. Colours are classes of page.css.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import tzinfo
from typing import Callable, Iterable, List, Sequence, Tuple

from ..formatting import pluralize
from .html import escaped, format_time, offset_seconds

# The position of a tick from 0 to 1 along its axis, and its label.
Tick = Tuple[float, str]

MINUTE, HOUR, DAY = 60, 3600, 86400
# Widths of a bar on a time axis, in seconds.
BAR_SECONDS = (
    1, 2, 5, 10, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
    HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY,
)  # fmt: skip
MAX_BARS = 48
BARS_PER_DECADE = 12
_MAX_TIME_TICKS = 6
_MIN_FLOAT = 5e-324

AXIS_WIDTH, LABELS_HEIGHT, TOP = 58, 22, 8
# Lines are labelled above in two alternating rows, so that neighbouring labels don't overlap.
TAGS_HEIGHT, ROW_HEIGHT = 28, 13
# More tick labels than these overlap on a phone: there every other one is hidden.
MAX_LABELS_ON_PHONE = 4


def round_step(top: float, max_steps: int) -> float:
    """Returns the smallest round step of which at most `max_steps` reach `top`: 1, 2 or 5 times 10 ** n."""
    # Denormal floats can't be divided further: then the step is the smallest float.
    power = max(10.0 ** math.floor(math.log10(max(top / max_steps, _MIN_FLOAT))), _MIN_FLOAT)
    return next(power * factor for factor in (1, 2, 5, 10, 20) if top / (power * factor) <= max_steps + 1e-9)


def linear_axis(top: float, max_steps: int, label: Callable[[float], str]) -> Tuple[float, List[Tick]]:
    """Returns the end and the ticks of an axis from 0 to at least `top` (> 0)."""
    step = round_step(top, max_steps)
    steps = math.ceil(top / step - 1e-9)
    return steps * step, [(number / steps, label(number * step)) for number in range(steps + 1)]


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis of durations, from 10 ** `low` to 10 ** `high` milliseconds."""

    low: int
    high: int

    @classmethod
    def around(cls, values: Sequence[float]) -> LogAxis:
        """Returns an axis for all `values`; durations below a tenth of a millisecond count as that."""
        positive = [value for value in values if value > 0] or [1.0]
        low = max(-1, math.floor(math.log10(min(positive))))
        return cls(low, max(low + 1, math.ceil(math.log10(max(positive)) + 1e-9)))

    @property
    def bars(self) -> int:
        """The number of bars."""
        return (self.high - self.low) * BARS_PER_DECADE

    def position(self, ms: float) -> float:
        """Returns the position from 0 to 1."""
        return (math.log10(max(ms, 10.0**self.low)) - self.low) / (self.high - self.low)

    def bar_of(self, ms: float) -> int:
        """Returns the index of the bar that counts this duration."""
        return min(self.bars - 1, int(self.position(ms) * self.bars))

    def start_of(self, bar: int) -> float:
        """Returns the lower bound of a bar in milliseconds."""
        return float(10 ** (self.low + bar / BARS_PER_DECADE))

    def ticks(self) -> List[Tick]:
        """Returns ticks at powers of ten; on a short axis also at 2 and 5 times a power."""
        factors = (1, 2, 5) if self.high - self.low <= 2 else (1,)
        values = [factor * 10.0**power for power in range(self.low, self.high) for factor in factors]
        return [(self.position(ms), _decade_label(ms)) for ms in [*values, 10.0**self.high]]


def _decade_label(ms: float) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:,.0f} s"


@dataclass(frozen=True)
class TimeAxis:
    """A time axis of `bars` bars of `width` seconds, from `start` in Unix seconds; labels are in `zone`."""

    start: float
    width: int
    bars: int
    zone: tzinfo

    @classmethod
    def around(cls, began: float, ended: float, zone: tzinfo) -> TimeAxis:
        """Returns an axis of at most MAX_BARS bars with a round width and edges that are round in `zone`."""
        shift = offset_seconds(began, zone)
        widths = (*BAR_SECONDS, 28 * DAY * math.ceil((ended - began) / (28 * DAY * (MAX_BARS - 2)) + 1))
        for width in widths:
            start = math.floor((began + shift) / width) * width - shift
            bars = math.floor((ended - start) / width) + 1
            if bars <= MAX_BARS:
                break
        return cls(start, width, bars, zone)

    @property
    def bar_length(self) -> str:
        """The width of a bar in words, such as "5 minutes"."""
        for name, seconds in (("day", DAY), ("hour", HOUR), ("minute", MINUTE)):
            if self.width % seconds == 0:
                return pluralize(self.width // seconds, name)
        return pluralize(self.width, "second")

    def bar_of(self, unix: float) -> int:
        """Returns the index of the bar that this time falls in."""
        return min(self.bars - 1, max(0, int((unix - self.start) // self.width)))

    def label(self, bar: int) -> str:
        """Returns the start of a bar as text."""
        return format_time(self.start + bar * self.width, self.zone)

    def ticks(self) -> List[Tick]:
        """Returns evenly spaced ticks at the edges of bars."""
        form = "%H:%M:%S" if self.width < MINUTE else "%H:%M" if self.width < 6 * HOUR else "%d %b"
        if form == "%H:%M" and self.bars * self.width > DAY:
            form = "%d %b %H:%M"
        return [
            (bar / self.bars, format_time(self.start + bar * self.width, self.zone, form))
            for bar in range(0, self.bars + 1, math.ceil(self.bars / _MAX_TIME_TICKS))
        ]


@dataclass(frozen=True)
class Series:
    """One colour of a chart: its name, its class, and a value for each bar."""

    name: str
    colour: str
    values: Sequence[float]


@dataclass(frozen=True)
class BarChart:
    """Stacked bars: some series from 0 upwards, others from 0 downwards.

    Attributes:
        x_ticks: ticks of the horizontal axis.
        y_ticks: ticks of the vertical axis, which goes from `bottom` to `top`.
        titles: the tooltip of each bar; "" for none.
        lines: vertical lines with labels, such as percentiles.
        label: what the chart shows, for screen readers.
    """

    height: int
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    top: float
    up: Sequence[Series]
    titles: Sequence[str]
    label: str
    bottom: float = 0.0
    down: Sequence[Series] = ()
    lines: Sequence[Tick] = ()

    def svg(self) -> str:
        """Returns the vertical axis and the plot beside it."""
        room = TAGS_HEIGHT if self.lines else TOP
        parts = [*self._grid(room), *self._bars(room), *self._lines(room), *self._x_axis(room)]
        size = f'height="{room + self.height + LABELS_HEIGHT}"'
        return (
            f'<div class="chart"><svg class="beside" width="{AXIS_WIDTH}" {size} aria-hidden="true">'
            f"{''.join(self._y_axis(room))}</svg>"
            f'<svg class="field" width="100%" {size} role="img" aria-label="{escaped(self.label)}">'
            f"{''.join(parts)}</svg></div>"
        )

    def _y(self, value: float) -> float:
        return self.height * (self.top - value) / (self.top - self.bottom)

    def _y_axis(self, room: int) -> Iterable[str]:
        for position, label in self.y_ticks:
            y = room + self.height * (1 - position)
            yield f'<text x="{AXIS_WIDTH - 8}" y="{y + 4:.1f}" class="end">{escaped(label)}</text>'

    def _grid(self, room: int) -> Iterable[str]:
        for position, _ in self.y_ticks:
            y = round(room + self.height * (1 - position)) + 0.5
            value = position * (self.top - self.bottom) + self.bottom
            kind = "base" if abs(value) < 1e-9 * self.top else "grid"
            yield f'<line x1="0" x2="100%" y1="{y}" y2="{y}" class="{kind}"/>'

    def _bars(self, room: int) -> Iterable[str]:
        for series, boxes in _stacked(self.up, 1) + _stacked(self.down, -1):
            rects = "".join(self._rect(bar, low, high, room) for bar, low, high in boxes)
            if rects:
                yield f'<g class="{series.colour}">{rects}</g>'
        width = 100 / max(1, len(self.titles))
        for bar, title in enumerate(self.titles):
            if title:
                box = f'x="{bar * width:.3f}%" y="{room}" width="{width:.3f}%" height="{self.height}"'
                yield f'<rect {box} class="hit"><title>{escaped(title)}</title></rect>'

    def _rect(self, bar: int, low: float, high: float, room: int) -> str:
        width = 100 / len(self.titles)
        # At least one pixel: a bar stays visible however small it is.
        y, height = self._y(high), max(1.0, self._y(low) - self._y(high))
        x = (bar + 0.08) * width
        return f'<rect x="{x:.3f}%" y="{room + y:.1f}" width="{0.84 * width:.3f}%" height="{height:.1f}"/>'

    def _lines(self, room: int) -> Iterable[str]:
        for number, (position, label) in enumerate(self._tags()):
            x, raised = f"{100 * position:.2f}%", number % 2
            anchor = "middle" if raised else "end" if number == 0 or position > 0.94 else "start"
            y = room - 5 - ROW_HEIGHT * raised
            yield f'<line x1="{x}" x2="{x}" y1="{y + 2}" y2="{room + self.height}" class="mark"/>'
            yield f'<text x="{x}" y="{y}" class="tag {anchor}">{escaped(label)}</text>'

    def _tags(self) -> Sequence[Tick]:
        """Returns `lines`, with one label for all of them if they are close together at the right edge."""
        if len(self.lines) < 2 or self.lines[-1][0] < 0.94 or self.lines[-1][0] - self.lines[0][0] > 0.06:
            return self.lines
        unlabelled = [(position, "") for position, _ in self.lines[:-1]]
        return [*unlabelled, (self.lines[-1][0], ", ".join(label for _, label in self.lines))]

    def _x_axis(self, room: int) -> Iterable[str]:
        y = room + self.height
        crowded = len(self.x_ticks) > MAX_LABELS_ON_PHONE
        for number, (position, label) in enumerate(self.x_ticks):
            anchor = "start" if position < 0.04 else "end" if position > 0.96 else "middle"
            x, wide = f"{100 * position:.2f}%", " wide" * (crowded and number % 2)
            yield f'<line x1="{x}" x2="{x}" y1="{y}" y2="{y + 4}" class="tick"/>'
            yield f'<text x="{x}" y="{y + 17}" class="{anchor}{wide}">{escaped(label)}</text>'


def _stacked(series: Sequence[Series], sign: int) -> List[Tuple[Series, List[Tuple[int, float, float]]]]:
    """Returns each series with its boxes (bar, low, high), without empty ones."""
    heights = [0.0] * max((len(one.values) for one in series), default=0)
    found = []
    for one in series:
        boxes = []
        for bar, value in enumerate(one.values):
            if value > 0:
                low, high = sorted((sign * heights[bar], sign * (heights[bar] + value)))
                boxes.append((bar, low, high))
                heights[bar] += value
        found.append((one, boxes))
    return found
