"""Assembles the page of a report, and the policy that lets nothing else run in it."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from string import Template
from typing import Dict, Iterable, Optional, Sequence, Tuple

from .. import __version__
from ..formatting import format_percent, format_usd, pluralize
from ..ledger.entry import ExecutionRow
from ..ledger.metrics import Metrics
from ..ledger.saturation import TimeAtConcurrencyLimit
from .charts import TimeAxis
from .data import pack
from .executions import Execution, Group, executions_of, group_of
from .html import MAX_UNIX, duration, escaped, format_time, offset_seconds, percent
from .sections import PERCENTS, cost_section, errors_section, known_cost, latency_section, percentiles

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("data", "format", "table", "heatmap", "canvas", "controls", "timeline", "page")


@dataclass(frozen=True)
class Report:
    """A page, and the metrics that it shows first."""

    html: str
    metrics: Metrics


def build_report(rows: Iterable[ExecutionRow], scope: str, zone: Optional[tzinfo] = None) -> Report:
    """Returns the page of these executions.

    Args:
        rows: decoded lines of the ledger, in any order.
        scope: a description of the selection.
        zone: the time zone of all times; None for this machine's.
    """
    executions = executions_of(rows)
    group = group_of(scope, executions)
    ended = max((execution.ended for execution in executions), default=time.time())
    # One offset for the whole page, across changes to summer time, so that no time occurs twice.
    zone = zone or datetime.fromtimestamp(min(ended, MAX_UNIX)).astimezone().tzinfo or timezone.utc
    style, script = _asset("page.css"), "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    page = Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        data=pack(executions),
        offset=round(offset_seconds(ended, zone) / 60),
        scope=escaped(scope),
        version=__version__,
        made=format_time(time.time(), zone),
        some="" if executions else "hidden",
        none="hidden" if executions else "",
        **(_parts(group, ended, zone) if executions else dict.fromkeys(_PARTS, "")),
    )
    return Report(page, group.metrics)


_PARTS = ("period", "totals", "at_limit", "latency", "cost", "errors")


def _parts(group: Group, ended: float, zone: tzinfo) -> Dict[str, str]:
    executions, began = group.executions, group.executions[0].began
    return {
        "period": _period(began, ended, zone),
        "totals": _totals(group.metrics),
        "at_limit": _at_limit(executions),
        "latency": latency_section(group),
        "cost": cost_section(executions, TimeAxis.around(began, ended, zone)),
        "errors": errors_section(executions, zone),
    }


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8").strip()


def _policy(style: str, script: str) -> str:
    """Returns a content security policy: the page loads and sends nothing, and runs only this script."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _period(began: float, ended: float, zone: tzinfo) -> str:
    minutes = round(offset_seconds(ended, zone) / 60)
    sign, minutes = "-" if minutes < 0 else "+", abs(minutes)
    name = f"UTC{sign}{minutes // 60:02d}:{minutes % 60:02d}" if minutes else "UTC"
    return f"{format_time(began, zone)} to {format_time(ended, zone)} ({name})"


def _at_limit(executions: Sequence[Execution]) -> str:
    at_limit = TimeAtConcurrencyLimit()
    at_limit.add(execution.row for execution in executions)
    share = at_limit.share()
    if share is None:
        return "No attempt is recorded."
    return f"Concurrency was at its limit for {format_percent(share)} of the time with attempts on the wire."


def _totals(metrics: Metrics) -> str:
    return "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>"
        for name, value, more in _total_values(metrics)
    )


def _total_values(metrics: Metrics) -> Sequence[Tuple[str, str, str]]:
    calls, unknown, seconds = metrics.executions, metrics.unknown_price, metrics.seconds
    explained = ("half of the calls took no longer", "19 of 20", "99 of 100")
    latencies = [
        (f"Wall p{number}", value, more)
        for number, value, more in zip(PERCENTS, percentiles(metrics.wall), explained)
    ]
    return [
        ("Calls", f"{calls:,}", pluralize(metrics.retries, "retry", "retries")),
        ("Failed", f"{metrics.failures:,}", percent(metrics.failures, calls)),
        ("Cached", f"{metrics.cached:,}", f"{percent(metrics.cached, calls)}, {metrics.shared:,} shared"),
        (
            "Tokens",
            f"{metrics.total_tokens:,}",
            f"{metrics.input_tokens:,} in, {metrics.output_tokens:,} out",
        ),
        (
            "Paid",
            known_cost(metrics),
            f"and {pluralize(unknown, 'answer')} of unknown price" if unknown else "every price is known",
        ),
        (
            "Saved",
            format_usd(metrics.saved_cost),
            f"and {format_usd(metrics.prompt_cache_saving)} by the prompt cache",
        ),
        (
            "Duration",
            duration(seconds * 1000 if seconds else 0.0),
            f"{calls * 60 / seconds:,.1f} calls a minute" if seconds else "",
        ),
        *latencies,
    ]
