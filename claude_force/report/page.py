"""The page: its parts put together, and the policy that lets nothing else run in it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from string import Template
from typing import Iterable, List, Optional, Sequence, Tuple

from .. import __version__
from ..ledger.entry import Entry
from . import text
from .data import packed
from .faults import faults
from .latency import latency
from .money import money, paid
from .executions import Execution, executions_of
from .scales import Clock
from .summary import PERCENTS, Sum, wall

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("data.js", "format.js", "table.js", "density.js", "pen.js", "controls.js", "timeline.js", "page.js")


@dataclass(frozen=True)
class Report:
    """A page and the sums at its head."""

    html: str
    total: Sum


def build_report(entries: Iterable[Entry], scope: str, zone: Optional[tzinfo] = None) -> Report:
    """The page of `entries`.

    Args:
        scope: which executions these are, in words.
        zone: in which moments are shown; None for that of this machine.
    """
    rows = executions_of(entries)
    total = Sum(scope, rows)
    ended = max((row.ended for row in rows), default=datetime.now(timezone.utc).timestamp())
    began = min((row.began for row in rows), default=ended)
    # One offset for the whole page, summer time or not: so no moment is there twice.
    zone = zone or datetime.fromtimestamp(ended).astimezone().tzinfo or timezone.utc
    style, script = _asset("page.css"), "\n".join(map(_asset, _SCRIPTS))
    html = Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        data=packed(rows),
        offset=_offset_minutes(began, zone),
        scope=text.escaped(scope),
        period=_period(began, ended, zone) if rows else "",
        empty="" if rows else "hidden",
        none="hidden" if rows else "",
        totals=_totals(total, began, ended),
        latency=latency(rows) if rows else "",
        money=money(rows, Clock.around(began, ended, zone)) if rows else "",
        faults=faults(rows, zone),
        version=__version__,
        made=text.moment(datetime.now(timezone.utc).timestamp(), zone),
    )
    return Report(html, total)


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


def _offset_minutes(unix: float, zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(unix, zone).utcoffset()
    return round(offset.total_seconds() / 60) if offset else 0


def _period(began: float, ended: float, zone: tzinfo) -> str:
    minutes = _offset_minutes(ended, zone)
    sign, minutes = "−" if minutes < 0 else "+", abs(minutes)
    place = f"UTC{sign}{minutes // 60:02d}:{minutes % 60:02d}" if minutes else "UTC"
    return f"{text.moment(began, zone)} to {text.moment(ended, zone)} ({place})"


def _totals(total: Sum, began: float, ended: float) -> str:
    return "".join(
        f"<div><dt>{name}</dt><dd>{figure}<small>{more}</small></dd></div>"
        for name, figure, more in _figures(total, (ended - began) * 1000)
    )


def _figures(total: Sum, period_ms: float) -> Sequence[Tuple[str, str, str]]:
    calls = total.calls
    rate = f"{calls / (period_ms / 60_000):,.1f} calls a minute" if period_ms else ""
    unknown = f"{text.counted(total.unpriced, 'answer')} of unknown price" if total.unpriced else "no price unknown"
    latencies: List[Tuple[str, str, str]] = [
        (f"p{percent}", text.duration(value), "wall time of a call")
        for percent, value in zip(PERCENTS, total.percentiles(wall))
    ]
    return [
        ("Calls", text.number(calls), f"{text.number(total.shared)} shared an answer"),
        ("Failed", text.number(total.failed), text.share(total.failed, calls)),
        ("Cached", text.number(total.cached), text.share(total.cached, calls)),
        ("Tokens", text.number(total.tokens), f"{total.tokens_in:,} in, {total.tokens_out:,} out"),
        ("Paid", text.dollars(total.cost) if total.cost or not total.unpriced else "unknown", unknown),
        ("Saved", text.dollars(total.saved), "by kept answers and prompts"),
        ("Duration", text.duration(period_ms), rate),
        *latencies,
    ]
