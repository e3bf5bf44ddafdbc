"""`metrics summary|agents|models|costs|errors|export`: the ledger's figures, without SDK or asyncio."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, TextIO, Tuple

from .. import formatting as spelled
from ..advice import for_shell
from ..agents.discovery import find_sources
from ..errors import InputError
from ..formatting import format_usd, pluralize
from ..ledger.metrics import Metrics, Summary, advice_for
from ..ledger.reader import LedgerReader, parse_since, read_summary
from ..ledger.rotating_log import ACTIVE_FILE, rotated_files
from . import render, streams

# A bar is as long as its value beside the highest.
_BAR_HEAD = "compared"
_MOST_WANTED = ("runs", "errors", "p95", "cost")


def show_summary(args: argparse.Namespace) -> int:
    """Returns 0, also where nothing is recorded yet, as the next four. Raises InputError, OSError."""
    return _show(args, Summary.as_dict, _summary)


def show_agents(args: argparse.Namespace) -> int:
    return _show(args, Summary.agents_as_dict, lambda summary: _table("agent", summary.by_agent()))


def show_models(args: argparse.Namespace) -> int:
    return _show(args, Summary.models_as_dict, lambda summary: _table("model", summary.by_model()))


def show_costs(args: argparse.Namespace) -> int:
    return _show(args, Summary.money, _costs)


def show_errors(args: argparse.Namespace) -> int:
    return _show(args, _error_fields, _errors)


def _show(
    args: argparse.Namespace, fields: Callable[[Summary], Any], write: Callable[[Summary], None]
) -> int:
    folder, since = _source(args)
    summary = read_summary(folder, since)
    _remark(summary.total().executions, summary.skipped, folder, since)
    if args.json:
        streams.write_json(fields(summary))
    elif summary.groups:
        write(summary)
    return 0


def _source(args: argparse.Namespace) -> Tuple[Path, Optional[float]]:
    """Returns the folder of the ledger, and the time that was asked for."""
    return find_sources(args.config, Path.cwd()).ledger, parse_since(time.time(), args.hours, args.since)


def _remark(executions: int, skipped: int, folder: Path, since: Optional[float]) -> None:
    if not executions:
        if since is None or not ((folder / ACTIVE_FILE).exists() or rotated_files(folder)):
            what = "yet; run an agent first: claude-force run agent NAME --task TEXT"
        else:
            what = "for that time; leave out --hours and --since for all of them"
        streams.status(f"no executions are recorded in {folder} {what}")
    if skipped:
        streams.warn(f"{pluralize(skipped, 'line')} of the ledger could not be read")


def _summary(summary: Summary) -> None:
    for name, value in _lines(summary):
        streams.write_line(f"{name + ':':13} {value}")
    days = summary.by_day()
    if streams.stdout_is_terminal() and len(days) > 1:
        streams.write_line()
        _trends(days)


def _lines(summary: Summary) -> List[List[str]]:
    whole = summary.total()
    facts = whole.as_dict()
    saved = money(whole.saved_cost, whole.unknown_saving)
    times = [[name, spread(facts[f"{name}_ms"])] for name in ("wall", "wait", "service")]
    return [
        ["executions", f"{whole.executions:,} from {facts['began'][:16]} to {facts['ended'][:16]} UTC"],
        ["errors", f"{whole.failures:,} ({percent(facts['error_rate'])}), {_timeouts(whole)}"],
        [
            "cached",
            f"{pluralize(whole.cached, 'answer')} from the cache "
            f"({percent(facts['cache_hit_rate'])}), "
            f"{whole.shared:,} shared with an identical call",
        ],
        *([["answers", _incomplete(whole)]] if _incomplete(whole) else []),
        ["attempts", f"{whole.attempts:,}, {pluralize(whole.retries, 'retry', 'retries')}"],
        *times,
        [
            "tokens",
            f"{whole.input_tokens:,} in ({whole.cache_read_tokens:,} read from the prompt cache, "
            f"{whole.cache_write_tokens:,} written to it), {whole.output_tokens:,} out",
        ],
        ["cost", money(whole.cost, whole.unknown_price)],
        ["saved", f"{saved} by cached answers, {format_usd(whole.prompt_cache_saving)} by the prompt cache"],
        [
            "pace",
            f"{rate(facts['executions_per_second'])} executions/s, "
            f"{rate(facts['tokens_per_minute'])} tokens/min",
        ],
        ["at the limit", f"{percent(summary.at_limit.share())} of the time with calls on the wire"],
    ]


def _incomplete(figures: Metrics) -> str:
    """How many answers are not whole; "" where all are."""
    kinds = (("cut off", figures.truncated), ("refused", figures.refused), ("without text", figures.empty))
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds if number)


def _timeouts(figures: Metrics) -> str:
    return pluralize(figures.timeouts, "of them a timeout", "of them timeouts")


def _trends(days: Dict[str, Metrics]) -> None:
    recent = list(days.items())[-MOST_DAYS:]
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
            percent(one.failures / one.executions),
            percent(one.cached / one.executions),
            *(duration(one.wall.quantile(share)) for share in (0.5, 0.95, 0.99)),
            f"{one.total_tokens:,}",
            money(one.cost, one.unknown_price),
            money(one.saved_cost, one.unknown_saving),
        ]
        for name, one in parts
    ]
    if streams.stdout_is_terminal() and not render.fits_terminal(heads, rows):
        shown = [heads.index(head) for head in (first, *_MOST_WANTED)]
        render.show_table([heads[one] for one in shown], [[row[one] for one in shown] for row in rows])
        return
    _with_bars(heads, rows, [one.executions for _, one in parts])


def _costs(summary: Summary) -> None:
    parts = {
        "agent": summary.by_agent(),
        "model": summary.by_model(),
        "workflow": summary.by_workflow(),
        "day": summary.by_day(),
    }
    whole = summary.total()
    streams.write_line(
        f"{money(whole.cost, whole.unknown_price)} spent, "
        f"{money(whole.saved_cost, whole.unknown_saving)} saved by cached answers, "
        f"{format_usd(whole.prompt_cache_saving)} by the prompt cache"
    )
    for name, of in parts.items():
        if of:
            streams.write_line()
            _money_table(name, of)


def _money_table(first: str, of: Dict[str, Metrics]) -> None:
    parts = list(of.items()) if first == "day" else sorted(of.items(), key=lambda one: -one[1].cost)
    rows = [
        [
            name,
            money(one.cost, one.unknown_price),
            money(one.saved_cost, one.unknown_saving),
            format_usd(one.prompt_cache_saving),
        ]
        for name, one in parts
    ]
    _with_bars([first, "cost", "saved", "prompt cache"], rows, [one.cost for _, one in parts])


def _errors(summary: Summary) -> None:
    found = _error_fields(summary)
    if not found["errors"]:
        streams.write_line(f"none in {pluralize(found['executions'], 'execution')}")
        return
    rows = [
        [one["type"], f"{one['count']:,}", percent(one["share"]), one["advice"] or "-"]
        for one in found["by_type"]
    ]
    render.show_table(["error", "count", "of all", "what to do"], rows)
    parts = [(name, one) for name, one in summary.by_agent().items() if one.failures]
    parts.sort(key=lambda one: -one[1].failures)
    streams.write_line()
    _with_bars(
        ["agent", "errors", "of its own"],
        [[name, f"{one.failures:,}", percent(one.failures / one.executions)] for name, one in parts],
        [one.failures for _, one in parts],
    )


def _error_fields(summary: Summary) -> Dict[str, Any]:
    whole = summary.total()
    facts = whole.as_dict()
    names = ("executions", "errors", "error_rate", "timeouts", "timeout_rate")
    return {
        **{name: facts[name] for name in names},
        "by_type": [
            {
                "type": name,
                "count": count,
                "share": count / whole.executions,
                "advice": _advice(name),
            }
            for name, count in whole.errors.most_common()
        ],
        "by_agent": {
            name: dict(one.errors.most_common()) for name, one in summary.by_agent().items() if one.failures
        },
    }


def _advice(error_type: str) -> Optional[str]:
    found = advice_for(error_type)
    return None if found is None else for_shell(found)


def _with_bars(heads: List[str], rows: List[List[str]], values: List[float]) -> None:
    """A bar for each value, where a person has room for it."""
    with_bars = [[*row, bar] for row, bar in zip(rows, bars(values))]
    if streams.stdout_is_terminal() and render.fits_terminal([*heads, _BAR_HEAD], with_bars):
        heads, rows = [*heads, _BAR_HEAD], with_bars
    render.show_table(heads, rows)


def _choose_output(args: argparse.Namespace) -> None:
    """FILE of 1.x is another spelling of `-o FILE`. Raises InputError."""
    if None not in (args.file, args.output):
        raise InputError(f"{args.file} and -o {args.output} both name a file to write: leave one out.")
    args.output = args.file if args.output is None else args.output


def export(args: argparse.Namespace) -> int:
    """Returns 0. Raises InputError where nothing can be written, OSError."""
    folder, since = _source(args)
    _choose_output(args)
    produce = _figures_for_prometheus if args.format == "prometheus" else _executions
    if args.output is None:
        if args.json and args.format != "json":
            raise InputError(
                f"--json and --format {args.format} exclude each other: add -o FILE or drop one."
            )
        streams.with_stdout(lambda out: _remark(*produce(args.format, folder, since, out), folder, since))
        return 0
    from ..ledger.export import open_export

    try:
        with open_export(Path(args.output), folder) as out:
            executions, skipped = produce(args.format, folder, since, out)
    except OSError as error:
        raise InputError(f"{args.output} can't be written: {error.strerror}.") from error
    _remark(executions, skipped, folder, since)
    if args.json:
        fields = {"output": args.output, "executions": executions, "skipped_lines": skipped}
        streams.write_json({"success": True, **fields})
    return 0


def _executions(format: str, folder: Path, since: Optional[float], out: TextIO) -> Tuple[int, int]:
    """Returns how many were written, and how many lines could not be read; so does the next."""
    from ..ledger.export import writer_of

    reading = LedgerReader(folder, since)
    written = writer_of(format)(reading.entries(), out)
    return written, reading.skipped


def _figures_for_prometheus(_: str, folder: Path, since: Optional[float], out: TextIO) -> Tuple[int, int]:
    from ..integrations.prometheus import exposition

    summary = read_summary(folder, since)
    out.write(exposition(summary))
    return summary.total().executions, summary.skipped


MOST_DAYS = 60
_BAR_CELLS = 12

_LEVELS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_PLAIN_LEVELS, _PLAIN_FULL = "_.-=oO#@", "#"


def percent(share: Optional[float]) -> str:
    """Of a share from 0 to 1."""
    return "unknown" if share is None else spelled.format_percent(share)


def duration(milliseconds: Optional[float]) -> str:
    """Of a time in the ledger."""
    return "-" if milliseconds is None else spelled.format_duration(milliseconds / 1000)


def spread(figures: Mapping[str, Any]) -> str:
    """Percentiles, mean and maximum in one line."""
    if figures["mean"] is None:
        return "unknown"
    names = ("p50", "p95", "p99", "mean", "max")
    about = "" if figures["exact"] else " (percentiles within 1 %)"
    return ", ".join(f"{name} {duration(figures[name])}" for name in names) + about


def money(known: float, unknown: int) -> str:
    """A sum, and of how many amounts it does not know."""
    if not unknown:
        return format_usd(known)
    return f"{format_usd(known)} + {unknown:,} unknown" if known else f"unknown ({unknown:,})"


def rate(value: Optional[float]) -> str:
    """Of something in a unit of time."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, as high as it is beside the highest."""
    levels = _LEVELS if streams.can_encode(_LEVELS) else _PLAIN_LEVELS
    most = max(values, default=0)
    if most <= 0:
        return levels[0] * len(values)
    return "".join(levels[round(max(value, 0) / most * (len(levels) - 1))] for value in values)


def bars(values: Sequence[float]) -> List[str]:
    """A bar for each value, as long as it is beside the longest."""
    most = max(values, default=0)
    return [_bar(max(value, 0) / most if most > 0 else 0) for value in values]


def _bar(share: float) -> str:
    if not streams.can_encode(_EIGHTHS):
        return _PLAIN_FULL * round(share * _BAR_CELLS)
    full, eighths = divmod(round(share * _BAR_CELLS * 8), 8)
    return (_EIGHTHS[-1] * full + (_EIGHTHS[eighths] if eighths else "")) or ("▏" if share else "")
