"""The arguments of `init`."""

from __future__ import annotations

import argparse

from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="of the project (the working directory)")
    parser.values["folder"] = "folders"
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..init import init

    return init(args)
