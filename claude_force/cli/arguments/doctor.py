"""The arguments of `doctor`."""

from __future__ import annotations

import argparse

from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--offline", action="store_true", help="ask nothing of the endpoint")
    send = "also send a request of a few tokens, which is paid for: its answer tells the limits"
    how.add_argument("--send", action="store_true", help=send)
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..doctor import doctor

    return doctor(args)
