"""Reports how a bulk run ended, with its errors grouped by kind."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..bulk import STDOUT, RunSummary
from ..errors import CallError, ClaudeForceError, InputError
from ..formatting import pluralize
from . import streams
from .copies import Outcome
from .render import format_cost
from .tool_lines import ToolTally

_ALL_SUCCEEDED, _NONE_CAN_RUN, _SOME_FAILED, _OVER_BUDGET, _STOPPED = 0, 1, 3, 4, 130

_MAX_KINDS, _SHOWN_KINDS, _SHOWN_ROWS = 100, 6, 3
_MAX_MESSAGE = 200
# What differs between messages of one kind: numbers, ids, paths and quoted text.
_PARTICULARS = re.compile(r"""'[^']*'|"[^"]*"|\S*[/\\]\S*|\S*\d\S*""")


@dataclass
class _ErrorKind:
    title: str
    message: str
    count: int = 0
    rows: List[int] = field(default_factory=list)


class ErrorSummary:
    """Counts errors by type and message. Its size does not grow with their number."""

    def __init__(self) -> None:
        self._kinds: Dict[Tuple[str, str], _ErrorKind] = {}

    def add(self, row: int, error: BaseException) -> None:
        """Counts an error of a row; `row` is counted from 1."""
        title, message = type(error).__name__, _message(error)
        key = (title, _PARTICULARS.sub("#", message))
        if key not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            key = (title, "")
        kind = self._kinds.setdefault(key, _ErrorKind(title, message))
        kind.count += 1
        if len(kind.rows) < _SHOWN_ROWS:
            kind.rows.append(row)

    @property
    def total(self) -> int:
        """The number of errors."""
        return sum(kind.count for kind in self._kinds.values())

    @property
    def by_type(self) -> Dict[str, int]:
        """The number of errors of each type, the most frequent first."""
        counts: Dict[str, int] = {}
        for kind in self._kinds.values():
            counts[kind.title] = counts.get(kind.title, 0) + kind.count
        return dict(sorted(counts.items(), key=lambda one: -one[1]))

    def lines(self, limit: int = _SHOWN_KINDS, without: Optional[BaseException] = None) -> Iterator[str]:
        """Yields a line for each kind, the most frequent first, and one for those beyond `limit`.

        Kinds of the type of `without` are left out.
        """
        excluded = None if without is None else type(without).__name__
        kinds = [kind for kind in self._kinds.values() if kind.title != excluded]
        kinds.sort(key=lambda kind: -kind.count)
        for kind in kinds[:limit]:
            yield f"{kind.count:,} x {kind.title}: {kind.message} ({_rows(kind)})"
        rest = kinds[limit:]
        if rest:
            errors = sum(kind.count for kind in rest)
            yield f"and {pluralize(errors, 'error')} of {pluralize(len(rest), 'other kind')}"


def _message(error: BaseException) -> str:
    """Returns what happened, without the advice, which is the same for all errors of a type."""
    if isinstance(error, CallError):
        text = str(error.message)
    else:
        text = error.for_shell() if isinstance(error, ClaudeForceError) else str(error)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def _rows(kind: _ErrorKind) -> str:
    named = ", ".join(f"{row:,}" for row in kind.rows)
    more = kind.count - len(kind.rows)
    word = "row" if kind.count == 1 else "rows"
    return f"{word} {named} and {more:,} more" if more else f"{word} {named}"


@dataclass
class FinishedRun:
    """A bulk run that has ended.

    Attributes:
        summary: counts and costs.
        output: path of the results.
        run_id: id of a durable run.
        failures: errors of rows that failed in this command.
        retries: errors of attempts that were followed by another one.
        tools: what agents did with their tools in this command.
        patches: how many rows have a patch.
        copies: what was done with the patches, where they were to be applied.
    """

    summary: RunSummary
    output: Path
    run_id: Optional[str] = None
    failures: ErrorSummary = field(default_factory=ErrorSummary)
    retries: ErrorSummary = field(default_factory=ErrorSummary)
    tools: ToolTally = field(default_factory=ToolTally)
    patches: int = 0
    copies: Optional[Outcome] = None


def exit_code(summary: RunSummary, copies: Optional[Outcome] = None) -> int:
    """Returns 0 all rows succeeded, 1 no row can be run, 3 some failed, 4 budget used up, 130 stopped."""
    if summary.error is not None:
        return _NONE_CAN_RUN
    if summary.over_budget:
        return _OVER_BUDGET
    if summary.stopped:
        return _STOPPED
    return _SOME_FAILED if summary.failed or (copies and copies.conflicts) else _ALL_SUCCEEDED


def report(args: argparse.Namespace, run: FinishedRun) -> None:
    """Prints how the run ended."""
    if args.json:
        streams.write_json({**_fields(run), "run_id": run.run_id})
        return
    summary = run.summary
    streams.status(
        f"{pluralize(summary.total, 'row')}: {summary.succeeded:,} succeeded, {summary.failed:,} failed, "
        f"{summary.missing:,} missing; {summary.ran:,} run now"
    )
    if not summary.total:
        streams.warn("there were no rows in the input")
    incomplete = _incomplete(summary)
    if incomplete:
        streams.warn(incomplete)
    streams.status(_costs(summary))
    for line in run.tools.lines():
        streams.status(line)
    if summary.lost:
        streams.warn(
            f"{pluralize(summary.lost, 'answer')} ({format_cost(summary.lost_cost)} of it) could not be "
            "written and will be requested again"
        )
    for title, errors in (("failed", run.failures), ("tried again", run.retries)):
        # The error that ended the run follows by itself.
        for line in errors.lines(without=summary.error):
            streams.status(f"{title}: {line}")
    if summary.error is not None:
        streams.error(summary.error.for_shell(), json=False)
    for line in run.copies.lines() if run.copies else ():
        streams.status(line)
    for line in _next_steps(args, run):
        streams.status(line)


def _incomplete(summary: RunSummary) -> str:
    """Returns how many answers are incomplete, or ""."""
    kinds = (("cut off", summary.truncated), ("refused", summary.refused), ("without text", summary.empty))
    counts = ", ".join(f"{number:,} {kind}" for kind, number in kinds if number)
    return f"incomplete answers: {counts}" if counts else ""


def _costs(summary: RunSummary) -> str:
    parts = [f"{format_cost(summary.cost)} in all"] if summary.cost or not summary.unpriced else []
    if summary.unpriced:
        most = f" (at most {format_cost(summary.unpriced_at_most)})" if summary.unpriced_at_most else ""
        parts.append(f"{pluralize(summary.unpriced, 'answer')} of unknown price{most}")
    if summary.saved:
        parts.append(f"{format_cost(summary.saved)} saved by cached answers")
    if summary.prompt_cache_saving > 0:
        parts.append(f"{format_cost(summary.prompt_cache_saving)} saved by the prompt cache")
    return ", ".join(parts)


def _next_steps(args: argparse.Namespace, run: FinishedRun) -> Iterator[str]:
    """Yields what the user can do now."""
    summary, is_file = run.summary, str(run.output) != STDOUT
    command = "the same command" if args.tasks != "-" else "the same command with the same input"
    if summary.cancelled:
        yield f"run {run.run_id} was cancelled by another command"
    if summary.over_budget and is_file:
        yield f"the budget ended the run: {command} with a higher --budget continues it"
    elif summary.over_budget:
        yield "the budget ended the run"
    elif summary.missing and is_file and summary.is_resumable and not isinstance(summary.error, InputError):
        yield f"{command} continues this run: only missing rows are paid for"
    if not is_file and (summary.missing or summary.failed) and args.cache == "use":
        yield "answers are in the cache: another run takes them from there; -o FILE makes a run resumable"
    if run.patches and run.copies is None:
        when = ", when all rows have run" if args.apply else " with --apply"
        yield f"{pluralize(run.patches, 'row has', 'rows have')} a patch: {command}{when} applies what fits"
    if summary.failed and is_file and summary.is_resumable:
        yield "--retry-failed runs the failed rows again; their errors are in the output"


def _fields(run: FinishedRun) -> Dict[str, Any]:
    summary = run.summary
    return {
        "success": exit_code(summary, run.copies) == _ALL_SUCCEEDED,
        "output": str(run.output),
        "rows": summary.total,
        **_named(summary, "succeeded", "failed", "missing", "truncated", "refused", "empty"),
        "ran_now": summary.ran,
        "cost": summary.cost,
        # The sum of known costs is not the cost if some are unknown.
        "cost_usd": None if summary.unpriced_at_most else summary.full_cost,
        "saved_usd": summary.saved,
        **_named(
            summary, "unpriced", "unpriced_at_most", "lost", "lost_cost", "saved", "prompt_cache_saving"
        ),
        **_named(summary, "over_budget", "stopped", "cancelled"),
        "error": summary.error.for_shell() if summary.error else None,
        # Of the rows that this command ran.
        "errors": list(run.failures.lines()),
        "errors_by_type": run.failures.by_type,
        **run.tools.fields(),
        **(run.copies.fields() if run.copies else {}),
    }


def _named(summary: RunSummary, *names: str) -> Dict[str, Any]:
    return {name: getattr(summary, name) for name in names}
