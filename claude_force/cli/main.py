"""The command line: how it is read, how it ends, and its exit codes.

Nothing heavy is imported here: `--help` must not wait for the SDK, YAML or asyncio.
"""

from __future__ import annotations

import argparse
import gc
import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Iterator, List, Optional, Sequence

from .. import __version__, settings
from ..errors import CacheError, ClaudeForceError, InputError, InvalidWorkflowError
from . import signals, streams
from .arguments import VERBS, build_parser, option_flags, verbs_with
from .parser import Parser, did_you_mean

_OBJECTS_BETWEEN_COLLECTIONS = 50_000

_HELP = "help"
# Verbs whose `--format json` is `--json`.
_WITH_FORMAT = ("info", "list", "run")
_API_KEY = "--api-key"
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs one command. Returns 0 done, 1 the agent failed, 2 usage, 130 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    streams.prepare_streams()
    with _own_process() if argv is None else nullcontext(), settings.credentials_restored():
        try:
            return streams.finish(_written(given, _asks_for_json(given)))
        except KeyboardInterrupt:
            # Once more, while it was told of the first, or of how it ended.
            streams.give_up_where_stuck()
            return INTERRUPTED


@contextmanager
def _own_process() -> Iterator[None]:
    """For a process that ends with its command."""
    # What is imported stays: an eighth of a short command's time went into a search for garbage in it.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    signals.end_by_sigterm()
    yield
    signals.leave_to_the_system()
    # What is left goes with the process.
    gc.freeze()


def _asks_for_json(given: Sequence[str]) -> bool:
    """Whether errors are to be JSON too, also those of a command line that can't be parsed."""
    verb = next((word for word in given if word in VERBS), "")
    pairs = zip(given, given[1:])
    by_format = "--format=json" in given or ("--format", "json") in pairs
    return "--json" in given or (by_format and verb in _WITH_FORMAT)


def _written(given: List[str], as_json: bool) -> int:
    try:
        return _guarded(given, as_json)
    except streams.StdoutError as error:
        streams.error(str(error), json=False)
        return FAILED


def _guarded(given: List[str], as_json: bool) -> int:
    try:
        if given[:1] == ["__complete"]:
            return _complete(given[1:])
        return _carry_out(parse(given))
    except SystemExit as end:  # argparse, after --help and --version
        return int(end.code or DONE)
    except InvalidWorkflowError as error:
        streams.error(str(error).partition("\n")[0], as_json, error.faults)
        return USAGE
    except (InputError, CacheError) as error:
        streams.error(error.for_shell(), as_json)
        return USAGE
    except ClaudeForceError as error:
        streams.error(error.for_shell(), as_json)
        return FAILED
    except streams.StdoutError:
        raise
    except KeyboardInterrupt:
        streams.give_up_where_stuck()
        streams.error("interrupted", as_json)
        return INTERRUPTED
    except Exception as error:
        if _is_unsafe_path(error):
            streams.error(str(error), as_json)
            return USAGE
        streams.error(f"{type(error).__name__}: {error} (-v shows where)", as_json)
        return FAILED


def _is_unsafe_path(error: Exception) -> bool:
    # Not above: `--help` opens no file.
    from ..storage.private_files import UnsafePathError

    return isinstance(error, UnsafePathError)


def _carry_out(args: argparse.Namespace) -> int:
    from .logs import logging_to_stderr

    if args.quiet and args.verbose:
        raise InputError("--quiet and --verbose exclude each other: leave one out.")
    streams.be_quiet(args.quiet)
    key = vars(args).pop("api_key", None)
    if key is not None:
        settings.use_api_key(key)
        streams.warn(
            f"{_API_KEY} shows the key to everyone who can list processes; set ANTHROPIC_API_KEY instead"
        )
    with logging_to_stderr(args.verbose):
        code: int = args.carry_out(args)
        return code


def _complete(words: List[str]) -> int:
    from .completion import complete

    return complete(build_parser(__version__), words)


def parse(given: List[str]) -> argparse.Namespace:
    """What a command line says, with `carry_out` to be called with it. Raises InputError."""
    # Where the verb comes first, nothing that follows can have to do with another one.
    verbs = given[:1] if given and given[0] in VERBS else VERBS
    parser = build_parser(__version__, verbs)
    if not given or given[0] == _HELP:
        return argparse.Namespace(carry_out=partial(_help, parser, given[1:]), quiet=False, verbose=False)
    stray = parser.stray_option(given)
    if stray is not None:
        stray[0].unknown([stray[1]], verbs_with, option_flags())
    args, rest = parser.parse_known_args(given)
    chosen: Parser = getattr(args, "parser", parser)
    args.words = list(_without_key(given))
    # As an optional positional, argparse would lose the "-" that stands after an option.
    args.stdin = list(rest) == ["-"] and hasattr(args, "task_file")
    if rest and not args.stdin:
        chosen.unknown(rest, verbs_with)
    if not hasattr(args, "carry_out"):
        chosen.error(f"say what to do: {', '.join(chosen.kinds)}")
    return args


def _without_key(given: Sequence[str]) -> Iterator[str]:
    """A command line as it may be noted down."""
    words = iter(given)
    for word in words:
        if word == _API_KEY:
            next(words, None)
        elif not word.startswith(f"{_API_KEY}="):
            yield word


def _help(parser: Parser, words: Sequence[str], _: argparse.Namespace) -> int:
    """`help [VERB [KIND]]`, and the bare command."""
    for word in words:
        if word not in parser.kinds:
            hint = did_you_mean(word, parser.kinds) or f"; choose from {', '.join(parser.kinds)}"
            raise InputError(f"{parser.prog} has no {word!r}{hint if parser.kinds else ''}")
        parser = parser.kinds[word].filled()
    parser.print_help()
    return DONE
