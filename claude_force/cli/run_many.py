"""`run many`: runs a file of tasks, and writes results as JSON lines. The same command resumes it."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, AsyncIterator, Iterable, Iterator, Optional

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
from .bulk_report import FinishedRun, exit_code, report
from .copies import check_copies, finish_rows
from .displays import ProgressDisplay
from .durable_runs import WorkerMonitor, database_url, driver_database_url, monitor_workers, run_id_for
from .logs import few_warnings
from .orchestration import make_orchestrator, show_estimate, show_request
from .run_options import check_budget, read_task, request_options
from .tool_grants import tool_options

_STDIO = "-"
# Options that do not change an answer.
_SAME_ANSWER = ("cache_ttl", "call_budget_usd")
# Formats that results can't be written in: a run appends lines and is resumed.
_REFUSED_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".parquet")


def run_many(args: argparse.Namespace) -> int:
    """Runs a file of tasks, or one task for each of many files.

    Returns 0 if all rows succeeded, 3 if some failed, 4 if the budget ended the run, 130 if it was stopped, 1
    if no row can be run. Raises InputError.
    """
    if args.stdin and args.tasks is None:
        args.tasks, args.stdin = _STDIO, False
    _check(args)
    args.of_tools = tool_options(args, is_durable=database_url(args) is not None)
    check_copies(args)
    with _rows(args) as rows:
        if args.dry_run:
            signals.run(_show_first_request(args, rows))
            return 0
        if args.estimate:
            signals.run(_estimate(args, rows))
            return 0
        _check_output(args)
        finished = signals.run(_run(args, rows))
        if args.of_tools:
            _finish_copies(args, finished)
    # Outside the loop: a reader of stdout that has stopped does not keep Ctrl-C from ending the command.
    report(args, finished)
    return exit_code(finished.summary, finished.copies)


def _finish_copies(args: argparse.Namespace, finished: FinishedRun) -> None:
    """Applies the patches of the rows, or counts them. Raises InputError."""
    if args.output != _STDIO:
        summary = finished.summary
        is_complete = not (summary.missing or summary.stopped or summary.error)
        finished.patches, finished.copies = finish_rows(args, Path(args.output), is_complete)


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
    if not args.output:
        raise InputError(
            "No output was named. Add -o RESULTS.jsonl (- for stdout), or --estimate to send nothing."
        )
    suffix = Path(args.output).suffix.lower()
    if suffix in _REFUSED_SUFFIXES:
        name = Path(args.output).with_suffix(".jsonl")
        raise InputError(f"Results can't be written as {suffix}, only as JSON lines: use -o {name}.")
    if args.output != _STDIO:
        return
    if args.json:
        raise InputError("-o - and --json both write to standard output. Name a file for the results.")
    needing = {"--retry-failed": args.retry_failed, "--apply": args.apply, "--durable": database_url(args)}
    for option, is_given in needing.items():
        if is_given:
            raise InputError(f"{option} needs results that can be read again. Name a file with -o.")


@contextmanager
def _rows(args: argparse.Namespace) -> Iterator[TaskRows]:
    if args.files:
        task = "" if args.task is None and args.task_file is None else read_task(args)
        # The output is never one of the files.
        output = Path(args.output) if args.output and args.output != _STDIO else None
        files = SourceFiles(args.files, args.agent, task, output)
        for text in files.notices:
            streams.warn(text)
        yield files
    elif args.tasks == _STDIO:
        try:
            with spool(sys.stdin.buffer) as path:
                yield TaskFile(path, args.agent, STDIN)
        except OSError as error:
            raise InputError(f"Standard input can't be read: {error.strerror}.") from error
    else:
        yield TaskFile(Path(args.tasks), args.agent)


async def _estimate(args: argparse.Namespace, rows: TaskRows) -> None:
    tasks = (
        InputError(row.problem) if row.problem else (row.agent, row.task) for row in _pending_rows(args, rows)
    )
    async with make_orchestrator(args, durable=database_url(args)) as orchestrator:
        estimate = await orchestrator.estimate(tasks, cache=args.cache, **request_options(args))  # type: ignore[arg-type]
    show_estimate(estimate, "row", args.json, has_tools=bool(args.of_tools))


async def _show_first_request(args: argparse.Namespace, rows: TaskRows) -> None:
    for row in _pending_rows(args, rows):
        if not row.problem:
            await show_request(args, row.agent, row.task)
            return
    streams.status("there is no row to run")


def _pending_rows(args: argparse.Namespace, rows: TaskRows) -> Iterable[TaskRow]:
    """Returns the rows that a run would take: those without a result in the output."""
    if args.output and args.output != _STDIO and _exists(Path(args.output)):
        with _open_results(args.output) as output:
            return list(_resumable_run(args, rows, output).pending_rows())
    return (row for row in rows if args.limit is None or row.index < args.limit)


async def _run(args: argparse.Namespace, rows: TaskRows) -> FinishedRun:
    url = driver_database_url(args)
    orchestrator = make_orchestrator(args, durable=url)
    is_new = args.no_resume or args.output == _STDIO or not _exists(Path(args.output))
    with _open_results(args.output) as output:
        run = _resumable_run(args, rows, output, orchestrator)
        finished = FinishedRun(run.summary, output.path)
        if url is not None:
            finished.run_id = run_id_for(output.path, args.words, is_new)
        budget = None if args.budget is None else args.budget - run.summary.budgeted
        if budget is not None and budget <= 0 and run.pending:
            run.summary.over_budget = True
            return finished
        run.begin()
        if run.pending:
            with nullcontext() if url is None else monitor_workers(url) as monitor:
                async with orchestrator:
                    await _BulkRun(args, run, orchestrator, finished, monitor).execute(budget)
    return finished


class _BulkRun:
    """Executes a run with its display, Ctrl-C, and a `monitor` of the workers if they make the calls."""

    def __init__(
        self,
        args: argparse.Namespace,
        run: ResumableRun,
        orchestrator: AsyncAgentOrchestrator,
        finished: FinishedRun,
        monitor: Optional[WorkerMonitor],
    ) -> None:
        self._args, self._run, self._orchestrator = args, run, orchestrator
        self._monitor, self._run_id = monitor, finished.run_id
        self._is_remote = monitor is not None and monitor.is_remote
        self._display = ProgressDisplay(
            orchestrator.load,
            run.summary.done_before,
            run.summary.cost,
            run.pending,
            quiet=args.json,
            in_flight_label="handed over" if self._is_remote else "in flight",
        )
        finished.failures, finished.retries = self._display.failures, self._display.retries
        finished.tools = self._display.tools
        self._stop_requested, self._work = anyio.Event(), anyio.CancelScope()

    async def execute(self, budget: Optional[float]) -> None:
        """Returns when the run has ended or was stopped; its summary is then up to date."""
        self._orchestrator.observers.append(self._run.record_cancelled)
        beside = [self._display.show, self._stop_on_request]
        if self._monitor is not None:
            beside.append(self._monitor.watch)
        with few_warnings():
            await signals.run_beside(self._run_rows(budget), *beside)

    async def _run_rows(self, budget: Optional[float]) -> None:
        args = self._args

        def stream(tasks: AsyncIterator[Any], on_event: OnEvent) -> AsyncIterator[AgentResult]:
            options = {"cache": args.cache, **request_options(args)}
            return self._orchestrator._calls.stream(
                *(tasks, self._run.run_gate, options, on_event, self._run.pending),
                *(self._run_id, self._run.row_id),
                budget_usd=budget,
            )

        with signals.handle_interrupts(self._interrupt, self._may_exit), self._work:
            await self._run.run(stream, self._display.on_event)

    def _interrupt(self) -> None:
        if self._stop_requested.is_set():
            self._work.cancel()
        self._stop_requested.set()

    def _may_exit(self) -> bool:
        """Returns whether nothing is lost: the second Ctrl-C, or no row has ended and no call is queued."""
        return self._stop_requested.is_set() or (self._run_id is None and not self._run.summary.ran)

    async def _stop_on_request(self) -> None:
        await self._stop_requested.wait()
        self._run.stop()
        what = f"{pluralize(self._display.progress.in_flight, 'request')} in flight"
        if self._is_remote:
            what = "calls that no worker has begun are taken back, and those begun"
        grace = self._args.grace
        streams.status(f"stopping; {what} may end within {grace:g} s (Ctrl-C again: now)")
        with anyio.move_on_after(grace):
            await self._orchestrator.drain(grace)
            # An answer is in the cache before it is a result.
            await self._run.wait_until_saved()
        # What is left was not sent, or did not end in time.
        self._work.cancel()


@contextmanager
def _open_results(name: str) -> Iterator[Results]:
    """Opens the output. Removes a new file again if the input of the run is wrong."""
    if name == _STDIO:
        sys.stdout.flush()
        yield StdoutResults(sys.stdout.fileno())
        return
    path = Path(name)
    is_new = not _exists(path)
    with _errors_of_output(path):
        output = ResultsFile(path)
    try:
        with output:
            yield output
    except InputError:
        if is_new and not path.stat().st_size:
            path.unlink()
        raise


def _exists(path: Path) -> bool:
    """Raises InputError for a path that can't be looked up: too long a name, or a closed folder."""
    with _errors_of_output(path):
        return path.exists()


@contextmanager
def _errors_of_output(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}.") from error


def _resumable_run(
    args: argparse.Namespace,
    rows: TaskRows,
    output: Results,
    orchestrator: Optional[AsyncAgentOrchestrator] = None,
) -> ResumableRun:
    return ResumableRun(
        rows,
        output,
        _options_text(args),
        args.limit,
        args.no_resume,
        args.retry_failed,
        bool(args.fail_fast),
        None if orchestrator is None else partial(_model_of, orchestrator, args.model),
        args.max_tokens,
        None if orchestrator is None else lambda: CallRefusals(Registry(args.config)),
        uses_tools=bool(args.of_tools),
    )


@lru_cache(maxsize=None)
def _model_of(orchestrator: AsyncAgentOrchestrator, given: Optional[str], agent_name: str) -> Optional[str]:
    try:
        return orchestrator.model_of(agent_name, given)
    except InputError:
        return None


def _options_text(args: argparse.Namespace) -> str:
    """Returns the options that change answers, to compare with those of the results in the output."""
    options = {name: value for name, value in request_options(args).items() if name not in _SAME_ANSWER}
    return json.dumps(options, sort_keys=True, default=str)
