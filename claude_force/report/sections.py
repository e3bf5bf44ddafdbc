"""The sections of a report that need no script: latency, cost and saving, errors. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from ..formatting import format_usd, pluralize
from ..ledger.ddsketch import Distribution
from ..ledger.metrics import UNKNOWN, Metrics, advice_for
from .charts import BarChart, LogAxis, Series, Tick, TimeAxis, linear_axis, round_step
from .executions import ANSWERED, CACHED, FAILED, Execution, Group, group_by
from .html import NOT_KNOWN, Column, axis_usd, duration, escaped, format_time, swatch, table

PERCENTS = (50, 95, 99)
OUTCOME_COLOURS = ((ANSWERED, "wire"), (FAILED, "fail"), (CACHED, "cache"))
_LATENCY_HEIGHT, _COST_HEIGHT = 84, 190
# Groups with their own colour; the others share one more.
_COLOURS = 6
_MAX_GROUPS, _MAX_REQUESTS = 60, 3


@dataclass(frozen=True)
class Latency:
    """A duration in milliseconds of those executions whose line has it."""

    name: str
    explanation: str
    field: str
    is_known: Callable[[Execution], bool]

    def of(self, execution: Execution) -> float:
        return float(getattr(execution.entry, self.field))


_LATENCIES = (
    Latency("Wall time", "from the call to its result", "execution_time_ms", lambda one: True),
    Latency("Waiting", "for the rate limits, a slot, a retry", "wait_ms", lambda one: "wait_ms" in one.row),
    Latency("Service time", "on the wire", "service_time_ms", lambda one: one.entry.attempts > 0),
)


def latency_section(group: Group) -> str:
    """Returns a chart for each latency, all over one axis, each beside its percentiles."""
    known = [[one for one in group.executions if latency.is_known(one)] for latency in _LATENCIES]
    values = [latency.of(one) for latency, members in zip(_LATENCIES, known) for one in members]
    axis, metrics = LogAxis.around(values), group.metrics
    distributions = (metrics.wall, metrics.wait, metrics.service)
    return "".join(_latency(*parts, axis) for parts in zip(_LATENCIES, known, distributions))


def percentiles(values: Distribution) -> List[str]:
    """Returns PERCENTS of a distribution in milliseconds as text."""
    return [duration(values.quantile(percent / 100)) for percent in PERCENTS]


def _latency(latency: Latency, members: Sequence[Execution], values: Distribution, axis: LogAxis) -> str:
    if not members:
        return f'<p class="empty">{latency.name}: not recorded for these calls.</p>'
    names = [f"p{percent}" for percent in PERCENTS]
    shown = list(zip(names, percentiles(values)))
    positions = [axis.position(values.quantile(percent / 100) or 0.0) for percent in PERCENTS]
    label = f"{latency.name} of {pluralize(len(members), 'call')}: " + ", ".join(map(" ".join, shown))
    chart = _latency_chart(latency, members, axis, list(zip(positions, names)), label)
    terms = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in shown)
    return (
        f'<div class="measure"><div class="about"><h3>{latency.name}</h3><p>{latency.explanation}</p>'
        f'<dl class="inline">{terms}</dl></div>{chart}</div>'
    )


def _latency_chart(
    latency: Latency, members: Sequence[Execution], axis: LogAxis, lines: Sequence[Tick], label: str
) -> str:
    counts = {outcome: [0] * axis.bars for outcome, _ in OUTCOME_COLOURS}
    for execution in members:
        counts[execution.outcome][axis.bar_of(latency.of(execution))] += 1
    heights = [sum(column) for column in zip(*counts.values())]
    top, y_ticks = linear_axis(max(heights), 2 if max(heights) > 1 else 1, lambda calls: f"{calls:,.0f}")
    series = [Series(outcome, colour, counts[outcome]) for outcome, colour in OUTCOME_COLOURS]
    titles = [
        f"{duration(axis.start_of(bar))} to {duration(axis.start_of(bar + 1))}: {pluralize(height, 'call')}"
        if height
        else ""
        for bar, height in enumerate(heights)
    ]
    return BarChart(_LATENCY_HEIGHT, axis.ticks(), y_ticks, top, series, titles, label, lines=lines).svg()


_GROUP_KEYS: Tuple[Tuple[str, Callable[[Execution], Optional[str]]], ...] = (
    ("agent", lambda execution: execution.entry.agent_name),
    ("model", lambda execution: execution.entry.model),
)
_SAVINGS = (
    ("saved by cached and shared answers", "saved", "saved_cost"),
    ("saved by the API's prompt cache", "prompt", "prompt_cache_saving"),
)


def cost_section(executions: Sequence[Execution], axis: TimeAxis) -> str:
    """Returns a panel by agent and one by model, with radio buttons that work without a script."""
    groups = {kind: group_by(executions, key) for kind, key in _GROUP_KEYS}
    switches = "".join(
        f'<input type="radio" name="by" id="by-{kind}"{" checked" * (kind == "agent")}>'
        f'<label for="by-{kind}">By {kind}</label>'
        for kind in groups
    )
    saved = _saved_series(executions, axis)
    panels = "".join(
        f'<div class="panel by-{kind}">{_cost_chart(members, saved, axis, kind)}'
        f"{_group_table(members, kind)}</div>"
        for kind, members in groups.items()
    )
    return f'<div class="choice" role="group" aria-label="Cost by">{switches}</div>{panels}'


def known_cost(metrics: Metrics) -> str:
    """Returns the sum of known costs, or "unknown" if there are none."""
    return "unknown" if metrics.unknown_price and not metrics.cost else format_usd(metrics.cost)


def _cost_chart(groups: Sequence[Group], saved: Sequence[Series], axis: TimeAxis, kind: str) -> str:
    paid = _paid_series(groups, axis)
    up, down = _heights(paid), _heights(saved)
    if not any(up) and not any(down):
        return '<p class="empty">No cost is known.</p>'
    top, bottom, y_ticks = _usd_axis(max(up), max(down))
    titles = [
        f"{axis.label(bar)}: paid {format_usd(usd)}, saved {format_usd(saving)}" if usd or saving else ""
        for bar, (usd, saving) in enumerate(zip(up, down))
    ]
    label = f"Cost over time by {kind}. {_cost_in_words(groups)}"
    chart = BarChart(_COST_HEIGHT, axis.ticks(), y_ticks, top, paid, titles, label, bottom=bottom, down=saved)
    return chart.svg() + _cost_legend(axis, [*paid, *saved])


def _paid_series(groups: Sequence[Group], axis: TimeAxis) -> List[Series]:
    """Returns a series for each of the most expensive groups, and one for all others."""
    parts = [(one.name, one.executions) for one in groups[:_COLOURS]]
    if groups[_COLOURS:]:
        parts.append(("others", [each for one in groups[_COLOURS:] for each in one.executions]))
    return [
        Series(name, f"s{number}", _usd_over_time(members, axis, "estimated_cost"))
        for number, (name, members) in enumerate(parts)
    ]


def _saved_series(executions: Sequence[Execution], axis: TimeAxis) -> List[Series]:
    """Returns what was saved; writing more to the prompt cache than reading from it saves nothing."""
    found = []
    for name, colour, field_name in _SAVINGS:
        amounts = [max(0.0, usd) for usd in _usd_over_time(executions, axis, field_name)]
        if any(amounts):
            found.append(Series(name, colour, amounts))
    return found or [Series(_SAVINGS[0][0], "saved", [0.0] * axis.bars)]


def _usd_over_time(executions: Sequence[Execution], axis: TimeAxis, field_name: str) -> List[float]:
    sums = [0.0] * axis.bars
    for execution in executions:
        sums[axis.bar_of(execution.ended)] += getattr(execution.entry, field_name) or 0.0
    return sums


def _heights(series: Sequence[Series]) -> List[float]:
    return [sum(column) for column in zip(*(one.values for one in series))]


def _usd_axis(paid: float, saved: float) -> Tuple[float, float, List[Tick]]:
    step = round_step(max(paid, saved), 3)
    up, down = (int(-(-amount // step)) for amount in (paid, saved))
    ticks = [
        ((number + down) / (up + down), axis_usd(abs(number) * step, step)) for number in range(-down, up + 1)
    ]
    return up * step, -down * step, ticks


def _cost_legend(axis: TimeAxis, series: Sequence[Series]) -> str:
    shown = (one for one in series if any(one.values))
    names = "".join(f"<li>{swatch(one.colour)}{escaped(one.name)}</li>" for one in shown)
    unit = f'<li class="unit">USD in each {axis.bar_length}, what was saved below 0</li>'
    return f'<ul class="legend">{names}{unit}</ul>'


def _cost_in_words(groups: Sequence[Group]) -> str:
    texts = [
        f"{one.name}: {known_cost(one.metrics)} paid, {format_usd(one.metrics.saved_cost)} saved"
        for one in groups[:_COLOURS]
    ]
    return "; ".join(texts) + "."


def _group_table(groups: Sequence[Group], kind: str) -> str:
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
    rows = [_group_cells(number, one) for number, one in enumerate(groups[:_MAX_GROUPS])]
    more = len(groups) - len(rows)
    note = f'<p class="note">and {pluralize(more, "more " + kind)}, of the least cost</p>' if more > 0 else ""
    return table(f"Metrics by {kind}", columns, rows) + note


def _group_cells(number: int, group: Group) -> List[str]:
    metrics = group.metrics
    unknown = f"<small>and {metrics.unknown_price:,} unknown</small>"
    return [
        swatch(f"s{min(number, _COLOURS)}") + escaped(group.name),
        f"{metrics.executions:,}",
        f"{metrics.failures:,}",
        f"{metrics.cached:,}",
        f"{metrics.input_tokens:,}",
        f"{metrics.output_tokens:,}",
        known_cost(metrics) + (unknown if metrics.unknown_price and metrics.cost else ""),
        format_usd(metrics.saved_cost),
        duration(metrics.wall.quantile(0.5)),
        duration(metrics.wall.quantile(0.95)),
    ]


@dataclass
class ErrorType:
    """An error type: the calls that it ended, the attempts that it ended, and those whose call succeeded."""

    name: str
    failed: int = 0
    attempts: int = 0
    recovered: int = 0
    last: float = 0.0
    requests: List[str] = field(default_factory=list)


def errors_section(executions: Sequence[Execution], zone: tzinfo) -> str:
    """Returns a table of error types, each with its advice, or a sentence if there are none."""
    columns = (
        Column("Error"),
        Column("Failed calls", True),
        Column("Failed attempts", True),
        Column("Recovered", True, wide=True),
        Column("Last", wide=True),
        Column("Last requests", wide=True),
    )
    found = _error_types(executions)
    if not found:
        return '<p class="empty">No attempt failed.</p>'
    return table("Errors by type", columns, [_error_cells(one, zone) for one in found])


def _error_types(executions: Sequence[Execution]) -> List[ErrorType]:
    """Returns the error types, by descending number of failed calls."""
    found: Dict[str, ErrorType] = {}
    for execution in executions:
        entry = execution.entry
        for name in [name for _, _, _, name in entry.timeline if name]:
            kind = found.setdefault(name, ErrorType(name))
            kind.attempts += 1
            kind.recovered += entry.success
            kind.last = max(kind.last, execution.ended)
        if not entry.success:
            name = entry.error_type or UNKNOWN
            kind = found.setdefault(name, ErrorType(name))
            kind.failed += 1
            kind.last = max(kind.last, execution.ended)
            if entry.request_id:
                kind.requests = [*kind.requests, entry.request_id][-_MAX_REQUESTS:]
    return sorted(found.values(), key=lambda one: (-one.failed, -one.attempts, one.name))


def _error_cells(kind: ErrorType, zone: tzinfo) -> List[str]:
    name, advice = escaped(kind.name), escaped(advice_for(kind.name) or "There is no advice for this error.")
    requests = "<br>".join(f"<code>{escaped(request)}</code>" for request in kind.requests)
    return [
        f'<strong>{name}</strong><p class="advice">{advice}</p><button type="button" class="show link" '
        f'data-find="{name}" aria-label="Show the calls with {name}">Show the calls</button>',
        f"{kind.failed:,}",
        f"{kind.attempts:,}",
        f"{kind.recovered:,}",
        format_time(kind.last, zone),
        requests or NOT_KNOWN,
    ]
