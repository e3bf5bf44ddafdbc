"""How long the calls took: three distributions over one axis, each with its percentiles. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, List, Sequence

from ..formatting import pluralize
from ..ledger.ddsketch import Distribution
from . import text
from .charts import Bars, Series
from .executions import ANSWERED, FAILED, KEPT, Execution, Group
from .scales import Decades, Mark, amounts

HEIGHT = 84
PERCENTS = (50, 95, 99)
COLOURS = ((ANSWERED, "wire"), (FAILED, "fail"), (KEPT, "cache"))


@dataclass(frozen=True)
class Measure:
    """A time in milliseconds, of those executions whose line tells it."""

    name: str
    explained: str
    field: str
    told: Callable[[Execution], bool]

    def of(self, execution: Execution) -> float:
        return float(getattr(execution.entry, self.field))


MEASURES = (
    Measure("Wall time", "from the call to its result", "execution_time_ms", lambda one: True),
    Measure("Waiting", "for the pace, a slot, a retry", "wait_ms", lambda one: "wait_ms" in one.row),
    Measure("Service time", "on the wire", "service_time_ms", lambda one: one.entry.attempts > 0),
)


def percentiles(values: Distribution) -> List[str]:
    """PERCENTS of a distribution in milliseconds, as text."""
    return [text.duration(values.quantile(percent / 100)) for percent in PERCENTS]


def latency(group: Group) -> str:
    """The charts, each beside its percentiles."""
    told = {one.name: [row for row in group.executions if one.told(row)] for one in MEASURES}
    axis = Decades.around([measure.of(row) for measure in MEASURES for row in told[measure.name]])
    figures = group.figures
    distributions = (figures.wall, figures.wait, figures.service)
    return "".join(
        _measured(measure, told[measure.name], values, axis)
        for measure, values in zip(MEASURES, distributions)
    )


def _measured(measure: Measure, told: Sequence[Execution], values: Distribution, axis: Decades) -> str:
    if not told:
        return f'<p class="empty">{measure.name}: no call tells it.</p>'
    names = [f"p{percent}" for percent in PERCENTS]
    shown = dict(zip(names, percentiles(values)))
    places = [axis.place(values.quantile(percent / 100) or 0.0) for percent in PERCENTS]
    label = f"{measure.name} of {pluralize(len(told), 'call')}: " + ", ".join(map(" ".join, shown.items()))
    bars = _bars(measure, told, axis, list(zip(places, names)), label)
    figures = "".join(f"<dt>{name}</dt><dd>{figure}</dd>" for name, figure in shown.items())
    return (
        f'<div class="measure"><div class="about"><h3>{measure.name}</h3><p>{measure.explained}</p>'
        f'<dl class="inline">{figures}</dl></div>{bars}</div>'
    )


def _bars(
    measure: Measure, told: Sequence[Execution], axis: Decades, lines: Sequence[Mark], label: str
) -> str:
    counts = {outcome: [0] * axis.bins for outcome, _ in COLOURS}
    for execution in told:
        counts[execution.outcome][axis.bin_of(measure.of(execution))] += 1
    heights = [sum(column) for column in zip(*counts.values())]
    top, beside = amounts(max(heights), 2 if max(heights) > 1 else 1, lambda calls: f"{calls:,.0f}")
    series = [Series(outcome, colour, counts[outcome]) for outcome, colour in COLOURS]
    titles = [_title(axis, number, height) for number, height in enumerate(heights)]
    return Bars(HEIGHT, axis.marks(), beside, top, series, titles, label, lines=lines).svg()


def _title(axis: Decades, number: int, height: int) -> str:
    if not height:
        return ""
    edges = f"{text.duration(axis.edge(number))} to {text.duration(axis.edge(number + 1))}"
    return f"{edges}: {pluralize(height, 'call')}"
