"""`runs list` and `runs show`: the journal of workflows. Neither needs the SDK."""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from contextlib import closing
from typing import Any, Callable, Dict, Sequence, TypeVar

from ..errors import CacheError, InputError
from ..workflow.journal import Journal, KeptRun
from ..workflow.keeping import open_journal
from . import render, streams

T = TypeVar("T")


def list_runs(args: argparse.Namespace) -> int:
    """The last runs. Raises InputError, CacheError."""
    if args.last < 1:
        raise InputError(f"--last is {args.last}; it must be a whole number from 1 up.")
    found = _asked(lambda journal: [_fields(run, journal) for run in journal.recent(args.last)])
    if args.json:
        streams.as_json(found)
        return 0
    if not found:
        streams.note("there are no runs of workflows yet")
        return 0
    rows = [
        (
            one["run"],
            one["workflow"],
            one["status"],
            _ago(one["began"]),
            str(one["answers"]),
            f"${one['spent']:.4f}",
        )
        for one in found
    ]
    render.table(("run", "workflow", "status", "began", "answers", "paid"), rows)
    return 0


def show_run(args: argparse.Namespace) -> int:
    """Raises RunNotFoundError, CacheError."""

    def work(journal: Journal) -> Dict[str, Any]:
        run = journal.find(args.run)
        answers = [_answer(one.step, one.part, one.result) for one in journal.answers(args.run)]
        return {**_fields(run, journal), "task": run.task, "inputs": dict(run.inputs), "steps": answers}

    found = _asked(work)
    if args.json:
        streams.as_json(found)
        return 0
    for name in ("run", "workflow", "status", "project", "task", "inputs"):
        streams.out(f"{name + ':':10} {found[name] or '-'}")
    streams.out(f"{'paid:':10} ${found['spent']:.4f}")
    rows = [
        (one["step"], str(one["part"] + 1), one["agent"], render.dollars(one["cost"]))
        for one in found["steps"]
    ]
    if rows:
        render.table(("step", "part", "agent", "cost"), rows)
    return 0


def _asked(work: Callable[[Journal], T]) -> T:
    try:
        with closing(open_journal()) as journal:
            return work(journal)
    except (OSError, sqlite3.Error) as error:
        raise CacheError(f"The journal of runs can't be read: {error}.") from error


def _fields(run: KeptRun, journal: Journal) -> Dict[str, Any]:
    status = run.status
    if status == "running" and not journal.is_under_way(run.id):
        # Its process was killed before it could write its end.
        status = "interrupted"
    return {
        "run": run.id,
        "workflow": run.workflow,
        "status": status,
        "project": run.project,
        "began": run.began,
        "ended": run.ended,
        "spent": run.spent,
        "answers": run.answers,
    }


def _row(fields: Dict[str, Any]) -> Sequence[str]:
    began, paid = _ago(fields["began"]), f"${fields['spent']:.4f}"
    return fields["run"], fields["workflow"], fields["status"], began, str(fields["answers"]), paid


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
    return f"{render.age(max(0.0, time.time() - began))} ago"
