"""The arguments of `runs list|show`."""

from __future__ import annotations

import argparse

from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    kinds = parser.add_kinds("what")
    kinds.add("list", "List the last runs, the newest first.", _add_list)
    kinds.add("show", "Show one run: what it was given, and which answers it has.", _add_show)


def _add_list(parser: Parser) -> None:
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many (20)")
    parser.set_defaults(carry_out=_list)


def _add_show(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.set_defaults(carry_out=_show)


def _list(args: argparse.Namespace) -> int:
    from ..runs import list_runs

    return list_runs(args)


def _show(args: argparse.Namespace) -> int:
    from ..runs import show_run

    return show_run(args)
