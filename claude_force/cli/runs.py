"""`runs list|show|cancel|prune|workers`: the journal of workflows, and the runs of a database."""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, TypeVar

from ..errors import CacheError, InputError, RunNotFoundError
from ..formatting import format_duration_coarse, format_usd, pluralize
from ..workflow.checkpointer import open_checkpoint_store
from ..workflow.checkpoints import CheckpointStore, RunRecord
from . import render, streams
from .durable_runs import (
    DEAD_SECONDS,
    BulkRunRecord,
    bulk_records,
    database_url,
    find_record,
    open_runs,
    require_database_url,
)
from .parser import parse

T = TypeVar("T")


def read_journal(work: Callable[[CheckpointStore], T]) -> T:
    """What `work` finds in it. Raises CacheError where it can't be read, and what `work` raises."""
    try:
        with closing(open_checkpoint_store()) as journal:
            return work(journal)
    except (OSError, sqlite3.Error) as error:
        raise CacheError(f"The journal of runs can't be read: {error}.") from error


if TYPE_CHECKING:
    from ..durable.runs import Runs, RunState

WORKFLOW, BULK, CALL = "workflow", "bulk", "call"
# What a single call that belongs to no run is kept under.
_SINGLE = re.compile("call-[0-9a-f]{32}")
_NONE_OF_WORKFLOWS = "there are no runs of workflows yet (durable runs: add --durable or --database URL)"


def list_runs(args: argparse.Namespace) -> int:
    """The last runs. Raises InputError, CacheError, ConfigurationError."""
    if args.last < 1:
        raise InputError(f"--last is {args.last}; it must be a whole number from 1 up.")
    found = read_journal(lambda journal: [_kept_fields(run, journal) for run in journal.recent(args.last)])
    url = database_url(args)
    if url is not None:
        found = _with_durable(found, url, args.last)[: args.last]
    if args.json:
        streams.write_json(found)
    elif not found:
        streams.status(_NONE_OF_WORKFLOWS if url is None else "there are no runs yet")
    elif url is None:
        render.show_table(
            ("run", "workflow", "status", "began", "answers", "paid"), [_row(one) for one in found]
        )
    else:
        heads = ("run", "kind", "status", "began", "succeeded", "failed", "open")
        render.show_table(heads, [_durable_row(one) for one in found])
    return 0


def show_run(args: argparse.Namespace) -> int:
    """Raises RunNotFoundError, CacheError, InputError, ConfigurationError."""
    url = database_url(args)
    kept = _kept(args.run)
    found = {} if url is None else _durable(url, args.run)
    if kept is None and not found:
        raise RunNotFoundError(_unknown(args.run, url))
    fields = {**found, **(kept or {})}
    if args.json:
        streams.write_json(fields)
        return 0
    for name in ("run", "kind", "workflow", "output", "status", "project", "task", "inputs"):
        if fields.get(name):
            streams.write_line(f"{name + ':':10} {fields[name]}")
    if kept is not None:
        streams.write_line(f"{'paid:':10} {_paid(kept)}")
    if found:
        streams.write_line(f"{'calls:':10} {_calls(found)}")
    _show_steps(fields.get("steps", []))
    _show_failures(fields.get("failures", []))
    return 0


def cancel_run(args: argparse.Namespace) -> int:
    """Raises InputError, ConfigurationError."""
    with open_runs(require_database_url(args)) as runs:
        # Of a run whose answers were all kept ones, the database knows nothing.
        number = runs.cancel(args.run) if _state(runs, args.run).calls else 0
    if args.json:
        streams.write_json({"success": True, "run": args.run, "run_id": args.run, "cancelled": number})
    else:
        streams.status(
            f"{pluralize(number, 'call')} of run {args.run} cancelled" if number else _NOTHING_OPEN
        )
    return 0


def prune_runs(args: argparse.Namespace) -> int:
    """Raises InputError, ConfigurationError."""
    if args.days < 0:
        raise InputError(f"--days is {args.days:g}; it must be a number of days from 0 up.")
    with open_runs(require_database_url(args)) as runs:
        number = runs.prune(args.days)
    if args.json:
        streams.write_json({"success": True, "removed": number})
    else:
        streams.status(f"{pluralize(number, 'run')} removed")
    return 0


_NOTHING_OPEN = "nothing of this run was open"


def list_workers(args: argparse.Namespace) -> int:
    """Returns 0, or 1 where none is alive. Raises InputError, ConfigurationError."""
    with open_runs(require_database_url(args)) as runs:
        if runs.is_embedded:
            raise InputError(
                "With SQLite there are no workers: the command that runs calls makes them itself."
            )
        found = [{**one._asdict(), "alive": one.silent < DEAD_SECONDS} for one in runs.workers()]
    if args.json:
        streams.write_json(found)
    elif not found:
        streams.status("there are no workers: start `claude-force worker` with this database")
    else:
        rows = [
            (
                one["name"],
                "alive" if one["alive"] else f"silent for {format_duration_coarse(one['silent'])}",
                str(one["concurrency"]),
                _ago(one["started"]),
            )
            for one in found
        ]
        render.show_table(("worker", "state", "concurrency", "started"), rows)
    return 0 if any(one["alive"] for one in found) else 1


def _kept(run_id: str) -> Optional[Dict[str, Any]]:
    def work(journal: CheckpointStore) -> Dict[str, Any]:
        run = journal.find(run_id)
        answers = [_answer(one.step, one.part, one.result) for one in journal.answers(run_id)]
        return {**_kept_fields(run, journal), "task": run.task, "inputs": dict(run.inputs), "steps": answers}

    try:
        return read_journal(work)
    except RunNotFoundError:
        return None


def _durable(url: str, run_id: str) -> Dict[str, Any]:
    with open_runs(url) as runs:
        try:
            state = _state(runs, run_id)
        except InputError:
            return {}
        failures = [one._asdict() for one in runs.failures(run_id)]
    outputs = {note.run: note.output for note in bulk_records()}
    return {**_state_fields(state, outputs.get(run_id)), "failures": failures}


def _state(runs: Runs, run_id: str) -> RunState:
    """Raises InputError where nothing is known of the run."""
    try:
        return runs.get(run_id)
    except InputError:
        note = find_record(run_id)
        if note is None:
            raise
        from ..durable.runs import RunState

        return RunState(run_id, note.began, 0, 0, 0, 0, 0, 0)


def _with_durable(kept: List[Dict[str, Any]], url: str, most: int) -> List[Dict[str, Any]]:
    """The runs of both, the newest first; what both have is one."""
    outputs = {note.run: note.output for note in bulk_records()}
    with open_runs(url) as runs:
        states = {state.run_id: _state_fields(state, outputs.get(state.run_id)) for state in runs.list(most)}
    both = [{**states.pop(one["run"], {}), **one} for one in kept]
    return sorted([*both, *states.values()], key=lambda one: float(one["began"]), reverse=True)


def _state_fields(state: RunState, output: Optional[str]) -> Dict[str, Any]:
    return {
        "run": state.run_id,
        "run_id": state.run_id,
        "kind": CALL if _SINGLE.fullmatch(state.run_id) else BULK,
        "status": "open" if state.open else "done",
        "began": state.created,
        "output": output,
        "calls": state.calls,
        "succeeded": state.succeeded,
        "failed": state.failed,
        "cancelled": state.cancelled,
        "open": state.open,
        "begun": state.begun,
    }


def _unknown(run_id: str, url: Optional[str]) -> str:
    hint = "" if url else "; durable runs are found with --durable or --database URL"
    return f"Run '{run_id}' not found. `claude-force runs list` shows those of the last 30 days{hint}."


def _kept_fields(run: RunRecord, journal: CheckpointStore) -> Dict[str, Any]:
    status = run.status
    if status == "running" and not journal.is_running(run.id):
        # Its process was killed before it could write its end.
        status = "interrupted"
    return {
        "run": run.id,
        "run_id": run.id,
        "kind": WORKFLOW,
        "workflow": run.workflow,
        "status": status,
        "project": run.project,
        "began": run.began,
        "ended": run.ended,
        "spent": run.spent,
        "cost_usd": run.spent,
        "answers": run.answers,
        "unpriced": run.unpriced,
    }


def _row(fields: Dict[str, Any]) -> Sequence[str]:
    began, answers = _ago(fields["began"]), str(fields["answers"])
    return fields["run"], fields["workflow"], fields["status"], began, answers, _paid(fields)


def _paid(fields: Dict[str, Any]) -> str:
    known, unpriced = format_usd(fields["spent"]), fields["unpriced"]
    return f"{known} and {pluralize(unpriced, 'answer')} of unknown cost" if unpriced else known


def _durable_row(fields: Dict[str, Any]) -> Sequence[str]:
    figures = (fields.get(name) for name in ("succeeded", "failed", "open"))
    shown = ["-" if one is None else str(one) for one in figures]
    return (fields["run"], fields["kind"], fields["status"], _ago(fields["began"]), *shown)


def _calls(found: Dict[str, Any]) -> str:
    return (
        f"{found['succeeded']:,} succeeded, {found['failed']:,} failed, {found['cancelled']:,} cancelled, "
        f"{found['open']:,} open of which {found['begun']:,} begun"
    )


def _show_steps(steps: List[Dict[str, Any]]) -> None:
    rows = [
        (one["step"], str(one["part"] + 1), one["agent"], render.format_cost(one["cost"])) for one in steps
    ]
    if rows:
        render.show_table(("step", "part", "agent", "cost"), rows)


def _show_failures(failures: List[Dict[str, Any]]) -> None:
    rows = [(one["place"], one["agent"], streams.one_line(one["error"])) for one in failures]
    if rows:
        render.show_table(("failed", "agent", "error"), rows)


def _answer(step: str, part: int, result: str) -> Dict[str, Any]:
    found = json.loads(result)
    return {
        "step": step,
        "part": part,
        "agent": found.get("agent_name"),
        "cost": found.get("cost"),
        "output": found.get("output"),
    }


def _ago(began: float) -> str:
    return f"{format_duration_coarse(max(0.0, time.time() - began))} ago"


# A bulk run goes on by the options that it had.
_OF_WORKFLOWS = (
    "config",
    "model",
    "max_tokens",
    "temperature",
    "timeout",
    "deadline",
    "max_retries",
    "max_concurrent",
    "no_stream",
    "no_pass_output",
    "fail_fast",
    "price",
    "cache_ttl",
    "rpm",
    "input_tpm",
    "output_tpm",
)


def resume_run(args: argparse.Namespace) -> int:
    """Returns what the command returns that goes on with it. Raises InputError, CacheError."""
    note = find_record(args.run)
    if note is not None:
        return _resume_bulk(args, note)
    try:
        run = read_journal(lambda journal: journal.find(args.run))
    except RunNotFoundError:
        _refuse_foreign(args)
        raise
    if args.config is None:
        if not Path(run.project).exists():
            raise InputError(f"The project of run '{run.id}' is not there any more: {run.project}.")
        args.config = run.project
    # Imported here: the other commands of this module need no engine.
    from .run_workflow import run_workflow

    # What a new run would be given.
    fresh = {
        "task": None,
        "task_file": None,
        "input": None,
        "inputs": None,
        "output": None,
        "plan": False,
        "estimate": False,
    }
    return run_workflow(argparse.Namespace(**{**vars(args), **fresh, "name": run.workflow, "resume": run.id}))


def _resume_bulk(args: argparse.Namespace, note: BulkRunRecord) -> int:
    given = [name for name in _OF_WORKFLOWS if getattr(args, name)]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise InputError(f"{option} is for workflows: a bulk run goes on by the options that it had.")
    url = require_database_url(args)
    try:
        os.chdir(note.folder)
    except OSError as error:
        raise InputError(f"The run's folder {note.folder} can't be used: {error.strerror}.") from error
    budget = [] if args.budget is None else ["--budget", repr(args.budget)]
    again = parse([*note.words, *budget])
    again.database, again.json = url, again.json or args.json
    streams.status(f"run {note.run} goes on in {note.folder}, with the output {note.output}")
    from .run_many import run_many

    return run_many(again)


def _refuse_foreign(args: argparse.Namespace) -> None:
    """Raises InputError where the run is in the database, and what it was given is not known here."""
    url = database_url(args)
    if url is None:
        return
    with open_runs(url) as runs:
        runs.get(args.run)
    raise InputError(
        f"Run '{args.run}' is in the database, and what it was given is kept where it was begun: give its "
        "command, or run its program, there once more."
    )
