"""The arguments of `info`."""

from __future__ import annotations

import argparse

from ..options import add_name
from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    add_name(parser, "names")
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..agents import show_info

    return show_info(args)
