"""`runs list|show|resume|cancel|prune|workers`: runs of workflows, and runs of a database."""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence

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

if TYPE_CHECKING:
    from ..durable.runs import Runs, RunState

WORKFLOW, BULK, CALL = "workflow", "bulk", "call"
# The run id of a single call that belongs to no run.
_SINGLE_CALL = re.compile("call-[0-9a-f]{32}")
# Options that a resumed workflow takes; a bulk run continues with the options that it had.
_WORKFLOW_OPTIONS = (
    *("config", "model", "max_tokens", "temperature", "timeout", "deadline", "max_retries", "max_concurrent"),
    *("no_stream", "no_pass_output", "fail_fast", "price", "cache_ttl", "rpm", "input_tpm", "output_tpm"),
    *("tools", "add_dir", "max_turns", "max_tool_calls", "call_budget", "apply"),
)
# Options of a new run of a workflow, as a resumed one has them.
_UNSET_OPTIONS = {
    "task": None,
    "task_file": None,
    "input": None,
    "inputs": None,
    "output": None,
    "plan": False,
    "estimate": False,
    "dry_run": False,
}


def list_runs(args: argparse.Namespace) -> int:
    """Lists the last runs, the newest first. Raises InputError, CacheError, ConfigurationError."""
    if args.last < 1:
        raise InputError(f"--last is {args.last}; it must be a whole number from 1 up.")
    with _checkpoint_store() as store:
        runs = [_workflow_fields(run, store) for run in store.recent(args.last)]
    url = database_url(args)
    if url is not None:
        runs = _with_durable(runs, url, args.last)[: args.last]
    if args.json:
        streams.write_json(runs)
    elif runs and url is None:
        heads: Sequence[str] = ("run", "workflow", "status", "began", "answers", "paid")
        render.show_table(heads, [_workflow_row(one) for one in runs])
    elif runs:
        heads = ("run", "kind", "status", "began", "succeeded", "failed", "open")
        render.show_table(heads, [_durable_row(one) for one in runs])
    elif url is None:
        streams.status("there are no runs of workflows yet (durable runs: add --durable or --database URL)")
    else:
        streams.status("there are no runs yet")
    return 0


def show_run(args: argparse.Namespace) -> int:
    """Shows one run. Raises RunNotFoundError, CacheError, InputError, ConfigurationError."""
    url = database_url(args)
    workflow_run = _find_workflow_run(args.run)
    durable_run = {} if url is None else _find_durable_run(url, args.run)
    if workflow_run is None and not durable_run:
        hint = "" if url else "; durable runs are found with --durable or --database URL"
        raise RunNotFoundError(
            f"Run '{args.run}' not found. `claude-force runs list` shows those of the last 30 days{hint}."
        )
    fields = {**durable_run, **(workflow_run or {})}
    if args.json:
        streams.write_json(fields)
        return 0
    for name in ("run", "kind", "workflow", "output", "status", "project", "task", "inputs"):
        if fields.get(name):
            streams.write_line(f"{name + ':':10} {fields[name]}")
    if workflow_run is not None:
        streams.write_line(f"{'paid:':10} {_paid(workflow_run)}")
    if durable_run:
        streams.write_line(f"{'calls:':10} {_calls(durable_run)}")
    steps = [
        (one["step"], str(one["part"] + 1), one["agent"], render.format_cost(one["cost"]))
        for one in fields.get("steps", [])
    ]
    if steps:
        render.show_table(("step", "part", "agent", "cost"), steps)
    failures = [(one["place"], one["agent"], one["error"]) for one in fields.get("failures", [])]
    if failures:
        render.show_table(("failed", "agent", "error"), failures)
    return 0


def cancel_run(args: argparse.Namespace) -> int:
    """Cancels the open calls of a durable run. Raises InputError, ConfigurationError."""
    with open_runs(require_database_url(args)) as runs:
        # The database does not know a run whose answers were all in the cache.
        number = runs.cancel(args.run) if _durable_state(runs, args.run).calls else 0
    if args.json:
        streams.write_json({"success": True, "run": args.run, "run_id": args.run, "cancelled": number})
    elif number:
        streams.status(f"{pluralize(number, 'call')} of run {args.run} cancelled")
    else:
        streams.status("nothing of this run was open")
    return 0


def prune_runs(args: argparse.Namespace) -> int:
    """Removes old durable runs. Raises InputError, ConfigurationError."""
    if args.days < 0:
        raise InputError(f"--days is {args.days:g}; it must be a number of days from 0 up.")
    with open_runs(require_database_url(args)) as runs:
        number = runs.prune(args.days)
    if args.json:
        streams.write_json({"success": True, "removed": number})
    else:
        streams.status(f"{pluralize(number, 'run')} removed")
    return 0


def list_workers(args: argparse.Namespace) -> int:
    """Lists the workers of a database. Returns 0, or 1 if none is alive. Raises InputError."""
    with open_runs(require_database_url(args)) as runs:
        if runs.is_embedded:
            raise InputError(
                "With SQLite there are no workers: the command that runs calls makes them itself."
            )
        workers = [{**one._asdict(), "alive": one.silent < DEAD_SECONDS} for one in runs.workers()]
    if args.json:
        streams.write_json(workers)
    elif not workers:
        streams.status("there are no workers: start `claude-force worker` with this database")
    else:
        rows = [
            (
                one["name"],
                "alive" if one["alive"] else f"silent for {format_duration_coarse(one['silent'])}",
                str(one["concurrency"]),
                _ago(one["started"]),
            )
            for one in workers
        ]
        render.show_table(("worker", "state", "concurrency", "started"), rows)
    return 0 if any(one["alive"] for one in workers) else 1


def resume_run(args: argparse.Namespace) -> int:
    """Continues a run by its record, from any folder.

    Returns what `run many` or `run workflow` returns. Raises InputError, CacheError.
    """
    record = find_record(args.run)
    if record is not None:
        return _resume_bulk(args, record)
    try:
        with _checkpoint_store() as store:
            run = store.find(args.run)
    except RunNotFoundError:
        _refuse_foreign(args)
        raise
    if args.config is None:
        if not Path(run.project).exists():
            raise InputError(f"The project of run '{run.id}' is not there any more: {run.project}.")
        args.config = run.project
    # Imported here: the other commands of this module don't need the orchestrator.
    from .run_workflow import run_workflow

    options = {**vars(args), **_UNSET_OPTIONS, "name": run.workflow, "resume": run.id}
    return run_workflow(argparse.Namespace(**options))


def _resume_bulk(args: argparse.Namespace, record: BulkRunRecord) -> int:
    given = [name for name in _WORKFLOW_OPTIONS if getattr(args, name)]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise InputError(f"{option} is for workflows: a bulk run continues with the options that it had.")
    url = require_database_url(args)
    try:
        os.chdir(record.folder)
    except OSError as error:
        raise InputError(f"The run's folder {record.folder} can't be used: {error.strerror}.") from error
    budget = [] if args.budget is None else ["--budget", repr(args.budget)]
    again = parse([*record.words, *budget])
    again.database, again.json = url, again.json or args.json
    streams.status(f"run {record.run} continues in {record.folder}, with the output {record.output}")
    from .run_many import run_many

    return run_many(again)


def _refuse_foreign(args: argparse.Namespace) -> None:
    """Raises InputError if the run is in the database, but its input is not known here."""
    url = database_url(args)
    if url is None:
        return
    with open_runs(url) as runs:
        runs.get(args.run)
    raise InputError(
        f"Run '{args.run}' is in the database, but its input is kept where it was begun: repeat its command, "
        "or run its program again, there."
    )


@contextmanager
def _checkpoint_store() -> Iterator[CheckpointStore]:
    """Opens the runs of workflows. Raises CacheError where they can't be read."""
    try:
        with closing(open_checkpoint_store()) as store:
            yield store
    except (OSError, sqlite3.Error) as error:
        raise CacheError(f"The journal of runs can't be read: {error}.") from error


def _find_workflow_run(run_id: str) -> Optional[Dict[str, Any]]:
    with _checkpoint_store() as store:
        try:
            run = store.find(run_id)
        except RunNotFoundError:
            return None
        steps = [_answer_fields(one.step, one.part, one.result) for one in store.answers(run_id)]
        return {**_workflow_fields(run, store), "task": run.task, "inputs": dict(run.inputs), "steps": steps}


def _find_durable_run(url: str, run_id: str) -> Dict[str, Any]:
    with open_runs(url) as runs:
        try:
            state = _durable_state(runs, run_id)
        except InputError:
            return {}
        failures = [one._asdict() for one in runs.failures(run_id)]
    return {**_durable_fields(state, _outputs().get(run_id)), "failures": failures}


def _durable_state(runs: Runs, run_id: str) -> RunState:
    """Returns the state of a run. Raises InputError for an unknown one."""
    try:
        return runs.get(run_id)
    except InputError:
        record = find_record(run_id)
        if record is None:
            raise
        from ..durable.runs import RunState

        return RunState(run_id, record.began, 0, 0, 0, 0, 0, 0)


def _with_durable(workflow_runs: List[Dict[str, Any]], url: str, limit: int) -> List[Dict[str, Any]]:
    """Returns the runs of both kinds, the newest first; a durable run of a workflow is one run."""
    outputs = _outputs()
    with open_runs(url) as runs:
        states = {one.run_id: _durable_fields(one, outputs.get(one.run_id)) for one in runs.list(limit)}
    merged = [{**states.pop(one["run"], {}), **one} for one in workflow_runs]
    return sorted([*merged, *states.values()], key=lambda one: float(one["began"]), reverse=True)


def _outputs() -> Dict[str, str]:
    """Returns the output of each bulk run."""
    return {record.run: record.output for record in bulk_records()}


def _durable_fields(state: RunState, output: Optional[str]) -> Dict[str, Any]:
    return {
        "run": state.run_id,
        "run_id": state.run_id,
        "kind": CALL if _SINGLE_CALL.fullmatch(state.run_id) else BULK,
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


def _workflow_fields(run: RunRecord, store: CheckpointStore) -> Dict[str, Any]:
    status = run.status
    if status == "running" and not store.is_running(run.id):
        # Its process was killed before it could record its end.
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


def _answer_fields(step: str, part: int, result: str) -> Dict[str, Any]:
    fields = json.loads(result)
    return {
        "step": step,
        "part": part,
        "agent": fields.get("agent_name"),
        "cost": fields.get("cost"),
        "output": fields.get("output"),
    }


def _workflow_row(fields: Dict[str, Any]) -> Sequence[str]:
    began, answers = _ago(fields["began"]), str(fields["answers"])
    return fields["run"], fields["workflow"], fields["status"], began, answers, _paid(fields)


def _paid(fields: Dict[str, Any]) -> str:
    known, unpriced = format_usd(fields["spent"]), fields["unpriced"]
    return f"{known} and {pluralize(unpriced, 'answer')} of unknown cost" if unpriced else known


def _durable_row(fields: Dict[str, Any]) -> Sequence[str]:
    counts = (fields.get(name) for name in ("succeeded", "failed", "open"))
    cells = ["-" if one is None else str(one) for one in counts]
    return (fields["run"], fields["kind"], fields["status"], _ago(fields["began"]), *cells)


def _calls(fields: Dict[str, Any]) -> str:
    return (
        f"{fields['succeeded']:,} succeeded, {fields['failed']:,} failed, {fields['cancelled']:,} cancelled, "
        f"{fields['open']:,} open of which {fields['begun']:,} begun"
    )


def _ago(moment: float) -> str:
    return f"{format_duration_coarse(max(0.0, time.time() - moment))} ago"
