"""Runs a command line: errors, exit codes and what is set up for the process.

Nothing heavy is imported here: `--help` must not wait for the SDK, YAML or asyncio.
"""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Iterator, List, Optional, Sequence

from .. import __version__, settings
from ..errors import CacheError, ClaudeForceError, InputError, InvalidWorkflowError
from . import signals, streams
from .parser import VerbPath, build_parser, choose, parse
from .verbs import PROGRAM, ROOT, VERBS

_OBJECTS_BETWEEN_COLLECTIONS = 50_000

# Verbs with a `--format json` that is `--json`.
_WITH_FORMAT = ("info", "list", "run")
DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs one command.

    Args:
        argv: the words after the program's name; None for those that the process was started with.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong input, 3 some rows of `run many` failed, 4 its budget is used
        up, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    streams.prepare_streams()
    with _own_process() if argv is None else nullcontext(), settings.credentials_restored():
        try:
            return streams.flush(_run_with_stdout(words, _asks_for_json(words)))
        except KeyboardInterrupt:
            # A second Ctrl-C, while the first or the end of the command was reported.
            streams.discard_blocked_stdout()
            return INTERRUPTED


@contextmanager
def _own_process() -> Iterator[None]:
    """Sets up a process that ends with its command."""
    # Imported modules stay: searching them for garbage took an eighth of a short command's time.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    signals.handle_termination()
    yield
    signals.restore_defaults()
    # The process ends: no object needs to be freed.
    gc.freeze()


def _asks_for_json(words: Sequence[str]) -> bool:
    """Returns whether errors are to be JSON, also those of a command line that can't be parsed."""
    verb = next((word for word in words if word in VERBS), "")
    has_format = "--format=json" in words or ("--format", "json") in zip(words, words[1:])
    return "--json" in words or (has_format and verb in _WITH_FORMAT)


def _run_with_stdout(words: List[str], as_json: bool) -> int:
    try:
        return _run_reporting_errors(words, as_json)
    except streams.StdoutError as error:
        streams.error(str(error), json=False)
        return FAILED


def _run_reporting_errors(words: List[str], as_json: bool) -> int:
    try:
        return _run(words)
    except SystemExit as end:  # argparse, after --help
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
        streams.discard_blocked_stdout()
        streams.error("interrupted", as_json)
        return INTERRUPTED
    except Exception as error:
        if _is_unsafe_path(error):
            streams.error(str(error), as_json)
            return USAGE
        streams.error(f"{type(error).__name__}: {error} (-v shows where)", as_json)
        return FAILED


def _is_unsafe_path(error: Exception) -> bool:
    # Imported here: `--help` opens no file.
    from ..storage.private_files import UnsafePathError

    return isinstance(error, UnsafePathError)


def _run(words: List[str]) -> int:
    if words[:1] == ["__complete"]:
        from .completion import complete

        return complete(words[1:])
    if words[:1] == ["help"] or not words:
        return _show_help(words[1:])
    args = parse(words)
    if args.version:
        streams.write_line(f"{PROGRAM} {__version__}")
        return DONE
    from .logs import logging_to_stderr

    if args.quiet and args.verbose:
        raise InputError("--quiet and --verbose exclude each other: leave one out.")
    streams.set_quiet(args.quiet)
    if args.api_key is not None:
        settings.use_api_key(args.api_key)
        streams.warn(
            "--api-key shows the key to everyone who can list processes; set ANTHROPIC_API_KEY instead"
        )
        del args.api_key
    module, _, function = args.handler.partition(":")
    with logging_to_stderr(args.verbose):
        code: int = getattr(import_module(f"{__package__}.{module}"), function)(args)
        return code


def _show_help(words: Sequence[str]) -> int:
    """Prints the help of `help [VERB [KIND]]`, and of the bare command."""
    path: VerbPath = ()
    verb = ROOT
    for word in words:
        path, verb = choose(path, verb, word)
    build_parser(path, verb).print_help()
    return DONE
