"""Reads a command line: finds its verb, then parses the rest with that verb's options alone.

Building the parsers of all verbs would take most of the time of a short command.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from itertools import islice
from typing import Any, Dict, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple

from .. import settings
from . import streams
from .arguments import GROUPS, OPTIONS, OTHER, Option, did_you_mean
from .verbs import PROGRAM, ROOT, Verb, verbs_with

# Verbs of 1.x, each with what to do instead.
_OWN_FILES = "copy the agent's file into .claude/agents"
_NO_SUCCESSOR = "it has no successor"
REMOVED: Mapping[str, str] = {
    "analyze": "use `metrics agents`, which compares agents by what they did",
    "analyze-task": "use `list agents` to choose an agent, and --estimate for the cost",
    "compose": "write the workflow into claude.json, and look at it with `workflow show`",
    "contribute": _NO_SUCCESSOR,
    "diagnose": "use `doctor`",
    "export": _OWN_FILES,
    "gallery": "use `init`, which writes sample agents",
    "import": _OWN_FILES,
    "import-bulk": _OWN_FILES,
    "marketplace": _OWN_FILES,
    "pick-agent": _OWN_FILES,
    "recommend": "use `list agents` to choose an agent",
    "restructure": _NO_SUCCESSOR,
    "review": "use `doctor`, which names every file that can't be used",
    "setup": "use `init`, then `doctor`",
    "shell": "use `completion`, which lets your own shell complete commands",
}

_HELP_FLAGS, _VERSION_FLAG, _API_KEY = ("-h", "--help"), "--version", "--api-key"
_MARGIN, _DEFAULT_COLUMNS = 2, 80
# Where the help of an option begins.
_HELP_COLUMN = 28

VerbPath = Tuple[str, ...]


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parses a command line.

    Returns:
        The values of the verb's options, with `verb`, its name such as "run agent"; `handler`, the
        "module:function" that runs it; `words`, the command line without a key; `stdin`, whether a "-" stands
        for the task; `version`, whether the version is asked for.

    Raises:
        InputError: the words are not a command line of this program.
    """
    path, verb, others = _split(words)
    parser = build_parser(path, verb)
    args, rest = parser.parse_known_args(others)
    # As an optional positional, argparse would lose the "-" that stands after an option.
    args.stdin = list(rest) == ["-"] and hasattr(args, "task_file")
    if rest and not args.stdin:
        _reject(parser, verb, rest)
    args.version = verb is ROOT and args.version
    if not (verb.handler or args.version):
        parser.error(f"say what to do: {', '.join(verb.kinds)}")
    args.verb, args.handler, args.words = " ".join(path), verb.handler, list(_without_key(words))
    return args


def _split(words: Sequence[str]) -> Tuple[VerbPath, Verb, List[str]]:
    """Returns the names of the verb, the verb, and all other words. Raises InputError.

    Only common options may stand before the verb: the value of another one would be taken for the verb.
    """
    path: VerbPath = ()
    verb, others = ROOT, []
    rest = iter(words)
    for word in rest:
        if not verb.kinds:
            others.append(word)
        elif not word.startswith("-"):
            path, verb = choose(path, verb, word)
        else:
            others.append(word)
            # "-qv" is "-q -v".
            flag = word.partition("=")[0] if word.startswith("--") else word[:2]
            if flag in _HELP_FLAGS or (flag == _VERSION_FLAG and verb is ROOT):
                break
            option = next((one for one in verb.options if flag in one.flags), None)
            if option is None:
                _reject(build_parser(path, verb), verb, [word])
            if option.metavar and "=" not in word:
                others.extend(islice(rest, 1))
    return path, verb, [*others, *rest]


def choose(path: VerbPath, verb: Verb, word: str) -> Tuple[VerbPath, Verb]:
    """Returns the verb that `word` names below `verb`, whose name is `path`. Raises InputError."""
    if word in verb.kinds:
        return (*path, word), verb.kinds[word]
    from ..errors import InputError

    name = " ".join((PROGRAM, *path))
    if verb is ROOT and word in REMOVED:
        raise InputError(f"there is no {word!r} since 2.0: {REMOVED[word]} (see {name} --help)")
    hint = did_you_mean(word, verb.kinds) or f"; choose from {', '.join(verb.kinds)}"
    raise InputError(f"{name} has no {word!r}{hint if verb.kinds else ''}")


def _reject(parser: Parser, verb: Verb, words: Sequence[str]) -> NoReturn:
    """Raises InputError for arguments that the verb doesn't take, with what the first may have meant."""
    option = words[0].partition("=")[0]
    if not option.startswith("-"):
        hint = f"; a task is given as --task {words[0]!r}" if "--task" in verb.flags else ""
        parser.error(f"unexpected argument {words[0]!r}{hint}")
    verbs = verbs_with(option)
    if verbs:
        text = (
            f"{parser.prog} has no option {option}; {_join(verbs)} {'have' if len(verbs) > 1 else 'has'} it"
        )
        parser.error(f"{text}: write it after the verb" if verb.kinds else text)
    flags = [flag for one in OPTIONS.values() for flag in one.flags] if verb.kinds else verb.flags
    known = {flag.lstrip("-"): flag for flag in (*_HELP_FLAGS, *flags)}
    hint = did_you_mean(option.lstrip("-"), known, known.__getitem__)
    parser.error(f"{parser.prog} has no option {option}{hint}")


def _join(words: Sequence[str]) -> str:
    """Returns "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _without_key(words: Sequence[str]) -> Iterator[str]:
    """Yields the words of a command line that may be written down."""
    rest = iter(words)
    for word in rest:
        if word == _API_KEY:
            next(rest, None)
        elif not word.startswith(f"{_API_KEY}="):
            yield word


class Parser(argparse.ArgumentParser):
    """The parser of one verb. Usage errors are exceptions, so that all errors end a command the same way."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        formatter: Any = partial(
            argparse.RawDescriptionHelpFormatter, width=_columns(), max_help_position=_HELP_COLUMN
        )
        super().__init__(
            prog=prog, description=description, epilog=epilog, allow_abbrev=False, formatter_class=formatter
        )

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        from ..errors import InputError

        raise InputError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        """Returns the help, as wide as the terminal."""
        self.description, self.epilog = _wrapped(self.description), _wrapped(self.epilog)
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """Writes the help to stdout. Raises StdoutError, where argparse would ignore a full disk."""
        streams.write_chunk(self.format_help())


def build_parser(path: VerbPath, verb: Verb) -> Parser:
    """Returns the parser of the verb that `path` names."""
    parser = Parser(" ".join((PROGRAM, *path)), verb.summary, _epilog(verb))
    if verb is ROOT:
        parser.add_argument(_VERSION_FLAG, action="store_true", help="show program's version number and exit")
    if verb.kinds:
        metavar = "VERB" if verb is ROOT else f"{{{','.join(verb.kinds)}}}"
        # For the help alone: `_split` has found the verb.
        kinds: Any = parser.add_subparsers(metavar=metavar, prog=parser.prog, parser_class=_Unused)
        for name, kind in verb.kinds.items():
            kinds.add_parser(name, help=kind.summary)
    for title in GROUPS:
        _add_group(parser, title, [one for one in verb.options if one.group == title])
    return parser


class _Unused:
    """Stands for the parser of a verb where only the verb's name and summary are shown."""

    def __init__(self, **_: Any) -> None:
        pass


def _add_group(parser: Parser, title: str, options: Sequence[Option]) -> None:
    if not options:
        return
    group: Any = parser if title == OTHER else parser.add_argument_group(title)
    exclusive: Dict[str, Any] = {}
    for one in options:
        place = group
        if one.excludes:
            place = exclusive.get(one.excludes) or group.add_mutually_exclusive_group()
            exclusive[one.excludes] = place
        # argparse takes % for its own formats.
        arguments = {**one.argparse_arguments, "help": one.help.replace("%", "%%")}
        if one.metavar:
            arguments["metavar"] = one.metavar
        else:
            arguments["action"] = "store_true"
        names = one.flags or (arguments.pop("dest"),)
        place.add_argument(*names, **arguments)


def _epilog(verb: Verb) -> str:
    lines = [f"  {'' if PROGRAM in one else PROGRAM + ' '}{one}" for one in verb.examples]
    examples = ["\n".join(["examples:", *lines])] if lines else []
    return "\n\n".join([*([verb.notes] if verb.notes else []), *examples])


def _columns() -> int:
    try:
        columns = settings.columns() or os.get_terminal_size(1).columns
    except OSError:
        columns = 0
    return (columns or _DEFAULT_COLUMNS) - _MARGIN


def _wrapped(text: Optional[str]) -> str:
    """Returns `text` with its paragraphs wrapped, except those of several lines, such as examples."""
    import textwrap

    paragraphs = (text or "").split("\n\n")
    return "\n\n".join(one if "\n" in one else textwrap.fill(one, _columns()) for one in paragraphs)
