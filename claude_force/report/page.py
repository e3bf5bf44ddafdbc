"""The page: its parts put together, and the policy that lets nothing else run in it."""

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
from . import text
from .data import packed
from .errors_section import faults
from .executions import Execution, Group, executions_of, group_of
from .latency import PERCENTS, latency, percentiles
from .money import known_cost, money
from .scales import Clock

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("data", "format", "table", "density", "pen", "controls", "timeline", "page")


@dataclass(frozen=True)
class Report:
    """A page and the figures at its head."""

    html: str
    figures: Metrics


def build_report(rows: Iterable[ExecutionRow], scope: str, zone: Optional[tzinfo] = None) -> Report:
    """The page of these executions.

    Args:
        rows: as the ledger's reading gives them.
        scope: which executions these are, in words.
        zone: in which moments are shown; None for that of this machine.
    """
    executions = executions_of(rows)
    group = group_of(scope, executions)
    ended = max((execution.ended for execution in executions), default=time.time())
    # One offset for the whole page, summer time or not: so no moment is there twice.
    zone = zone or datetime.fromtimestamp(min(ended, text.LAST_MOMENT)).astimezone().tzinfo or timezone.utc
    style, script = _asset("page.css"), "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    page = Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        data=packed(executions),
        offset=round(text.offset_seconds(ended, zone) / 60),
        scope=text.escaped(scope),
        version=__version__,
        made=text.moment(time.time(), zone),
        some="" if executions else "hidden",
        none="hidden" if executions else "",
        **(_parts(group, ended, zone) if executions else dict.fromkeys(_PARTS, "")),
    )
    return Report(page, group.figures)


_PARTS = ("period", "totals", "at_limit", "latency", "money", "faults")


def _parts(group: Group, ended: float, zone: tzinfo) -> Dict[str, str]:
    executions, began = group.executions, group.executions[0].began
    return {
        "period": _period(began, ended, zone),
        "totals": _totals(group.figures),
        "at_limit": _at_limit(executions),
        "latency": latency(group),
        "money": money(executions, Clock.around(began, ended, zone)),
        "faults": faults(executions, zone),
    }


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8").strip()


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, nothing is sent; what runs is named by its hash."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _period(began: float, ended: float, zone: tzinfo) -> str:
    minutes = round(text.offset_seconds(ended, zone) / 60)
    sign, minutes = "-" if minutes < 0 else "+", abs(minutes)
    place = f"UTC{sign}{minutes // 60:02d}:{minutes % 60:02d}" if minutes else "UTC"
    return f"{text.moment(began, zone)} to {text.moment(ended, zone)} ({place})"


def _at_limit(executions: Sequence[Execution]) -> str:
    at_limit = TimeAtConcurrencyLimit()
    at_limit.add(execution.row for execution in executions)
    share = at_limit.share()
    if share is None:
        return "No attempt is known."
    return (
        f"As many attempts as the limit allowed for {format_percent(share)} of the time with any on the wire."
    )


def _totals(figures: Metrics) -> str:
    return "".join(
        f"<div><dt>{name}</dt><dd>{figure}<small>{more}</small></dd></div>"
        for name, figure, more in _figures(figures)
    )


def _figures(figures: Metrics) -> Sequence[Tuple[str, str, str]]:
    calls, unknown = figures.executions, figures.unknown_price
    seconds = figures.seconds
    rate = f"{calls * 60 / seconds:,.1f} calls a minute" if seconds else ""
    prompt = f"and {format_usd(figures.prompt_cache_saving)} by the prompt cache"
    latencies = [
        (f"Wall p{percent}", shown, _LATENCIES[percent])
        for percent, shown in zip(PERCENTS, percentiles(figures.wall))
    ]
    return [
        ("Calls", text.number(calls), f"{pluralize(figures.retries, 'retry', 'retries')}"),
        ("Failed", text.number(figures.failures), text.share(figures.failures, calls)),
        (
            "Cached",
            text.number(figures.cached),
            f"{text.share(figures.cached, calls)}, {figures.shared:,} shared",
        ),
        ("Tokens", text.number(figures.total_tokens), _tokens(figures)),
        (
            "Paid",
            known_cost(figures),
            f"and {pluralize(unknown, 'answer')} of unknown price" if unknown else "every price is known",
        ),
        ("Saved", format_usd(figures.saved_cost), prompt),
        ("Duration", text.duration(seconds * 1000 if seconds else 0.0), rate),
        *latencies,
    ]


_LATENCIES = {50: "half of the calls took no longer", 95: "19 of 20", 99: "99 of 100"}


def _tokens(figures: Metrics) -> str:
    return f"{figures.input_tokens:,} in, {figures.output_tokens:,} out"
