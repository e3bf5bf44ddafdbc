"""The arguments of `completion`."""

from __future__ import annotations

import argparse

from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..completion import show_script

    return show_script(args)
