"""`run many`: a file of tasks in, results as JSON lines out, resumable."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Iterable, Iterator, Optional

from ..async_orchestrator import AsyncAgentOrchestrator
from ..bulk import (
    STDIN,
    Results,
    ResultsFile,
    ResumableRun,
    SourceFiles,
    StdoutResults,
    TaskFile,
    TaskRow,
    TaskRows,
    spool,
)
from ..errors import InputError
from . import signals, streams
from .bulk_run_index import run_of
from .bulk_runner import BulkRun
from .database import chosen_database, crew_of, driver_database
from .many_report import Ended, exit_code, report
from .options import call_options, check_budget
from .run import engine, show_estimate
from .task import read_task

_STANDARD = "-"
# Files of these kinds can't be written as results end and resumed.
_NO_OUTPUTS = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".parquet")


def run_many(args: argparse.Namespace) -> int:
    """Returns 0 all rows succeeded, 3 some failed, 4 the budget ended it, 130 stopped, 1 nothing works."""
    if args.stdin and args.tasks is None:
        args.tasks, args.stdin = _STANDARD, False
    _check(args)
    with _rows(args) as rows:
        if args.estimate:
            return signals.run(_estimate(args, rows))
        _check_output(args)
        ended = signals.run(_run(args, rows))
    # Not in the loop, where a reader who has stopped would keep Ctrl-C from its end.
    report(args, ended)
    return exit_code(ended.outcome)


def _check(args: argparse.Namespace) -> None:
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit is {args.limit}; it must be a whole number from 1 up.")
    if args.grace < 0:
        raise InputError(f"--grace is {args.grace:g}; it must be a number of seconds from 0 up.")
    check_budget(args.budget)
    if bool(args.tasks) == bool(args.files):
        raise InputError("Give either a file of tasks (- for standard input) or --files PATTERN.")
    if args.files and not args.agent:
        raise InputError("--files needs --agent NAME: the agent that each file is given to.")
    if not args.files and (args.task is not None or args.task_file is not None):
        raise InputError(
            "--task goes with --files, and --task-file too; a file of tasks has a task in each row."
        )


def _check_output(args: argparse.Namespace) -> None:
    """Raises InputError where results can't be written as it is asked."""
    if not args.output:
        raise InputError(
            "No output was named. Add -o RESULTS.jsonl (- for stdout), or --estimate to send nothing."
        )
    suffix = Path(args.output).suffix.lower()
    if suffix in _NO_OUTPUTS:
        name = Path(args.output).with_suffix(".jsonl")
        raise InputError(f"Results can't be written as {suffix}, only as JSON lines: use -o {name}.")
    if args.output != _STANDARD:
        return
    if args.json:
        raise InputError("-o - and --json both write to standard output. Name a file for the results.")
    for option, is_given in (("--retry-failed", args.retry_failed), ("--durable", chosen_database(args))):
        if is_given:
            raise InputError(f"{option} needs results that can be read again. Name a file with -o.")


@contextmanager
def _rows(args: argparse.Namespace) -> Iterator[TaskRows]:
    if args.files:
        task = "" if args.task is None and args.task_file is None else read_task(args)
        # The output is never one of the files.
        output = Path(args.output) if args.output and args.output != _STANDARD else None
        files = SourceFiles(args.files, args.agent, task, output)
        for text in files.notices:
            streams.warn(text)
        yield files
    elif args.tasks == _STANDARD:
        try:
            with spool(sys.stdin.buffer) as path:
                yield TaskFile(path, args.agent, STDIN)
        except OSError as error:
            raise InputError(f"Standard input can't be read: {error.strerror}.") from error
    else:
        yield TaskFile(Path(args.tasks), args.agent)


async def _estimate(args: argparse.Namespace, rows: TaskRows) -> int:
    running = engine(args, durable=chosen_database(args))
    tasks = (InputError(row.problem) if row.problem else (row.agent, row.task) for row in _due(args, rows))
    async with running:
        estimate = await running.estimate(tasks, cache=args.cache, **call_options(args))  # type: ignore[arg-type]
    show_estimate(estimate, "row", args.json)
    return 0


def _due(args: argparse.Namespace, rows: TaskRows) -> Iterable[TaskRow]:
    """The rows that a run would take: not those that stand in its output."""
    if args.output and args.output != _STANDARD and _is_there(Path(args.output)):
        with _opened(args.output) as output:
            return list(_file_run(args, rows, output).pending_rows())
    return (row for row in rows if args.limit is None or row.index < args.limit)


async def _run(args: argparse.Namespace, rows: TaskRows) -> Ended:
    url = driver_database(args)
    running = engine(args, durable=url)
    afresh = args.no_resume or args.output == _STANDARD or not _is_there(Path(args.output))
    with _opened(args.output) as output:
        run = _file_run(args, rows, output, running)
        ended = Ended(run.summary, output.path)
        if url is not None:
            ended.run_id = run_of(output.path, args.words, afresh)
        left = None if args.budget is None else args.budget - run.summary.budgeted
        if left is not None and left <= 0 and run.pending:
            run.summary.over_budget = True
        else:
            run.begin()
            if run.pending:
                await _follow(args, run, running, left, url, ended)
    return ended


async def _follow(
    args: argparse.Namespace,
    run: ResumableRun,
    running: AsyncAgentOrchestrator,
    left: Optional[float],
    url: Optional[str],
    ended: Ended,
) -> None:
    """`left` is USD of the budget; a durable run is made over the database `url`."""
    options = {"budget_usd": left, "cache": args.cache, **call_options(args)}
    with nullcontext() if url is None else crew_of(url) as crew:
        async with running:
            following = BulkRun(run, running, options, args.grace, args.json, crew, ended.run_id)
            ended.board = following.board
            await following.follow()


@contextmanager
def _opened(name: str) -> Iterator[Results]:
    """The output. A file that was made for a run whose input is wrong is removed again."""
    if name == _STANDARD:
        sys.stdout.flush()
        yield StdoutResults(sys.stdout.fileno())
        return
    path = Path(name)
    is_new = not _is_there(path)
    with _checked(path):
        output = ResultsFile(path)
    try:
        with output:
            yield output
    except InputError:
        if is_new and not path.stat().st_size:
            path.unlink()
        raise


def _is_there(path: Path) -> bool:
    """Raises InputError for one that can't be looked for: its name is too long, or its folder is closed."""
    with _checked(path):
        return path.exists()


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}.") from error


def _file_run(
    args: argparse.Namespace,
    rows: TaskRows,
    output: Results,
    running: Optional[AsyncAgentOrchestrator] = None,
) -> ResumableRun:
    return ResumableRun(
        rows,
        output,
        _options(args),
        args.limit,
        args.no_resume,
        args.retry_failed,
        bool(args.fail_fast),
        None if running is None else partial(_model_of, running, args.model),
        args.max_tokens,
        None if running is None else running.refusals,
    )


@lru_cache(maxsize=None)
def _model_of(running: AsyncAgentOrchestrator, given: Optional[str], agent: str) -> Optional[str]:
    try:
        return running.model_of(agent, given)
    except InputError:
        return None


def _options(args: argparse.Namespace) -> str:
    """What changes the answers beside the rows, as a text to compare."""
    options = {name: value for name, value in call_options(args).items() if name != "cache_ttl"}
    return json.dumps(options, sort_keys=True)
