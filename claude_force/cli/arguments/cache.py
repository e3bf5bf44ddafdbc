"""The arguments of `cache stats|clear|verify|explain`."""

from __future__ import annotations

import argparse

from ..options import TASK_HELP, add_call_options, add_name, add_task
from ..parser import Parser


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    parser.set_defaults(carry_out=_carry_out)
    kinds = parser.add_kinds("what")
    kinds.add("stats", "Show what is kept.", _add_dir)
    kinds.add("clear", "Remove all answers, or those of one agent.", _add_clear)
    kinds.add("verify", "Check every signature. Exit code 1 if one does not hold.", _add_verify)
    kinds.add("explain", "Say why an answer is found or not. Sends nothing.", _add_explain, epilog=TASK_HELP)


def _add_dir(parser: Parser) -> None:
    parser.add_argument("--dir", metavar="PATH", help="folder of the cache (~/.claude/cache)")
    parser.values["dir"] = "folders"


def _add_clear(parser: Parser) -> None:
    parser.add_argument("--agent", metavar="NAME", help="only the answers of this agent")
    parser.values["agent"] = "agents"
    _add_dir(parser)


def _add_verify(parser: Parser) -> None:
    parser.add_argument("--remove", action="store_true", help="remove what does not hold")
    _add_dir(parser)


def _add_explain(parser: Parser) -> None:
    add_name(parser, "agents")
    add_task(parser)
    add_call_options(parser)
    _add_dir(parser)


def _carry_out(args: argparse.Namespace) -> int:
    from ..cache import show_cache

    return show_cache(args)
