"""The command line: its arguments, its exit codes, and which module carries out which verb.

Nothing heavy is imported here: `--help` must not wait for the SDK, YAML or asyncio.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, List, NoReturn, Optional, Sequence

from .. import __version__
from ..errors import CacheError, InputError
from . import streams

_MANY_HELP = (
    "A row has a task and an agent; its other fields are carried through to the results. Exit code 0: all "
    "rows succeeded, 3: some failed, 4: the budget ended it, 130: stopped."
)

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_TASK_HELP = "The task is --task TEXT, --task-file FILE, or standard input (a pipe, or - for it by name)."


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs one command. Returns 0 done, 1 the agent failed, 2 usage, 130 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    streams.prepare_streams()
    return streams.finish(_guarded(given, as_json="--json" in given))


def _guarded(given: List[str], as_json: bool) -> int:
    try:
        return _carry_out(_parse(given))
    except SystemExit as end:  # argparse, after --help and --version
        return int(end.code or DONE)
    except (InputError, CacheError) as error:
        streams.error(str(error), as_json)
        return USAGE
    except KeyboardInterrupt:
        streams.error("interrupted", as_json)
        return INTERRUPTED
    except Exception as error:
        streams.error(f"{type(error).__name__}: {error} (-v shows where)", as_json)
        return FAILED


def _carry_out(args: argparse.Namespace) -> int:
    from .logs import logging_to_stderr

    with logging_to_stderr(args.verbose):
        return _dispatch(args)


def _dispatch(args: argparse.Namespace) -> int:
    if args.verb == "demo":
        from .demo import demo

        return demo(args)
    if args.verb == "cache":
        from .cache import show_cache

        return show_cache(args)
    if args.verb == "run":
        if args.kind == "many":
            from .many import run_many

            return run_many(args)
        from .run import run_agent, run_workflow

        return run_agent(args) if args.kind == "agent" else run_workflow(args)
    from .agents import show_info, show_list

    return show_info(args) if args.verb == "info" else show_list(args)


class _Parser(argparse.ArgumentParser):
    """Reports usage errors as an exception, so that they take the same way out as all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def _parse(given: List[str]) -> argparse.Namespace:
    parser = _parser()
    args, rest = parser.parse_known_args(given)
    # As an optional positional, argparse would lose the "-" that stands after an option.
    args.stdin = rest == ["-"] and hasattr(args, "task_file")
    if rest and not args.stdin:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="claude-force", description="Run a fleet of Claude agents from the shell.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"claude-force {__version__}")
    _common(parser)
    parser.set_defaults(json=False, config=None, verbose=False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_list(verbs)
    _add_info(verbs)
    _add_run(verbs)
    _add_cache(verbs)
    _add_demo(verbs)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    # Without a default of its own, an option left out after the verb doesn't undo one before it.
    options = parser.add_argument_group("common options")
    absent = argparse.SUPPRESS
    options.add_argument("--json", action="store_true", default=absent, help="print JSON, and only JSON")
    options.add_argument("--config", metavar="PATH", default=absent, help="claude.json of the project")
    options.add_argument("-v", "--verbose", action="store_true", default=absent, help="log to stderr")


def _verb(verbs: Any, name: str, summary: str, **more: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary, allow_abbrev=False, **more
    )
    _common(parser)
    return parser


def _add_list(verbs: Any) -> None:
    parser = _verb(verbs, "list", "List the project's agents or workflows.")
    parser.add_argument("what", choices=["agents", "workflows"])


def _add_info(verbs: Any) -> None:
    parser = _verb(verbs, "info", "Show what is known of one agent.")
    parser.add_argument("name", metavar="NAME")


def _add_run(verbs: Any) -> None:
    kinds = _verb(verbs, "run", "Run an agent, a workflow, or many tasks.").add_subparsers(
        dest="kind", metavar="{agent,workflow,many}", required=True
    )
    agent = _verb(kinds, "agent", "Run one agent on one task.", epilog=_TASK_HELP)
    workflow = _verb(kinds, "workflow", "Run a workflow's agents in turn.", epilog=_TASK_HELP)
    for parser in (agent, workflow):
        parser.add_argument("name", metavar="NAME")
        _add_run_options(parser)
        parser.add_argument(
            "--cache", choices=["use", "refresh", "off"], default="use", help="kept answers (use)"
        )
    workflow.add_argument(
        "--no-pass-output", action="store_true", help="give each agent the task alone, not the answer before"
    )

    _add_many(kinds)


def _add_many(kinds: Any) -> None:
    parser = _verb(
        kinds,
        "many",
        "Run a file of tasks, or files as tasks; resumes where it was ended.",
        epilog=_MANY_HELP,
    )
    add = parser.add_argument
    add("tasks", nargs="?", metavar="TASKS", help=".jsonl, .csv, .tsv, .json or .txt")
    add("-o", "--output", metavar="RESULTS", help="JSON lines; the same command resumes it")
    add("--agent", metavar="NAME", help="for rows that name none")
    add("--files", nargs="+", metavar="PATTERN", help="a row for each file, such as 'src/**/*.py'")
    add("--task", metavar="TEXT", help="with --files: what is to be done with each file")
    add("--retry-failed", action="store_true", help="take the rows that failed again")
    add("--no-resume", action="store_true", help="start over: the results that the output holds are dropped")
    add("--limit", type=int, metavar="N", help="only the first N rows")
    add(
        "--budget",
        type=_number,
        metavar="USD",
        help="hard cap on what the output costs, earlier runs included",
    )
    add("--estimate", action="store_true", help="say what it would use and cost, and send nothing")
    add(
        "--price",
        action="append",
        metavar="MODEL=IN,OUT",
        help="USD per million tokens, where no list has it",
    )
    add("--rpm", type=_number, metavar="N", help="requests a minute, below what the server allows")
    add("--tpm", type=_number, metavar="N", help="input tokens a minute, likewise")
    add("--output-tpm", type=_number, metavar="N", help="output tokens a minute, likewise")
    add("--cache-ttl", choices=["5m", "1h"], help="life of the API's prompt cache (5m)")
    add(
        "--grace", type=_number, default=30.0, metavar="S", help="what is in flight may end after Ctrl-C (30)"
    )
    add("--cache", choices=["use", "refresh", "off"], default="use", help="kept answers (use)")
    _add_call_options(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--task", metavar="TEXT", help="the task itself")
    task.add_argument("--task-file", metavar="FILE", help="a UTF-8 file that holds the task")
    _add_call_options(parser)


def _add_call_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help="opus, sonnet, haiku or a full model id")
    add("--max-tokens", type=int, metavar="N", help="longest answer, in tokens")
    add("--temperature", type=_number, metavar="X", help="where the model and the SDK still take it")
    add("--timeout", type=_number, metavar="S", help="longest silence of the server, in seconds")
    add("--deadline", type=_number, metavar="S", help="bound of a whole call with its retries, in seconds")
    add("--max-retries", type=int, metavar="N", help="attempts per call, the first among them")
    add("--max-concurrent", type=_concurrent, metavar="N", help="attempts on the wire at one time, or auto")
    add("--no-stream", action="store_true", help="ask for each answer in one piece")


def _concurrent(text: str) -> Any:
    return text if text == "auto" else int(text)


_concurrent.__name__ = "number of attempts"  # argparse names it in its message


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0:  # nan, inf
        raise ValueError(text)
    return value


_number.__name__ = "number"  # argparse names it in its message


def _add_cache(verbs: Any) -> None:
    kinds = _verb(verbs, "cache", "Look after the answers that are kept.").add_subparsers(
        dest="what", metavar="{stats,clear,verify,explain}", required=True
    )
    stats = _verb(kinds, "stats", "Show what is kept.")
    clear = _verb(kinds, "clear", "Remove all answers, or those of one agent.")
    clear.add_argument("--agent", metavar="NAME", help="only the answers of this agent")
    verify = _verb(kinds, "verify", "Check every signature. Exit code 1 if one does not hold.")
    verify.add_argument("--remove", action="store_true", help="remove what does not hold")
    explain = _verb(kinds, "explain", "Say why an answer is found or not. Sends nothing.", epilog=_TASK_HELP)
    explain.add_argument("name", metavar="NAME")
    _add_run_options(explain)
    for parser in (stats, clear, verify, explain):
        parser.add_argument("--dir", metavar="PATH", help="folder of the cache (~/.claude/cache)")


def _add_demo(verbs: Any) -> None:
    parser = _verb(verbs, "demo", "Measure three agents, one by one and at once. Needs no key.")
    parser.add_argument("--live", action="store_true", help="use the real API and pay for it")
    parser.add_argument("--calls", type=int, default=10, metavar="N", help="calls in the last run (10)")
