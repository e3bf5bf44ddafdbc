"""What was paid and what was saved: over time, by agent and by model. Pure."""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence, Tuple

from ..formatting import format_usd, pluralize
from ..ledger.metrics import Metrics
from . import text
from .charts import Bars, Series
from .executions import Execution, Group, grouped
from .scales import Clock, Mark, step_for
from .tables import Column, swatch, table

HEIGHT = 190
COLOURS = 6
OTHERS = "others"
MOST_NAMES = 60
KINDS: Tuple[Tuple[str, Callable[[Execution], Optional[str]]], ...] = (
    ("agent", lambda execution: execution.entry.agent_name),
    ("model", lambda execution: execution.entry.model),
)
SAVED = (
    ("saved by cached and shared answers", "saved", lambda entry: entry.saved_cost),
    ("saved by the API's prompt cache", "prompt", lambda entry: entry.prompt_cache_saving),
)


def money(executions: Sequence[Execution], clock: Clock) -> str:
    """A choice of two panels; without a script too."""
    groups = {kind: grouped(executions, key) for kind, key in KINDS}
    switches = "".join(
        f'<input type="radio" name="by" id="by-{kind}"{" checked" * (kind == "agent")}>'
        f'<label for="by-{kind}">By {kind}</label>'
        for kind in groups
    )
    saved = _saved(executions, clock)
    panels = "".join(
        f'<div class="panel by-{kind}">{_chart(members, saved, clock, kind)}{_table(members, kind)}</div>'
        for kind, members in groups.items()
    )
    return f'<div class="choice" role="group" aria-label="Cost by">{switches}</div>{panels}'


def _chart(groups: Sequence[Group], saved: Sequence[Series], clock: Clock, kind: str) -> str:
    paid = _paid(groups, clock)
    up, down = _heights(paid), _heights(saved)
    if not any(up) and not any(down):
        return '<p class="empty">No cost is known.</p>'
    top, bottom, beside = _axis(max(up), max(down))
    titles = [
        f"{clock.label(number)}: paid {format_usd(spent)}, saved {format_usd(kept)}" if spent or kept else ""
        for number, (spent, kept) in enumerate(zip(up, down))
    ]
    label = f"Cost over time by {kind}. {_in_words(groups)}"
    bars = Bars(HEIGHT, clock.marks(), beside, top, paid, titles, label, bottom=bottom, down=saved)
    return bars.svg() + _legend(clock, [*paid, *saved])


def _paid(groups: Sequence[Group], clock: Clock) -> List[Series]:
    """The dearest groups each have a colour, all others share one."""
    parts = [(one.name, one.executions) for one in groups[:COLOURS]]
    if groups[COLOURS:]:
        parts.append((OTHERS, [each for one in groups[COLOURS:] for each in one.executions]))
    return [
        Series(name, f"s{number}", _over_time(members, clock, lambda each: each.entry.estimated_cost))
        for number, (name, members) in enumerate(parts)
    ]


def _saved(executions: Sequence[Execution], clock: Clock) -> List[Series]:
    """Where the prompt cache was written more than read, it saved nothing."""
    found = []
    for name, colour, of in SAVED:
        amounts = _over_time(executions, clock, lambda each, of=of: of(each.entry))  # type: ignore[misc]
        if any(amount > 0 for amount in amounts):
            found.append(Series(name, colour, [max(0.0, amount) for amount in amounts]))
    return found or [Series(SAVED[0][0], "saved", [0.0] * clock.bins)]


def _over_time(
    executions: Sequence[Execution], clock: Clock, usd: Callable[[Execution], Optional[float]]
) -> List[float]:
    sums = [0.0] * clock.bins
    for execution in executions:
        sums[clock.bin_of(execution.ended)] += usd(execution) or 0.0
    return sums


def _heights(series: Sequence[Series]) -> List[float]:
    return [sum(column) for column in zip(*(one.values for one in series))]


def _axis(paid: float, saved: float) -> Tuple[float, float, List[Mark]]:
    step = step_for(max(paid, saved), 3)
    up, down = (int(-(-amount // step)) for amount in (paid, saved))
    marks = [
        ((number + down) / (up + down), text.axis_dollars(abs(number) * step, step))
        for number in range(-down, up + 1)
    ]
    return up * step, -down * step, marks


def _legend(clock: Clock, series: Sequence[Series]) -> str:
    shown = (one for one in series if any(one.values))
    names = "".join(f"<li>{swatch(one.colour)}{text.escaped(one.name)}</li>" for one in shown)
    unit = f'<li class="unit">USD in each {clock.bar}, what was saved below 0</li>'
    return f'<ul class="legend">{names}{unit}</ul>'


def _in_words(groups: Sequence[Group]) -> str:
    said = [
        f"{one.name}: {known_cost(one.figures)} paid, {format_usd(one.figures.saved_cost)} saved"
        for one in groups[:COLOURS]
    ]
    return "; ".join(said) + "."


def _table(groups: Sequence[Group], kind: str) -> str:
    columns = (
        Column(kind.title()),
        Column("Calls", True),
        Column("Failed", True),
        Column("Cached", True, wide=True),
        Column("Tokens in", True, wide=True),
        Column("Tokens out", True, wide=True),
        Column("Paid", True),
        Column("Saved", True),
        Column("p50", True, wide=True),
        Column("p95", True, wide=True),
    )
    rows = [_cells(number, one) for number, one in enumerate(groups[:MOST_NAMES])]
    more = len(groups) - len(rows)
    note = f'<p class="note">and {pluralize(more, "more " + kind)}, of the least cost</p>' if more > 0 else ""
    return table(f"Figures by {kind}", columns, rows) + note


def _cells(number: int, one: Group) -> List[str]:
    figures = one.figures
    return [
        swatch(f"s{min(number, COLOURS)}") + text.escaped(one.name),
        text.number(figures.executions),
        text.number(figures.failures),
        text.number(figures.cached),
        text.number(figures.input_tokens),
        text.number(figures.output_tokens),
        _paid_cell(figures),
        format_usd(figures.saved_cost),
        text.duration(figures.wall.quantile(0.5)),
        text.duration(figures.wall.quantile(0.95)),
    ]


def _paid_cell(figures: Metrics) -> str:
    unknown = f"<small>and {figures.unknown_price:,} unknown</small>"
    return known_cost(figures) + (unknown if figures.unknown_price and figures.cost else "")


def known_cost(figures: Metrics) -> str:
    """The sum of what is known, or that nothing is."""
    return "unknown" if figures.unknown_price and not figures.cost else format_usd(figures.cost)
