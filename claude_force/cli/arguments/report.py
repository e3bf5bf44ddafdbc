"""The arguments of `report`."""

from __future__ import annotations

import argparse

from ..options import number
from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    add = parser.add_argument
    add("--run", metavar="ID", help="this run, or last; with neither --hours nor --since that is the default")
    add("--hours", type=number, metavar="N", help="what ended in the last N hours")
    add("--since", metavar="WHEN", help="what ended since a date, a time, or 45m, 3h, 2d, 1w ago")
    add("-o", "--output", metavar="FILE", help="where to write it (.claude/metrics/report.html)")
    parser.values["output"] = "files"
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..report import report

    return report(args)
