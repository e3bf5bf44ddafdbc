"""What was paid and what was saved: over time, by agent and by model. Pure."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

from . import text
from .charts import Bars, Series
from .executions import Execution
from .scales import Clock, Mark, step_for
from .summary import Sum, grouped, wall
from .tables import Column, swatch, table

HEIGHT = 190
COLOURS = 6
OTHERS = "others"
MOST_NAMES = 60
KINDS: Tuple[Tuple[str, Callable[[Execution], Optional[str]]], ...] = (
    ("agent", lambda row: row.entry.agent_name),
    ("model", lambda row: row.entry.model),
)


def money(rows: Sequence[Execution], clock: Clock) -> str:
    """A choice of two panels; without a script too."""
    groups = {kind: grouped(rows, key) for kind, key in KINDS}
    switches = "".join(
        f'<input type="radio" name="by" id="by-{kind}"{" checked" * (kind == "agent")}>'
        f'<label for="by-{kind}">By {kind}</label>'
        for kind in groups
    )
    panels = "".join(
        f'<div class="panel by-{kind}">{_chart(sums, clock, kind)}{_table(sums, kind)}</div>'
        for kind, sums in groups.items()
    )
    return f'<div class="choice" role="group" aria-label="Cost by">{switches}</div>{panels}'


def _chart(sums: Sequence[Sum], clock: Clock, kind: str) -> str:
    paid = _series(sums, clock, lambda row: row.entry.estimated_cost or 0.0)
    saved = [0.0] * clock.bins
    for one in sums:
        for row in one.rows:
            saved[clock.bin_of(row.ended)] += max(0.0, row.saved or 0.0)
    spent = [sum(column) for column in zip(*(series.values for series in paid))]
    if not any(spent) and not any(saved):
        return '<p class="empty">No cost is known.</p>'
    top, bottom, beside = _axis(max(spent), max(saved))
    titles = [
        f"{clock.label(number)}: paid {text.dollars(up)}, saved {text.dollars(down)}" if up or down else ""
        for number, (up, down) in enumerate(zip(spent, saved))
    ]
    label = f"Cost over time by {kind}. " + _in_words(sums)
    below = [Series("saved", "saved", saved)]
    bars = Bars(HEIGHT, clock.marks(), beside, top, paid, titles, label, bottom=bottom, down=below)
    return bars.svg() + _caption(clock, paid)


def _series(sums: Sequence[Sum], clock: Clock, value: Callable[[Execution], float]) -> List[Series]:
    values: Dict[int, List[float]] = {}
    for number, one in enumerate(sums):
        columns = values.setdefault(min(number, COLOURS), [0.0] * clock.bins)
        for row in one.rows:
            columns[clock.bin_of(row.ended)] += value(row)
    return [
        Series(OTHERS if number == COLOURS else sums[number].name, f"s{number}", columns)
        for number, columns in values.items()
    ]


def _axis(paid: float, saved: float) -> Tuple[float, float, List[Mark]]:
    step = step_for(max(paid, saved), 3)
    up, down = (int(-(-amount // step)) for amount in (paid, saved))
    if not up + down:
        up = 1
    marks = [
        ((number + down) / (up + down), text.dollars(abs(number) * step)) for number in range(-down, up + 1)
    ]
    return up * step, -down * step, marks


def _caption(clock: Clock, paid: Sequence[Series]) -> str:
    names = [f"<li>{swatch(series.colour)}{text.escaped(series.name)}</li>" for series in paid]
    names.append(f"<li>{swatch('saved')}saved, below the line</li>")
    width = text.duration(clock.width * 1000.0)
    return f'<ul class="legend">{"".join(names)}<li class="unit">USD in each {width}</li></ul>'


def _in_words(sums: Sequence[Sum]) -> str:
    shown = [f"{one.name} {text.dollars(one.cost)} paid, {text.dollars(one.saved)} saved" for one in sums[:COLOURS]]
    return "; ".join(shown) + "."


def _table(sums: Sequence[Sum], kind: str) -> str:
    columns = (
        Column(kind.title()),
        Column("Calls", True),
        Column("Failed", True),
        Column("Cached", True),
        Column("Tokens in", True, wide=True),
        Column("Tokens out", True, wide=True),
        Column("Paid", True),
        Column("Saved", True),
        Column("p50", True, wide=True),
        Column("p95", True, wide=True),
    )
    rows = [_cells(number, one) for number, one in enumerate(sums[:MOST_NAMES])]
    more = len(sums) - len(rows)
    note = f"<p class=\"note\">and {text.counted(more, 'more ' + kind)}, of the least cost.</p>" if more > 0 else ""
    return table(f"Figures by {kind}", columns, rows) + note


def _cells(number: int, one: Sum) -> List[str]:
    p50, p95, _ = one.percentiles(wall)
    return [
        swatch(f"s{min(number, COLOURS)}") + text.escaped(one.name),
        text.number(one.calls),
        text.number(one.failed),
        text.number(one.cached),
        text.number(one.tokens_in),
        text.number(one.tokens_out),
        paid(one),
        text.dollars(one.saved),
        text.duration(p50),
        text.duration(p95),
    ]


def paid(one: Sum) -> str:
    """The sum, or that nothing of it is known."""
    if one.unpriced and not one.cost:
        return "unknown"
    return text.dollars(one.cost) + (f" + {one.unpriced:,} unknown" if one.unpriced else "")
