"""`metrics summary|agents|models|costs|errors|export`: the ledger's figures, without SDK or asyncio."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, TextIO, Tuple

from ..advice import for_shell
from ..agents.discovery import find_sources
from ..errors import InputError
from ..formatting import format_usd, pluralize
from ..ledger.metrics import Metrics, advice_on
from ..ledger.parallel_reader import summary_of
from ..ledger.reading import Reading
from ..ledger.rotating_log import LIVE, older_files
from ..ledger.summary import Summary
from ..ledger.time_range import TimeRange, window_of
from . import format_metrics as amounts
from . import render, streams

# A bar is as long as its value beside the highest.
_BAR_HEAD = "compared"
_MOST_WANTED = ("runs", "errors", "p95", "cost")


def show_metrics(args: argparse.Namespace) -> int:
    """Returns 0, also where nothing is recorded yet. Raises InputError, OSError."""
    folder = find_sources(args.config, Path.cwd()).ledger
    window = window_of(time.time(), args.hours, args.since)
    if args.what == "export":
        _choose_output(args)
        _export(args, folder, window)
        return 0
    summary = summary_of(folder, window)
    _remark(summary.total().executions, summary.skipped, folder, window)
    if args.json:
        streams.as_json(_PLAIN[args.what](summary))
    elif summary.groups:
        _SHOWN[args.what](summary)
    return 0


def _remark(executions: int, skipped: int, folder: Path, window: TimeRange) -> None:
    if not executions:
        if window.is_everything or not ((folder / LIVE).exists() or older_files(folder)):
            what = "yet; run an agent first: claude-force run agent NAME --task TEXT"
        else:
            what = "for that time; leave out --hours and --since for all of them"
        streams.status(f"no executions are recorded in {folder} {what}")
    if skipped:
        streams.warn(f"{pluralize(skipped, 'line')} of the ledger could not be read")


def _summary(summary: Summary) -> None:
    for name, value in _lines(summary):
        streams.write(f"{name + ':':13} {value}")
    days = summary.by_day()
    if streams.on_terminal() and len(days) > 1:
        streams.write()
        _trends(days)


def _lines(summary: Summary) -> List[List[str]]:
    whole = summary.total()
    facts = whole.as_dict()
    saved = amounts.money(whole.saved_cost, whole.unknown_saving)
    times = [[name, amounts.spread(facts[f"{name}_ms"])] for name in ("wall", "wait", "service")]
    return [
        ["executions", f"{whole.executions:,} from {facts['began'][:16]} to {facts['ended'][:16]} UTC"],
        ["errors", f"{whole.failures:,} ({amounts.percent(facts['error_rate'])}), {_timeouts(whole)}"],
        [
            "cached",
            f"{pluralize(whole.cached, 'answer')} from the cache "
            f"({amounts.percent(facts['cache_hit_rate'])}), "
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
        ["cost", amounts.money(whole.cost, whole.unknown_price)],
        ["saved", f"{saved} by cached answers, {format_usd(whole.prompt_cache_saving)} by the prompt cache"],
        [
            "pace",
            f"{amounts.rate(facts['executions_per_second'])} executions/s, "
            f"{amounts.rate(facts['tokens_per_minute'])} tokens/min",
        ],
        ["at the limit", f"{amounts.percent(summary.at_limit.share())} of the time with calls on the wire"],
    ]


def _incomplete(figures: Metrics) -> str:
    """How many answers are not whole; "" where all are."""
    kinds = (("cut off", figures.truncated), ("refused", figures.refused), ("without text", figures.empty))
    return ", ".join(f"{number:,} {kind}" for kind, number in kinds if number)


def _timeouts(figures: Metrics) -> str:
    return pluralize(figures.timeouts, "of them a timeout", "of them timeouts")


def _trends(days: Dict[str, Metrics]) -> None:
    recent = list(days.items())[-amounts.MOST_DAYS :]
    measures: Dict[str, Callable[[Metrics], float]] = {
        "executions": lambda one: one.executions,
        "errors": lambda one: one.failures,
        "p95": lambda one: one.wall.quantile(0.95) or 0.0,
        "cost": lambda one: one.cost,
    }
    streams.write(f"{recent[0][0]} to {recent[-1][0]}, by day:")
    for name, measure in measures.items():
        streams.write(f"{name + ':':13} {amounts.sparkline([measure(one) for _, one in recent])}")


def _table(first: str, of: Callable[[Summary], Dict[str, Metrics]], summary: Summary) -> None:
    parts = sorted(of(summary).items(), key=lambda one: -one[1].executions)
    heads = [first, "runs", "errors", "cached", "p50", "p95", "p99", "tokens", "cost", "saved"]
    rows = [
        [
            name,
            f"{one.executions:,}",
            amounts.percent(one.failures / one.executions),
            amounts.percent(one.cached / one.executions),
            *(amounts.duration(one.wall.quantile(share)) for share in (0.5, 0.95, 0.99)),
            f"{one.total_tokens:,}",
            amounts.money(one.cost, one.unknown_price),
            amounts.money(one.saved_cost, one.unknown_saving),
        ]
        for name, one in parts
    ]
    if streams.on_terminal() and not render.fits(heads, rows):
        shown = [heads.index(head) for head in (first, *_MOST_WANTED)]
        render.table([heads[one] for one in shown], [[row[one] for one in shown] for row in rows])
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
    streams.write(
        f"{amounts.money(whole.cost, whole.unknown_price)} spent, "
        f"{amounts.money(whole.saved_cost, whole.unknown_saving)} saved by cached answers, "
        f"{format_usd(whole.prompt_cache_saving)} by the prompt cache"
    )
    for name, of in parts.items():
        if of:
            streams.write()
            _money_table(name, of)


def _money_table(first: str, of: Dict[str, Metrics]) -> None:
    parts = list(of.items()) if first == "day" else sorted(of.items(), key=lambda one: -one[1].cost)
    rows = [
        [
            name,
            amounts.money(one.cost, one.unknown_price),
            amounts.money(one.saved_cost, one.unknown_saving),
            format_usd(one.prompt_cache_saving),
        ]
        for name, one in parts
    ]
    _with_bars([first, "cost", "saved", "prompt cache"], rows, [one.cost for _, one in parts])


def _errors(summary: Summary) -> None:
    found = _plain_errors(summary)
    if not found["errors"]:
        streams.write(f"none in {pluralize(found['executions'], 'execution')}")
        return
    rows = [
        [one["type"], f"{one['count']:,}", amounts.percent(one["share"]), one["advice"] or "-"]
        for one in found["by_type"]
    ]
    render.table(["error", "count", "of all", "what to do"], rows)
    parts = [(name, one) for name, one in summary.by_agent().items() if one.failures]
    parts.sort(key=lambda one: -one[1].failures)
    streams.write()
    _with_bars(
        ["agent", "errors", "of its own"],
        [[name, f"{one.failures:,}", amounts.percent(one.failures / one.executions)] for name, one in parts],
        [one.failures for _, one in parts],
    )


def _plain_errors(summary: Summary) -> Dict[str, Any]:
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
    found = advice_on(error_type)
    return None if found is None else for_shell(found)


def _with_bars(heads: List[str], rows: List[List[str]], values: List[float]) -> None:
    """A bar for each value, where a person has room for it."""
    with_bars = [[*row, bar] for row, bar in zip(rows, amounts.bars(values))]
    if streams.on_terminal() and render.fits([*heads, _BAR_HEAD], with_bars):
        heads, rows = [*heads, _BAR_HEAD], with_bars
    render.table(heads, rows)


_SHOWN: Dict[str, Callable[[Summary], None]] = {
    "summary": _summary,
    "agents": partial(_table, "agent", Summary.by_agent),
    "models": partial(_table, "model", Summary.by_model),
    "costs": _costs,
    "errors": _errors,
}
_PLAIN: Dict[str, Callable[[Summary], Any]] = {
    "summary": Summary.as_dict,
    "agents": Summary.agents_as_dict,
    "models": Summary.models_as_dict,
    "costs": Summary.money,
    "errors": _plain_errors,
}


def _choose_output(args: argparse.Namespace) -> None:
    """FILE of 1.x is another spelling of `-o FILE`. Raises InputError."""
    if None not in (args.file, args.output):
        raise InputError(f"{args.file} and -o {args.output} both name a file to write: leave one out.")
    args.output = args.file if args.output is None else args.output


def _export(args: argparse.Namespace, folder: Path, window: TimeRange) -> None:
    produce = _figures_for_prometheus if args.format == "prometheus" else _executions
    if args.output is None:
        if args.json and args.format != "json":
            raise InputError(
                f"--json and --format {args.format} exclude each other: add -o FILE or drop one."
            )
        streams.let_write(lambda out: _remark(*produce(args.format, folder, window, out), folder, window))
        return
    from ..ledger.export import open_export

    try:
        with open_export(Path(args.output), folder) as out:
            executions, skipped = produce(args.format, folder, window, out)
    except OSError as error:
        raise InputError(f"{args.output} can't be written: {error.strerror}.") from error
    _remark(executions, skipped, folder, window)
    if args.json:
        fields = {"output": args.output, "executions": executions, "skipped_lines": skipped}
        streams.as_json({"success": True, **fields})


def _executions(format: str, folder: Path, window: TimeRange, out: TextIO) -> Tuple[int, int]:
    """Returns how many were written, and how many lines could not be read; so does the next."""
    from ..ledger.export import writer_of

    reading = Reading(folder, window)
    written = writer_of(format)(reading.entries(), out)
    return written, reading.skipped


def _figures_for_prometheus(_: str, folder: Path, window: TimeRange, out: TextIO) -> Tuple[int, int]:
    from ..integrations.prometheus import exposition

    summary = summary_of(folder, window)
    out.write(exposition(summary))
    return summary.total().executions, summary.skipped
