"""The arguments of `workflow show`."""

from __future__ import annotations

import argparse

from ..options import add_name
from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    kinds = parser.add_kinds("what")
    kinds.add("show", "Show the steps of a workflow and its faults. Exit code 1 if it has any.", _add_show)


def _add_show(parser: Parser) -> None:
    add_name(parser, "workflows")
    form = "as lines, as a Mermaid flowchart or for Graphviz (text)"
    parser.add_argument("--format", choices=["text", "mermaid", "dot"], default="text", help=form)
    parser.set_defaults(carry_out=_show)


def _show(args: argparse.Namespace) -> int:
    from ..workflow import show_workflow

    return show_workflow(args)
