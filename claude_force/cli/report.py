"""`report`: writes the ledger as one HTML file."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..agents.discovery import find_sources
from ..errors import InputError
from ..formatting import format_bytes, format_usd, pluralize
from ..ledger.export import check_target
from ..ledger.metrics import Metrics
from ..ledger.reader import parse_since
from ..report import LAST, build_report, select
from ..storage.output_paths import replace_output
from . import streams

_NAME = "report.html"


def report(args: argparse.Namespace) -> int:
    """Writes a report. Returns 0, or 1 if there is nothing to report. Raises InputError."""
    since = parse_since(time.time(), args.hours, args.since)
    folder = find_sources(args.config, Path.cwd()).ledger
    target = Path(args.output) if args.output else folder / _NAME
    check_target(target, folder)
    run = args.run or (LAST if since is None else None)
    chosen = select(folder, run, since)
    if chosen.skipped:
        streams.warn(f"{pluralize(chosen.skipped, 'line')} of the ledger could not be read")
    if not chosen.rows:
        is_bounded = args.hours is not None or args.since is not None
        hint = "for that time; leave out --hours or --since" if is_bounded else "yet; run an agent first"
        streams.error(f"no executions are recorded in {folder} {hint}", args.json)
        return 1
    made = build_report(chosen.rows, chosen.scope)
    size = _write(target, made.html)
    if args.json:
        fields = {
            "report": str(target),
            "bytes": size,
            "scope": chosen.scope,
            "skipped_lines": chosen.skipped,
        }
        streams.write_json({"success": True, **fields, "totals": made.metrics.as_dict()})
    else:
        streams.write_line(str(target))
        streams.status(f"{chosen.scope}: {_totals(made.metrics)}; {format_bytes(size)}")
    return 0


def _write(target: Path, html: str) -> int:
    """Returns the size in bytes. Raises InputError."""
    data = html.encode("utf-8")
    try:
        replace_output(target, data)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror}.") from error
    return len(data)


def _totals(figures: Metrics) -> str:
    calls = pluralize(figures.executions, "call")
    unknown = (
        [f"{pluralize(figures.unknown_price, 'answer')} of unknown price"] if figures.unknown_price else []
    )
    known = [format_usd(figures.cost)] if figures.cost or not unknown else []
    cost = " and ".join(known + unknown)
    return f"{calls}, {figures.failures:,} failed, {figures.cached:,} cached, {cost}"
