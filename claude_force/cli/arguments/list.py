"""The arguments of `list`."""

from __future__ import annotations

import argparse

from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    parser.add_argument("what", choices=["agents", "workflows"], metavar="{agents,workflows}")
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..agents import show_list

    return show_list(args)
