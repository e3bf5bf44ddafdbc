"""The arguments of `worker`."""

from __future__ import annotations

import argparse

from ..options import number
from ..parser import Parser

_LIMITS = (
    (("--rpm",), "requests"),
    (("--input-tpm", "--tpm"), "input tokens"),
    (("--output-tpm",), "output tokens"),
)


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    url = (
        "Postgres of the durable runs; better in CLAUDE_FORCE_DATABASE_URL, as others can see a command line"
    )
    parser.add_argument("--database", metavar="URL", help=url)
    concurrency = "requests on the wire at one time (default 10)"
    parser.add_argument("--concurrency", type=int, metavar="N", default=10, help=concurrency)
    name = (
        "the same after each restart, and no other worker's (default: the first free of HOST-1, HOST-2 ...)"
    )
    parser.add_argument("--name", metavar="ID", help=name)
    for options, what in _LIMITS:
        text = f"{what} a minute that all workers keep together"
        parser.add_argument(*options, type=number, metavar="N", help=text)
    grace = "seconds that a worker which is told to stop has for what is on the wire (default 30)"
    parser.add_argument("--grace", type=int, metavar="S", default=30, help=grace)
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(args: argparse.Namespace) -> int:
    from ..worker import work

    return work(args)
