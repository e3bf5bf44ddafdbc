"""The arguments of `runs list|show|resume|cancel|prune|workers`."""

from __future__ import annotations

import argparse

from ..options import add_database, number
from ..parser import Parser
from .run import add_workflow_options

_AND_THOSE = "show the runs of this database too"
_THERE = "the database of the run"


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    kinds = parser.add_kinds("what")
    kinds.add("list", "List the last runs, the newest first.", _add_list)
    kinds.add("show", "Show one run: what it was given, which answers it has, what failed.", _add_show)
    kinds.add("resume", "Go on with a run: only what is missing is asked and paid for.", _add_resume)
    kinds.add("cancel", "End a durable run: what is open of it is not made any more.", _add_cancel)
    kinds.add("prune", "Remove durable runs that ended long ago from their database.", _add_prune)
    kinds.add("workers", "List the workers of a database. Exit code 1 if none is alive.", _add_workers)


def _add_list(parser: Parser) -> None:
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many (20)")
    add_database(parser, _AND_THOSE)
    parser.set_defaults(carry_out=_list)


def _add_show(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN")
    add_database(parser, _AND_THOSE)
    parser.set_defaults(carry_out=_show)


def _add_resume(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN")
    add_workflow_options(parser)
    parser.set_defaults(carry_out=_resume)


def _add_cancel(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN")
    add_database(parser, _THERE)
    parser.set_defaults(carry_out=_cancel)


def _add_prune(parser: Parser) -> None:
    days = "those that began longer ago (30)"
    parser.add_argument("--days", type=number, default=30.0, metavar="N", help=days)
    add_database(parser, "the database of the runs")
    parser.set_defaults(carry_out=_prune)


def _add_workers(parser: Parser) -> None:
    add_database(parser, "the database of the workers")
    parser.set_defaults(carry_out=_workers)


def _list(args: argparse.Namespace) -> int:
    from ..runs import list_runs

    return list_runs(args)


def _show(args: argparse.Namespace) -> int:
    from ..runs import show_run

    return show_run(args)


def _resume(args: argparse.Namespace) -> int:
    from ..resume import resume_run

    return resume_run(args)


def _cancel(args: argparse.Namespace) -> int:
    from ..runs import cancel_run

    return cancel_run(args)


def _prune(args: argparse.Namespace) -> int:
    from ..runs import prune_runs

    return prune_runs(args)


def _workers(args: argparse.Namespace) -> int:
    from ..runs import list_workers

    return list_workers(args)
