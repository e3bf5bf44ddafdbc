"""Makes parsers of the tables."""

from __future__ import annotations

import argparse
from functools import partial
from importlib import import_module
from typing import Any, Dict, Iterable, List

from ..parser import Parser, add_common
from .options import GROUPS, OPTIONS, OTHER, Option
from .verbs import VERBS, Verb, walk

_PROGRAM = "claude-force"


def build_parser(version: str, names: Iterable[str] = VERBS) -> Parser:
    """The parser of the whole command. Of the verbs, only those in `names` get one."""
    parser = Parser(
        prog=_PROGRAM,
        description="Run a fleet of Claude agents from the shell.",
        epilog=_epilog(
            "Exit codes: 0 done, 1 an agent failed, 2 wrong input, 130 stopped; `run many` has more.",
            (
                "init",
                'run agent code-reviewer --task "Review: def f(): pass"',
                "run many tasks.jsonl -o results.jsonl",
                "help run many",
            ),
        ),
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {version}")
    add_common(parser)
    parser.set_defaults(json=False, config=None, model=None, quiet=False, verbose=False)
    kinds = parser.add_kinds("verb", metavar="VERB")
    for name in names:
        verb = VERBS[name]
        kinds.add(name, verb.summary, partial(_fill, verb), _epilog(verb.notes, verb.examples))
    return parser


def _fill(verb: Verb, parser: Parser) -> None:
    """Gives a verb's parser its arguments, right before they are needed."""
    if verb.kinds:
        kinds = parser.add_kinds(verb.dest)
        for name, kind in verb.kinds.items():
            kinds.add(name, kind.summary, partial(_fill, kind), _epilog(kind.notes, kind.examples))
        return
    options = {name: OPTIONS[name] for name in verb.options.split()}
    for title in GROUPS:
        _add_group(parser, title, [one for one in options.values() if one.group == title])
    parser.set_defaults(carry_out=partial(_carry_out, verb.handler))


def _add_group(parser: Parser, title: str, options: List[Option]) -> None:
    if not options:
        return
    group: Any = parser if title == OTHER else parser.add_argument_group(title)
    exclusive: Dict[str, Any] = {}
    for one in options:
        place = group
        if one.excludes:
            place = exclusive.setdefault(one.excludes, None) or group.add_mutually_exclusive_group()
            exclusive[one.excludes] = place
        # argparse takes % for its own formats.
        action = place.add_argument(*one.flags, help=one.text().replace("%", "%%"), **one.settings)
        if one.values:
            parser.values[action.dest] = one.values


def _epilog(notes: str, examples: Iterable[str]) -> str:
    lines = [f"  {'' if _PROGRAM in one else _PROGRAM + ' '}{one}" for one in examples]
    paragraphs = [notes] if notes else []
    return "\n\n".join([*paragraphs, *(["\n".join(["examples:", *lines])] if lines else [])])


def _carry_out(handler: str, args: argparse.Namespace) -> int:
    module, _, name = handler.partition(":")
    run = getattr(import_module(f"{__package__.rpartition('.')[0]}.{module}"), name)
    code: int = run(args)
    return code


def option_flags() -> List[str]:
    """The spellings of all options of all verbs."""
    return [flag for one in OPTIONS.values() for flag in one.flags if flag.startswith("-")]


def verbs_with(flag: str) -> List[str]:
    """The verbs that have an option of this spelling, such as "--budget"."""
    return [
        name for name, verb in walk(VERBS) if any(flag in OPTIONS[one].flags for one in verb.options.split())
    ]
