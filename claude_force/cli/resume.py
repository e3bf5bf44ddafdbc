"""`runs resume`: goes on with a run by what is kept of it, from whatever folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import InputError, RunNotFoundError
from . import streams
from .bulk_run_index import BulkRunRecord, note_of
from .database import chosen_database, needed_database, opened
from .main import parse
from .run_journal import asked
from .workflow import run_workflow

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
    note = note_of(args.run)
    if note is not None:
        return _resume_bulk(args, note)
    try:
        run = asked(lambda journal: journal.find(args.run))
    except RunNotFoundError:
        _refuse_foreign(args)
        raise
    if args.config is None:
        if not Path(run.project).exists():
            raise InputError(f"The project of run '{run.id}' is not there any more: {run.project}.")
        args.config = run.project
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
    url = needed_database(args)
    try:
        os.chdir(note.folder)
    except OSError as error:
        raise InputError(f"The run's folder {note.folder} can't be used: {error.strerror}.") from error
    budget = [] if args.budget is None else ["--budget", repr(args.budget)]
    again = parse([*note.words, *budget])
    again.database, again.json = url, again.json or args.json
    streams.status(f"run {note.run} goes on in {note.folder}, with the output {note.output}")
    code: int = again.carry_out(again)
    return code


def _refuse_foreign(args: argparse.Namespace) -> None:
    """Raises InputError where the run is in the database, and what it was given is not known here."""
    url = chosen_database(args)
    if url is None:
        return
    with opened(url) as runs:
        runs.get(args.run)
    raise InputError(
        f"Run '{args.run}' is in the database, and what it was given is kept where it was begun: give its "
        "command, or run its program, there once more."
    )
