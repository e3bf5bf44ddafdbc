"""`run many`: a file of tasks in, results as JSON lines out, resumable."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, Iterable, Iterator, List, Optional

import anyio

from ..agents import CallRefusals, Registry
from ..async_orchestrator import AsyncAgentOrchestrator
from ..bulk import (
    STDIN,
    OnEvent,
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
from ..formatting import pluralize
from ..types import AgentResult
from . import signals, streams
from .bulk_report import Ended, exit_code, report
from .displays import ProgressDisplay
from .durable_runs import WorkerMonitor, database_url, driver_database_url, monitor_workers, run_id_for
from .logs import few_warnings
from .orchestration import make_orchestrator, show_estimate
from .run_options import call_options, check_budget, read_task
from .signals import handle_interrupts


class BulkRun:
    """`options` are those of the calls, `crew` is there where the run `run_id` is a durable one."""

    def __init__(
        self,
        run: ResumableRun,
        running: AsyncAgentOrchestrator,
        options: Dict[str, Any],
        grace: float,
        quiet: bool,
        crew: Optional[WorkerMonitor] = None,
        run_id: Optional[str] = None,
    ) -> None:
        self._run, self._running, self._options, self._grace = run, running, options, grace
        self._crew, self._run_id = crew, run_id
        away = "handed over" if crew is not None and crew.is_away else "in flight"
        self.board = ProgressDisplay(
            running.load, run.summary.kept, run.summary.cost, run.pending, quiet, away
        )

    async def follow(self) -> None:
        """Until the run has ended or was stopped; its outcome is then up to date."""
        with few_warnings():
            await self._follow()

    async def _follow(self) -> None:
        self._running.observers.append(self._run.record_cancelled)
        self._working = working = asyncio.ensure_future(self._run.run(self._stream, self.board.on_event))
        beside = [asyncio.ensure_future(self.board.show())]
        if self._crew is not None:
            beside.append(asyncio.ensure_future(self._crew.watch()))
        try:
            with _interrupted(self._stop, working.cancel, self._has_nothing):
                await asyncio.wait([working])
        except asyncio.CancelledError:
            self._run.stop()
        finally:
            for one in (working, *beside):
                one.cancel()
            await asyncio.gather(working, *beside, return_exceptions=True)
        if not working.cancelled():
            working.result()

    def _stream(self, tasks: AsyncIterator[Any], on_event: OnEvent) -> AsyncIterator[AgentResult]:
        return self._running._stream(
            *(tasks, on_event, self._run.pending, self._run.run_gate, self._run_id, self._run.row_id),
            **self._options,
        )

    def _has_nothing(self) -> bool:
        """Whether no row has ended and no call is in a queue: nothing is to be told or taken back."""
        return self._run_id is None and not self._run.summary.ran

    async def _stop(self) -> None:
        self._run.stop()
        self._tell_stopping()
        with anyio.move_on_after(self._grace):
            await self._running.drain(self._grace)
            # An answer that has come is kept in the cache before it is a result.
            await self._run.wait_until_saved()
        # What is left has not been sent, or did not end in time.
        self._working.cancel()

    def _tell_stopping(self) -> None:
        what = f"{pluralize(self.board.progress.in_flight, 'request')} in flight"
        if self._crew is not None and self._crew.is_away:
            what = "what no worker has begun is taken back, and what one has begun"
        streams.status(f"stopping; {what} may end within {self._grace:g} s (Ctrl-C again: now)")


@contextmanager
def _interrupted(
    stop: Callable[[], Any], stop_now: Callable[[], Any], has_nothing: Callable[[], bool]
) -> Iterator[None]:
    """The first Ctrl-C calls `stop`, the second `stop_now`. Within the import of the SDK the first ends the
    process where the run `has_nothing`, and the second in any case."""
    stopping: List[asyncio.Future[None]] = []

    def interrupt() -> None:
        if stopping:
            stop_now()
        else:
            stopping.append(asyncio.ensure_future(stop()))

    try:
        with handle_interrupts(interrupt, lambda: bool(stopping) or has_nothing()):
            yield
    finally:
        for one in stopping:
            one.cancel()


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
    for option, is_given in (("--retry-failed", args.retry_failed), ("--durable", database_url(args))):
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
    running = make_orchestrator(args, durable=database_url(args))
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
    url = driver_database_url(args)
    running = make_orchestrator(args, durable=url)
    afresh = args.no_resume or args.output == _STANDARD or not _is_there(Path(args.output))
    with _opened(args.output) as output:
        run = _file_run(args, rows, output, running)
        ended = Ended(run.summary, output.path)
        if url is not None:
            ended.run_id = run_id_for(output.path, args.words, afresh)
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
    with nullcontext() if url is None else monitor_workers(url) as crew:
        async with running:
            following = BulkRun(run, running, options, args.grace, args.json, crew, ended.run_id)
            ended.failures, ended.retries = following.board.failures, following.board.retries
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
        None if running is None else lambda: CallRefusals(Registry(args.config)),
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
