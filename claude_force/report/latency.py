"""How long the calls took: three distributions over one axis, each with its percentiles. Pure."""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

from . import text
from .charts import Bars, Series
from .executions import ANSWERED, FAILED, KEPT, Execution
from .scales import Decades, Mark, amounts
from .summary import PERCENTS, Sum

HEIGHT = 84
COLOURS = ((ANSWERED, "wire"), (FAILED, "fail"), (KEPT, "cache"))
Measure = Tuple[str, str, Callable[[Execution], float], Callable[[Execution], bool]]
MEASURES: Tuple[Measure, ...] = (
    ("Wall time", "from the call to its result", lambda row: row.entry.execution_time_ms, lambda row: True),
    ("Waiting", "for the pace, a slot, a retry", lambda row: row.entry.wait_ms, lambda row: True),
    ("Service time", "on the wire", lambda row: row.entry.service_time_ms, lambda row: row.sent),
)


def latency(rows: Sequence[Execution]) -> str:
    """The charts and a table of their percentiles."""
    axis = Decades.around([measure[2](row) for measure in MEASURES for row in rows if measure[3](row)])
    return "".join(_measured(measure, rows, axis) for measure in MEASURES)


def _measured(measure: Measure, rows: Sequence[Execution], axis: Decades) -> str:
    name, of_what, value, counts = measure
    counted = [row for row in rows if counts(row)]
    if not counted:
        return f'<p class="empty">{name}: no call was sent.</p>'
    marks = Sum(name, counted).percentiles(value)
    shown = [(f"p{percent}", text.duration(mark)) for percent, mark in zip(PERCENTS, marks)]
    figures = "".join(f"<dt>{label}</dt><dd>{figure}</dd>" for label, figure in shown)
    lines = [(axis.place(mark), label) for mark, (label, _) in zip(marks, shown) if mark is not None]
    label = f"{name} of {text.counted(len(counted), 'call')}: " + ", ".join(" ".join(pair) for pair in shown)
    return (
        f'<div class="measure"><div class="about"><h3>{name}</h3><p>{of_what}</p>'
        f'<dl class="inline">{figures}</dl></div>{_bars(value, counted, axis, lines, label)}</div>'
    )


def _bars(
    value: Callable[[Execution], float], rows: Sequence[Execution], axis: Decades, lines: List[Mark], label: str
) -> str:
    counts = {outcome: [0] * axis.bins for outcome, _ in COLOURS}
    for row in rows:
        counts[row.outcome][axis.bin_of(value(row))] += 1
    heights = [sum(column) for column in zip(*counts.values())]
    top, beside = amounts(max(heights), 2 if max(heights) > 1 else 1, lambda calls: f"{calls:,.0f}")
    series = [Series(outcome, colour, counts[outcome]) for outcome, colour in COLOURS]
    titles = [_title(axis, number, height) for number, height in enumerate(heights)]
    return Bars(HEIGHT, axis.marks(), beside, top, series, titles, label, lines=lines).svg()


def _title(axis: Decades, number: int, height: int) -> str:
    if not height:
        return ""
    edges = f"{text.duration(axis.edge(number))} to {text.duration(axis.edge(number + 1))}"
    return f"{edges}: {text.counted(height, 'call')}"
