"""The arguments of `metrics summary|agents|models|costs|errors|export`."""

from __future__ import annotations

import argparse

from ..options import number
from ..parser import Parser

_FORMATS = ("json", "csv", "prometheus")


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    parser.set_defaults(carry_out=_carry_out)
    kinds = parser.add_kinds("what")
    kinds.add("summary", "How much ran, how long it took, what it cost, what went wrong.", _add_window)
    kinds.add("agents", "The figures of each agent.", _add_window)
    kinds.add("models", "The figures of each model.", _add_window)
    kinds.add("costs", "What was spent and saved, by agent, model, workflow and day.", _add_window)
    kinds.add("errors", "What went wrong how often, and what can be done about it.", _add_window)
    kinds.add("export", "All executions, or the figures for Prometheus.", _add_export)


def _add_window(parser: Parser) -> None:
    parser.add_argument("--hours", type=number, metavar="N", help="what ended in the last N hours")
    moment = "what ended since a date, a time, or 45m, 3h, 2d, 1w ago"
    parser.add_argument("--since", metavar="WHEN", help=moment)


def _add_export(parser: Parser) -> None:
    _add_window(parser)
    what = "json or csv: each execution; prometheus: the figures, to be scraped (json)"
    parser.add_argument("--format", choices=_FORMATS, default="json", help=what)
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it (standard output)")
    parser.values["output"] = "files"


def _carry_out(args: argparse.Namespace) -> int:
    from ..metrics import show_metrics

    return show_metrics(args)
