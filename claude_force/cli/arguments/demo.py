"""The arguments of `demo`."""

from __future__ import annotations

import argparse

from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    parser.add_argument("--live", action="store_true", help="use the real API and pay for it")
    parser.add_argument("--calls", type=int, default=10, metavar="N", help="calls in the last run (10)")
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..demo import demo

    return demo(args)
