"""`metrics summary|agents|models|costs|errors|export`: shows the ledger, without SDK and asyncio."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, TextIO, Tuple

from ..agents.discovery import find_sources
from ..errors import InputError
from ..formatting import for_shell, format_duration, format_percent, format_usd, pluralize
from ..ledger.metrics import Metrics, Summary, advice_for
from ..ledger.reader import LedgerReader, parse_since, read_summary
from ..ledger.rotating_log import ACTIVE_FILE, rotated_files
from . import render, streams

# Columns of a table for a narrow terminal.
_NARROW_COLUMNS = ("runs", "errors", "p95", "cost")
_MAX_DAYS = 60
_BAR_CELLS = 12
_LEVELS, _ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.-=oO#@"
_EIGHTHS, _ASCII_FULL = " ▏▎▍▌▋▊▉█", "#"


def show_summary(args: argparse.Namespace) -> int:
    """Shows the metrics of all executions. Returns 0, even if nothing is recorded. Raises InputError."""
    return _show(args, Summary.as_dict, _write_summary)


def show_agents(args: argparse.Namespace) -> int:
    """Shows the metrics of each agent."""
    return _show(args, Summary.agents_as_dict, lambda summary: _table("agent", summary.by_agent()))


def show_models(args: argparse.Namespace) -> int:
    """Shows the metrics of each model."""
    return _show(args, Summary.models_as_dict, lambda summary: _table("model", summary.by_model()))


def show_costs(args: argparse.Namespace) -> int:
    """Shows what was spent and saved, by agent, model, workflow and day."""
    return _show(args, Summary.money, _write_costs)


def show_errors(args: argparse.Namespace) -> int:
    """Counts errors by type, with advice."""
    return _show(args, _error_fields, _write_errors)


def _show(
    args: argparse.Namespace, fields: Callable[[Summary], Any], write: Callable[[Summary], None]
) -> int:
    folder, since = _source(args)
    summary = read_summary(folder, since)
    _report_gaps(summary.total().executions, summary.skipped, folder, since)
    if args.json:
        streams.write_json(fields(summary))
    elif summary.groups:
        write(summary)
    return 0


def _source(args: argparse.Namespace) -> Tuple[Path, Optional[float]]:
    """Returns the folder of the ledger, and the time range that was given."""
    return find_sources(args.config, Path.cwd()).ledger, parse_since(time.time(), args.hours, args.since)


def _report_gaps(executions: int, skipped: int, folder: Path, since: Optional[float]) -> None:
    if not executions:
        if since is None or not ((folder / ACTIVE_FILE).exists() or rotated_files(folder)):
            what = "yet; run an agent first: claude-force run agent NAME --task TEXT"
        else:
            what = "for that time; leave out --hours and --since for all of them"
        streams.status(f"no executions are recorded in {folder} {what}")
    if skipped:
        streams.warn(f"{pluralize(skipped, 'line')} of the ledger could not be read")


def _write_summary(summary: Summary) -> None:
    for name, value in _summary_lines(summary):
        streams.write_line(f"{name + ':':13} {value}")
    days = summary.by_day()
    if streams.stdout_is_terminal() and len(days) > 1:
        streams.write_line()
        _trends(days)


def _summary_lines(summary: Summary) -> List[List[str]]:
    total = summary.total()
    fields = total.as_dict()
    timeouts = pluralize(total.timeouts, "of them a timeout", "of them timeouts")
    saved = format_sum(total.saved_cost, total.unknown_saving)
    times = [[name, format_distribution(fields[f"{name}_ms"])] for name in ("wall", "wait", "service")]
    return [
        ["executions", f"{total.executions:,} from {fields['began'][:16]} to {fields['ended'][:16]} UTC"],
        ["errors", f"{total.failures:,} ({format_share(fields['error_rate'])}), {timeouts}"],
        [
            "cached",
            f"{pluralize(total.cached, 'answer')} from the cache "
            f"({format_share(fields['cache_hit_rate'])}), "
            f"{total.shared:,} shared with an identical call",
        ],
        *([["answers", _incomplete(total)]] if _incomplete(total) else []),
        ["attempts", f"{total.attempts:,}, {pluralize(total.retries, 'retry', 'retries')}"],
        *times,
        [
            "tokens",
            f"{total.input_tokens:,} in ({total.cache_read_tokens:,} read from the prompt cache, "
            f"{total.cache_write_tokens:,} written to it), {total.output_tokens:,} out",
        ],
        ["cost", format_sum(total.cost, total.unknown_price)],
        ["saved", f"{saved} by cached answers, {format_usd(total.prompt_cache_saving)} by the prompt cache"],
        [
            "throughput",
            f"{format_rate(fields['executions_per_second'])} executions/s, "
            f"{format_rate(fields['tokens_per_minute'])} tokens/min",
        ],
        ["at the limit", f"{format_share(summary.at_limit.share())} of the time with calls in flight"],
    ]


def _incomplete(metrics: Metrics) -> str:
    """Returns how many answers are incomplete, or ""."""
    kinds = (("cut off", metrics.truncated), ("refused", metrics.refused), ("without text", metrics.empty))
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds if number)


def _trends(days: Dict[str, Metrics]) -> None:
    recent = list(days.items())[-_MAX_DAYS:]
    measures: Dict[str, Callable[[Metrics], float]] = {
        "executions": lambda one: one.executions,
        "errors": lambda one: one.failures,
        "p95": lambda one: one.wall.quantile(0.95) or 0.0,
        "cost": lambda one: one.cost,
    }
    streams.write_line(f"{recent[0][0]} to {recent[-1][0]}, by day:")
    for name, measure in measures.items():
        streams.write_line(f"{name + ':':13} {sparkline([measure(one) for _, one in recent])}")


def _table(first: str, groups: Dict[str, Metrics]) -> None:
    parts = sorted(groups.items(), key=lambda one: -one[1].executions)
    heads = [first, "runs", "errors", "cached", "p50", "p95", "p99", "tokens", "cost", "saved"]
    rows = [
        [
            name,
            f"{one.executions:,}",
            format_share(one.failures / one.executions),
            format_share(one.cached / one.executions),
            *(format_ms(one.wall.quantile(share)) for share in (0.5, 0.95, 0.99)),
            f"{one.total_tokens:,}",
            format_sum(one.cost, one.unknown_price),
            format_sum(one.saved_cost, one.unknown_saving),
        ]
        for name, one in parts
    ]
    if streams.stdout_is_terminal() and not render.fits_terminal(heads, rows):
        shown = [heads.index(head) for head in (first, *_NARROW_COLUMNS)]
        render.show_table([heads[one] for one in shown], [[row[one] for one in shown] for row in rows])
        return
    _with_bars(heads, rows, [one.executions for _, one in parts])


def _write_costs(summary: Summary) -> None:
    parts = {
        "agent": summary.by_agent(),
        "model": summary.by_model(),
        "workflow": summary.by_workflow(),
        "day": summary.by_day(),
    }
    total = summary.total()
    streams.write_line(
        f"{format_sum(total.cost, total.unknown_price)} spent, "
        f"{format_sum(total.saved_cost, total.unknown_saving)} saved by cached answers, "
        f"{format_usd(total.prompt_cache_saving)} by the prompt cache"
    )
    for name, of in parts.items():
        if of:
            streams.write_line()
            _cost_table(name, of)


def _cost_table(first: str, of: Dict[str, Metrics]) -> None:
    parts = list(of.items()) if first == "day" else sorted(of.items(), key=lambda one: -one[1].cost)
    rows = [
        [
            name,
            format_sum(one.cost, one.unknown_price),
            format_sum(one.saved_cost, one.unknown_saving),
            format_usd(one.prompt_cache_saving),
        ]
        for name, one in parts
    ]
    _with_bars([first, "cost", "saved", "prompt cache"], rows, [one.cost for _, one in parts])


def _write_errors(summary: Summary) -> None:
    found = _error_fields(summary)
    if not found["errors"]:
        streams.write_line(f"none in {pluralize(found['executions'], 'execution')}")
        return
    rows = [
        [one["type"], f"{one['count']:,}", format_share(one["share"]), one["advice"] or "-"]
        for one in found["by_type"]
    ]
    render.show_table(["error", "count", "of all", "what to do"], rows)
    parts = [(name, one) for name, one in summary.by_agent().items() if one.failures]
    parts.sort(key=lambda one: -one[1].failures)
    streams.write_line()
    _with_bars(
        ["agent", "errors", "error rate"],
        [[name, f"{one.failures:,}", format_share(one.failures / one.executions)] for name, one in parts],
        [one.failures for _, one in parts],
    )


def _error_fields(summary: Summary) -> Dict[str, Any]:
    total = summary.total()
    fields = total.as_dict()
    names = ("executions", "errors", "error_rate", "timeouts", "timeout_rate")
    return {
        **{name: fields[name] for name in names},
        "by_type": [
            {"type": name, "count": count, "share": count / total.executions, "advice": _advice(name)}
            for name, count in total.errors.most_common()
        ],
        "by_agent": {
            name: dict(one.errors.most_common()) for name, one in summary.by_agent().items() if one.failures
        },
    }


def _advice(error_type: str) -> Optional[str]:
    found = advice_for(error_type)
    return None if found is None else for_shell(found)


def _with_bars(heads: List[str], rows: List[List[str]], values: List[float]) -> None:
    """Shows a table, with a bar for each value if a terminal has room for it."""
    with_bars = [[*row, bar] for row, bar in zip(rows, bars(values))]
    if streams.stdout_is_terminal() and render.fits_terminal([*heads, "compared"], with_bars):
        heads, rows = [*heads, "compared"], with_bars
    render.show_table(heads, rows)


def _choose_output(args: argparse.Namespace) -> None:
    """Takes the FILE of 1.x for `-o FILE`. Raises InputError for both."""
    if None not in (args.file, args.output):
        raise InputError(f"{args.file} and -o {args.output} both name a file to write: leave one out.")
    args.output = args.file if args.output is None else args.output


def export(args: argparse.Namespace) -> int:
    """Exports executions, or metrics for Prometheus. Returns 0. Raises InputError, OSError."""
    folder, since = _source(args)
    _choose_output(args)
    write = _export_prometheus if args.format == "prometheus" else _export_executions
    if args.output is None:
        if args.json and args.format != "json":
            raise InputError(
                f"--json and --format {args.format} exclude each other: add -o FILE or drop one."
            )
        streams.with_stdout(lambda out: _report_gaps(*write(args.format, folder, since, out), folder, since))
        return 0
    from ..ledger.export import open_export

    try:
        with open_export(Path(args.output), folder) as out:
            executions, skipped = write(args.format, folder, since, out)
    except OSError as error:
        raise InputError(f"{args.output} can't be written: {error.strerror}.") from error
    _report_gaps(executions, skipped, folder, since)
    if args.json:
        fields = {"output": args.output, "executions": executions, "skipped_lines": skipped}
        streams.write_json({"success": True, **fields})
    return 0


def _export_executions(format: str, folder: Path, since: Optional[float], out: TextIO) -> Tuple[int, int]:
    """Returns the numbers of executions and of unreadable lines."""
    from ..ledger.export import writer_of

    reading = LedgerReader(folder, since)
    written = writer_of(format)(reading.entries(), out)
    return written, reading.skipped


def _export_prometheus(_: str, folder: Path, since: Optional[float], out: TextIO) -> Tuple[int, int]:
    from ..integrations.prometheus import exposition

    summary = read_summary(folder, since)
    out.write(exposition(summary))
    return summary.total().executions, summary.skipped


def format_share(share: Optional[float]) -> str:
    """Returns a share from 0 to 1 as a percentage; None means unknown."""
    return "unknown" if share is None else format_percent(share)


def format_ms(milliseconds: Optional[float]) -> str:
    """Returns a time in milliseconds; None was not measured."""
    return "-" if milliseconds is None else format_duration(milliseconds / 1000)


def format_distribution(values: Mapping[str, Any]) -> str:
    """Returns percentiles, mean and maximum in one line."""
    if values["mean"] is None:
        return "unknown"
    names = ("p50", "p95", "p99", "mean", "max")
    about = "" if values["exact"] else " (percentiles within 1 %)"
    return ", ".join(f"{name} {format_ms(values[name])}" for name in names) + about


def format_sum(known: float, unknown: int) -> str:
    """Returns a sum of USD, with the number of unknown amounts."""
    if not unknown:
        return format_usd(known)
    return f"{format_usd(known)} + {unknown:,} unknown" if known else f"unknown ({unknown:,})"


def format_rate(value: Optional[float]) -> str:
    """Returns a rate; None means unknown."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sparkline(values: Sequence[float]) -> str:
    """Returns a character for each value, whose height is the share of the highest value."""
    levels = _LEVELS if streams.can_encode(_LEVELS) else _ASCII_LEVELS
    most = max(values, default=0)
    if most <= 0:
        return levels[0] * len(values)
    return "".join(levels[round(max(value, 0) / most * (len(levels) - 1))] for value in values)


def bars(values: Sequence[float]) -> List[str]:
    """Returns a bar for each value, whose length is the share of the highest value."""
    most = max(values, default=0)
    return [_bar(max(value, 0) / most if most > 0 else 0) for value in values]


def _bar(share: float) -> str:
    if not streams.can_encode(_EIGHTHS):
        return _ASCII_FULL * round(share * _BAR_CELLS)
    full, eighths = divmod(round(share * _BAR_CELLS * 8), 8)
    return (_EIGHTHS[-1] * full + (_EIGHTHS[eighths] if eighths else "")) or ("▏" if share else "")
