"""`run many`: a file of tasks in, a file of results out, resumable."""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Optional, Tuple

from ..async_orchestrator import AsyncAgentOrchestrator
from ..bulk import FileRun, Outcome, Output, Row, Rows, SourceFiles, TaskFile
from ..errors import InputError
from ..spelled import count
from . import streams
from .database import chosen_database, crew_of, driver_database
from .following import Following
from .options import call_options, check_budget
from .outputs import run_of
from .render import dollars
from .run import engine, show_estimate

_ALL, _SOME_FAILED, _OVER_BUDGET, _HOPELESS, _STOPPED = 0, 3, 4, 1, 130


def run_many(args: argparse.Namespace) -> int:
    """Returns 0 all rows succeeded, 3 some failed, 4 the budget ended it, 130 stopped, 1 nothing works."""
    rows = _rows(args)
    if args.estimate:
        return asyncio.run(_estimate(args, rows))
    if not args.output:
        raise InputError("No output was named. Add -o RESULTS.jsonl, or --estimate to send nothing.")
    outcome, run_id = asyncio.run(_run(args, rows))
    # Not in the loop, where a reader who has stopped would keep Ctrl-C from its end.
    _report(args, outcome, Path(args.output), run_id)
    return _exit_code(outcome)


def _rows(args: argparse.Namespace) -> Rows:
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit is {args.limit}; it must be a whole number from 1 up.")
    if args.grace < 0:
        raise InputError(f"--grace is {args.grace:g}; it must be a number of seconds from 0 up.")
    check_budget(args.budget)
    if bool(args.tasks) == bool(args.files):
        raise InputError("Give either a file of tasks or --files PATTERN, one of the two.")
    if args.files:
        if not args.agent:
            raise InputError("--files needs --agent NAME: the agent that each file is given to.")
        output = Path(args.output) if args.output else None
        files = SourceFiles(args.files, args.agent, args.task or "", output)
        for text in files.notices:
            streams.warn(text)
        return files
    if args.task:
        raise InputError("--task goes with --files; a file of tasks has a task in each row.")
    return TaskFile(Path(args.tasks), args.agent)


async def _estimate(args: argparse.Namespace, rows: Rows) -> int:
    running = engine(args, durable=chosen_database(args))
    tasks = (InputError(row.problem) if row.problem else (row.agent, row.task) for row in _due(args, rows))
    async with running:
        estimate = await running.estimate(tasks, cache=args.cache, **call_options(args))  # type: ignore[arg-type]
    show_estimate(estimate, "row", args.json)
    return _ALL


def _due(args: argparse.Namespace, rows: Rows) -> Iterable[Row]:
    """The rows that a run would take: not those that stand in its output."""
    if args.output and _is_there(Path(args.output)):
        with _opened(Path(args.output)) as output:
            return list(_file_run(args, rows, output).tasks())
    return (row for row in rows if args.limit is None or row.index < args.limit)


async def _run(args: argparse.Namespace, rows: Rows) -> Tuple[Outcome, Optional[str]]:
    """How it ended, and the id of a durable run."""
    url, path = driver_database(args), Path(args.output)
    running = engine(args, durable=url)
    afresh = args.no_resume or not _is_there(path)
    with _opened(path) as output:
        run = _file_run(args, rows, output)
        run_id = run_of(path, args.words, afresh) if url is not None else None
        left = None if args.budget is None else args.budget - run.outcome.budgeted
        if left is not None and left <= 0 and run.due:
            run.outcome.over_budget = True
        else:
            run.begin()
            if run.due:
                await _follow(args, run, running, left, url, run_id)
    return run.outcome, run_id


async def _follow(
    args: argparse.Namespace,
    run: FileRun,
    running: AsyncAgentOrchestrator,
    left: Optional[float],
    url: Optional[str],
    run_id: Optional[str],
) -> None:
    """`left` is USD of the budget; `run_id` that of the durable run, over the database `url`."""
    options = {"budget_usd": left, "cache": args.cache, **call_options(args)}
    with nullcontext() if url is None else crew_of(url) as crew:
        async with running:
            await Following(run, running, options, args.grace, args.json, crew, run_id).follow()


@contextmanager
def _opened(path: Path) -> Iterator[Output]:
    """What was made for a run whose input is wrong is gone again."""
    is_new = not _is_there(path)
    with _checked(path):
        output = Output(path)
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


def _file_run(args: argparse.Namespace, rows: Rows, output: Output) -> FileRun:
    return FileRun(rows, output, _options(args), args.limit, args.no_resume, args.retry_failed)


def _options(args: argparse.Namespace) -> str:
    """What changes the answers beside the rows, as a text to compare."""
    options = {name: value for name, value in call_options(args).items() if name != "cache_ttl"}
    return json.dumps(options, sort_keys=True)


def _exit_code(outcome: Outcome) -> int:
    if outcome.error is not None:
        return _HOPELESS
    if outcome.over_budget:
        return _OVER_BUDGET
    if outcome.stopped:
        return _STOPPED
    return _SOME_FAILED if outcome.failed else _ALL


def _report(args: argparse.Namespace, outcome: Outcome, path: Path, run_id: Optional[str]) -> None:
    if args.json:
        streams.as_json({**_outcome_fields(outcome, path), "run_id": run_id})
        return
    streams.note(
        f"{count(outcome.total, 'row')}: {outcome.succeeded:,} succeeded, {outcome.failed:,} failed, "
        f"{outcome.missing:,} missing; {outcome.ran:,} run now"
    )
    incomplete = _incomplete(outcome)
    if incomplete:
        streams.warn(incomplete)
    streams.note(_money(outcome))
    if outcome.error is not None:
        streams.error(str(outcome.error), json=False)
    if outcome.cancelled:
        streams.note(f"run {run_id} was cancelled by another command")
    if outcome.over_budget:
        streams.note("the budget ended the run: the same command with a higher --budget goes on")
    elif outcome.missing:
        streams.note("the same command goes on where this one ended: only what is missing is paid for")
    if outcome.failed:
        streams.note("--retry-failed runs the failed rows again; their errors are in the output")


def _incomplete(outcome: Outcome) -> str:
    """How many answers are not whole; "" where all are."""
    kinds = (
        ("cut off", outcome.truncated),
        ("refused", outcome.refused),
        ("without text", outcome.empty),
    )
    found = ", ".join(f"{number:,} {kind}" for kind, number in kinds if number)
    return f"answers that are not whole: {found}" if found else ""


def _money(outcome: Outcome) -> str:
    parts = [f"{dollars(outcome.cost)} in all"] if outcome.cost or not outcome.unpriced else []
    if outcome.unpriced:
        most = f" (at most {dollars(outcome.unpriced_at_most)})" if outcome.unpriced_at_most else ""
        parts.append(f"{count(outcome.unpriced, 'answer')} of unknown price{most}")
    if outcome.saved:
        parts.append(f"{dollars(outcome.saved)} saved by kept answers")
    if outcome.prompt_cache_saving > 0:
        parts.append(f"{dollars(outcome.prompt_cache_saving)} saved by the prompt cache")
    return ", ".join(parts)


def _outcome_fields(outcome: Outcome, path: Path) -> Dict[str, Any]:
    return {
        "success": _exit_code(outcome) == _ALL,
        "output": str(path),
        "rows": outcome.total,
        "succeeded": outcome.succeeded,
        "failed": outcome.failed,
        "missing": outcome.missing,
        "truncated": outcome.truncated,
        "refused": outcome.refused,
        "empty": outcome.empty,
        "ran_now": outcome.ran,
        "cost": outcome.cost,
        "unpriced": outcome.unpriced,
        "unpriced_at_most": outcome.unpriced_at_most,
        "saved": outcome.saved,
        "prompt_cache_saving": outcome.prompt_cache_saving,
        "over_budget": outcome.over_budget,
        "stopped": outcome.stopped,
        "cancelled": outcome.cancelled,
        "error": str(outcome.error) if outcome.error else None,
    }
