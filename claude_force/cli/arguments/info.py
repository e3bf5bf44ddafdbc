"""The arguments of `info`."""

from __future__ import annotations

import argparse

from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..agents import show_info

    return show_info(args)
