"""The arguments of `run agent|workflow|many`."""

from __future__ import annotations

import argparse

from ..options import (
    TASK_HELP,
    add_cache_policy,
    add_call_options,
    add_database,
    add_name,
    add_task,
    number,
)
from ..parser import Parser

_MANY_HELP = (
    "A row has a task and an agent; its other fields are carried through to the results. Exit code 0: all "
    "rows succeeded, 3: some failed, 4: the budget ended it, 130: stopped."
)
_DATABASE = "let workers make the calls, over this database"


def add(parser: Parser) -> None:
    """Gives `parser` the verb's arguments."""
    kinds = parser.add_kinds("kind")
    kinds.add("agent", "Run one agent on one task.", _add_agent, epilog=TASK_HELP)
    workflow = "Run a workflow, each step as soon as it can; resumes with --resume."
    kinds.add("workflow", workflow, _add_workflow, epilog=TASK_HELP)
    kinds.add(
        "many",
        "Run a file of tasks, or files as tasks; resumes where it was ended.",
        _add_many,
        epilog=_MANY_HELP,
    )


def _add_agent(parser: Parser) -> None:
    _add_one(parser, "agents")
    add_call_options(parser)
    add_cache_policy(parser)
    parser.set_defaults(carry_out=_run_agent)


def _add_workflow(parser: Parser) -> None:
    _add_one(parser, "workflows")
    add = parser.add_argument
    add("--input", action="append", metavar="NAME=TEXT", help="a value that tasks name; may be repeated")
    add("--inputs", metavar="FILE", help="a JSON object of such values, lists among them")
    add("--plan", action="store_true", help="send nothing: show the order of the steps and the cost")
    add("--resume", metavar="RUN", help="go on with a run: only what is missing is asked and paid for")
    add_workflow_options(parser)
    parser.values["inputs"] = "files"
    parser.set_defaults(carry_out=_run_workflow)


def add_workflow_options(parser: Parser) -> None:
    """What holds for a run of a workflow, a new one or one that is resumed."""
    add = parser.add_argument
    add("--no-pass-output", action="store_true", help="give agents the task alone, not the answers before")
    add("--fail-fast", action="store_true", default=None, help="begin no further step after a failure")
    add("--budget", type=number, metavar="USD", help="hard cap on what this command spends")
    add("--price", action="append", metavar="MODEL=IN,OUT", help="USD per million tokens; may be repeated")
    add_database(parser, _DATABASE)
    add_call_options(parser)
    add_cache_policy(parser)


def _add_one(parser: Parser, of: str) -> None:
    add_name(parser, of)
    add_task(parser)


def _add_many(parser: Parser) -> None:
    _add_rows(parser)
    _add_bounds(parser)
    add_database(parser, _DATABASE)
    add_cache_policy(parser)
    add_call_options(parser)
    parser.set_defaults(carry_out=_run_many)


def _add_rows(parser: Parser) -> None:
    add = parser.add_argument
    add("tasks", nargs="?", metavar="TASKS", help=".jsonl, .csv, .tsv, .json or .txt")
    add("-o", "--output", metavar="RESULTS", help="JSON lines; the same command resumes it")
    add("--agent", metavar="NAME", help="for rows that name none")
    add("--files", nargs="+", metavar="PATTERN", help="a row for each file, such as 'src/**/*.py'")
    add("--task", metavar="TEXT", help="with --files: what is to be done with each file")
    add("--retry-failed", action="store_true", help="take the rows that failed again")
    add("--no-resume", action="store_true", help="start over: the results that the output holds are dropped")
    add("--limit", type=int, metavar="N", help="only the first N rows")
    parser.values.update(tasks="files", output="files", files="files", agent="agents")


def _add_bounds(parser: Parser) -> None:
    add, most = parser.add_argument, "hard cap on what the output costs, earlier runs included"
    add("--budget", type=number, metavar="USD", help=most)
    add("--estimate", action="store_true", help="say what it would use and cost, and send nothing")
    price = "USD per million tokens, where no list has it; may be repeated"
    add("--price", action="append", metavar="MODEL=IN,OUT", help=price)
    add("--rpm", type=number, metavar="N", help="requests a minute, below what the server allows")
    add("--input-tpm", "--tpm", type=number, metavar="N", help="input tokens a minute, likewise")
    add("--output-tpm", type=number, metavar="N", help="output tokens a minute, likewise")
    add("--cache-ttl", choices=["5m", "1h"], help="life of the API's prompt cache (5m)")
    grace = "what is in flight may end after Ctrl-C (30)"
    add("--grace", type=number, default=30.0, metavar="S", help=grace)


def _run_agent(args: argparse.Namespace) -> int:
    from ..agent import run_agent

    return run_agent(args)


def _run_workflow(args: argparse.Namespace) -> int:
    from ..workflow import run_workflow

    return run_workflow(args)


def _run_many(args: argparse.Namespace) -> int:
    from ..many import run_many

    return run_many(args)
