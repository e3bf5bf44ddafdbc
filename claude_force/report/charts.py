"""Charts as SVG that needs no script. Pure.

Across, everything is in percent of the width and nothing is scaled: so a chart fits a phone and a desk, and
its letters keep their size. Colours are classes of page.css.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, List, Sequence, Tuple

from .scales import Mark
from .text import escaped

AXIS_WIDTH, LABELS_HEIGHT, TOP = 58, 22, 8
# Lines are labelled above, in two rows by turns, so that neighbours' labels don't meet.
TAGS_HEIGHT, ROW_HEIGHT = 28, 13
# More labels than these meet on a phone; every other one is left out there.
MOST_ON_PHONE = 4


@dataclass(frozen=True)
class Series:
    """One colour: its name, its class, and a value for each bar."""

    name: str
    colour: str
    values: Sequence[float]


@dataclass(frozen=True)
class Bars:
    """Bars, one series on another from 0 upwards, others from 0 downwards.

    Attributes:
        across: marks of the axis below; `beside`, of the axis at the left, counts from `bottom` to `top`.
        titles: what a pointer is told of each bar.
        lines: marks across the whole height, such as percentiles.
        label: what the picture shows, for those who can't see it.
    """

    height: int
    across: Sequence[Mark]
    beside: Sequence[Mark]
    top: float
    up: Sequence[Series]
    titles: Sequence[str]
    label: str
    bottom: float = 0.0
    down: Sequence[Series] = ()
    lines: Sequence[Mark] = ()

    def svg(self) -> str:
        """The axis at the left and the field beside it."""
        room = TAGS_HEIGHT if self.lines else TOP
        parts = [*self._grid(room), *self._bars(room), *self._lines(room), *self._across(room)]
        height = room + self.height + LABELS_HEIGHT
        sized = f'height="{height}"'
        return (
            f'<div class="chart"><svg class="beside" width="{AXIS_WIDTH}" {sized} aria-hidden="true">'
            f"{''.join(self._beside(room))}</svg>"
            f'<svg class="field" width="100%" {sized} role="img" aria-label="{escaped(self.label)}">'
            f"{''.join(parts)}</svg></div>"
        )

    def _y(self, value: float) -> float:
        return self.height * (self.top - value) / (self.top - self.bottom)

    def _beside(self, room: int) -> Iterable[str]:
        for place, label in self.beside:
            y = room + self.height * (1 - place)
            yield f'<text x="{AXIS_WIDTH - 8}" y="{y + 4:.1f}" class="end">{escaped(label)}</text>'

    def _grid(self, room: int) -> Iterable[str]:
        for place, _ in self.beside:
            y = round(room + self.height * (1 - place)) + 0.5
            kind = "base" if abs(place * (self.top - self.bottom) + self.bottom) < 1e-9 * self.top else "grid"
            yield f'<line x1="0" x2="100%" y1="{y}" y2="{y}" class="{kind}"/>'

    def _bars(self, room: int) -> Iterable[str]:
        for series, boxes in stacked(self.up, 1) + stacked(self.down, -1):
            rects = "".join(self._rect(number, low, high, room) for number, low, high in boxes)
            if rects:
                yield f'<g class="{series.colour}">{rects}</g>'
        width = 100 / max(1, len(self.titles))
        for number, title in enumerate(self.titles):
            if title:
                place = f'x="{number * width:.3f}%" y="{room}" width="{width:.3f}%" height="{self.height}"'
                yield f'<rect {place} class="hit"><title>{escaped(title)}</title></rect>'

    def _rect(self, number: int, low: float, high: float, room: int) -> str:
        width = 100 / len(self.titles)
        # A bar that is there is seen, however small it is beside the others.
        y, height = self._y(high), max(1.0, self._y(low) - self._y(high))
        x, wide = (number + 0.08) * width, 0.84 * width
        return f'<rect x="{x:.3f}%" y="{room + y:.1f}" width="{wide:.3f}%" height="{height:.1f}"/>'

    def _lines(self, room: int) -> Iterable[str]:
        tags = self._tags()
        for number, (place, label) in enumerate(tags):
            x, raised = f"{100 * place:.2f}%", number % 2
            first = number == 0 or place > 0.94
            anchor = "middle" if raised else "end" if first else "start"
            y = room - 5 - ROW_HEIGHT * raised
            yield f'<line x1="{x}" x2="{x}" y1="{y + 2}" y2="{room + self.height}" class="mark"/>'
            yield f'<text x="{x}" y="{y}" class="tag {anchor}">{escaped(label)}</text>'

    def _tags(self) -> Sequence[Mark]:
        """One label for all lines where they stand together at the right edge."""
        if len(self.lines) < 2 or self.lines[-1][0] < 0.94 or self.lines[-1][0] - self.lines[0][0] > 0.06:
            return self.lines
        return [*((place, "") for place, _ in self.lines[:-1]), (self.lines[-1][0], _listed(self.lines))]

    def _across(self, room: int) -> Iterable[str]:
        y = room + self.height
        crowded = len(self.across) > MOST_ON_PHONE
        for number, (place, label) in enumerate(self.across):
            anchor = "start" if place < 0.04 else "end" if place > 0.96 else "middle"
            x, wide = f"{100 * place:.2f}%", " wide" * (crowded and number % 2)
            yield f'<line x1="{x}" x2="{x}" y1="{y}" y2="{y + 4}" class="tick"/>'
            yield f'<text x="{x}" y="{y + 17}" class="{anchor}{wide}">{escaped(label)}</text>'


def stacked(series: Sequence[Series], sign: int) -> List[Tuple[Series, List[Tuple[int, float, float]]]]:
    """Each series with its boxes (bar, low, high); bars of nothing are left out."""
    heights = [0.0] * max((len(one.values) for one in series), default=0)
    found = []
    for one in series:
        boxes = []
        for number, value in enumerate(one.values):
            if value > 0:
                ends = sorted((sign * heights[number], sign * (heights[number] + value)))
                boxes.append((number, ends[0], ends[1]))
                heights[number] += value
        found.append((one, boxes))
    return found


def _listed(lines: Sequence[Mark]) -> str:
    return ", ".join(label for _, label in lines)
