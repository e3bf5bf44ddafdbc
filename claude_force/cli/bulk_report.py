"""Errors of many rows by kind: how often, in which rows, and the server's words of the first. Pure."""

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
from .render import format_cost

_MOST_KINDS, _KINDS_SHOWN, _ROWS_SHOWN = 100, 6, 3
_LONGEST_WORDS = 200
# What differs between messages of one kind: numbers, ids, paths and quoted text.
_PARTICULARS = re.compile(r"""'[^']*'|"[^"]*"|\S*[/\\]\S*|\S*\d\S*""")


@dataclass
class _Kind:
    title: str
    words: str
    count: int = 0
    rows: List[int] = field(default_factory=list)


class ErrorSummary:
    """Counts errors by kind. Memory does not grow with their number."""

    def __init__(self) -> None:
        self._kinds: Dict[Tuple[str, str], _Kind] = {}

    def add(self, row: int, error: BaseException) -> None:
        """An error of the row `row`, counted from 1."""
        title, words = _title(error), _words(error)
        key = (title, _PARTICULARS.sub("#", words))
        if key not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            key = (title, "")
        kind = self._kinds.setdefault(key, _Kind(title, words))
        kind.count += 1
        if len(kind.rows) < _ROWS_SHOWN:
            kind.rows.append(row)

    @property
    def total(self) -> int:
        """How many errors there were."""
        return sum(kind.count for kind in self._kinds.values())

    @property
    def by_type(self) -> Dict[str, int]:
        """How many errors there were of each type, the most frequent first."""
        counts: Dict[str, int] = {}
        for kind in self._kinds.values():
            counts[kind.title] = counts.get(kind.title, 0) + kind.count
        return dict(sorted(counts.items(), key=lambda one: -one[1]))

    def lines(self, most: int = _KINDS_SHOWN, without: Optional[BaseException] = None) -> Iterator[str]:
        """A line for each kind, the most frequent first; one more for what is left.

        The kinds of the error `without` are left out.
        """
        skipped = None if without is None else _title(without)
        kinds = [kind for kind in self._kinds.values() if kind.title != skipped]
        kinds.sort(key=lambda kind: -kind.count)
        for kind in kinds[:most]:
            yield f"{kind.count:,} x {kind.title}: {kind.words} ({_rows(kind)})"
        rest = kinds[most:]
        if rest:
            errors = sum(kind.count for kind in rest)
            yield f"and {pluralize(errors, 'error')} of {pluralize(len(rest), 'other kind')}"


def _title(error: BaseException) -> str:
    return type(error).__name__


def _words(error: BaseException) -> str:
    """What happened, without advice, which is the same for all rows of a kind."""
    if isinstance(error, CallError):
        words = str(error.message)
    else:
        words = error.for_shell() if isinstance(error, ClaudeForceError) else str(error)
    words = " ".join(words.split())
    return words if len(words) <= _LONGEST_WORDS else words[: _LONGEST_WORDS - 1] + "…"


def _rows(kind: _Kind) -> str:
    named = ", ".join(f"{row:,}" for row in kind.rows)
    more = kind.count - len(kind.rows)
    word = "row" if kind.count == 1 else "rows"
    return f"{word} {named} and {more:,} more" if more else f"{word} {named}"


_ALL, _HOPELESS, _SOME_FAILED, _OVER_BUDGET, _STOPPED = 0, 1, 3, 4, 130


@dataclass
class Ended:
    """A run that has ended: its summary, its output, the id of a durable run, and its errors."""

    outcome: RunSummary
    output: Path
    run_id: Optional[str] = None
    failures: ErrorSummary = field(default_factory=ErrorSummary)
    retries: ErrorSummary = field(default_factory=ErrorSummary)


def exit_code(outcome: RunSummary) -> int:
    """0 all rows succeeded, 1 no row can be run, 3 some failed, 4 the budget is used up, 130 stopped."""
    if outcome.error is not None:
        return _HOPELESS
    if outcome.over_budget:
        return _OVER_BUDGET
    if outcome.stopped:
        return _STOPPED
    return _SOME_FAILED if outcome.failed else _ALL


def report(args: argparse.Namespace, ended: Ended) -> None:
    """Prints how the run ended."""
    if args.json:
        streams.write_json({**_fields(ended.outcome, ended.output, ended.failures), "run_id": ended.run_id})
        return
    outcome = ended.outcome
    streams.status(
        f"{pluralize(outcome.total, 'row')}: {outcome.succeeded:,} succeeded, {outcome.failed:,} failed, "
        f"{outcome.missing:,} missing; {outcome.ran:,} run now"
    )
    if not outcome.total:
        streams.warn("there were no rows in the input")
    incomplete = _incomplete(outcome)
    if incomplete:
        streams.warn(incomplete)
    streams.status(_money(outcome))
    if outcome.lost:
        streams.warn(
            f"{pluralize(outcome.lost, 'answer')} ({format_cost(outcome.lost_cost)} of it) could not be "
            "written and will be requested again"
        )
    for line in _errors(ended, outcome.error):
        streams.status(line)
    if outcome.error is not None:
        streams.error(outcome.error.for_shell(), json=False)
    for line in _next(args, ended):
        streams.status(line)


def _errors(ended: Ended, fatal: Optional[BaseException]) -> Iterator[str]:
    """Errors by kind; what ended the run is said on its own."""
    for title, errors in (("failed", ended.failures), ("tried again", ended.retries)):
        for line in errors.lines(without=fatal):
            yield f"{title}: {line}"


def _next(args: argparse.Namespace, ended: Ended) -> Iterator[str]:
    """What the user can do now: only what works."""
    outcome, is_file = ended.outcome, str(ended.output) != STDOUT
    command = "the same command" if args.tasks != "-" else "the same command with the same input"
    if outcome.cancelled:
        yield f"run {ended.run_id} was cancelled by another command"
    if outcome.over_budget and is_file:
        yield f"the budget ended the run: {command} with a higher --budget goes on"
    elif outcome.over_budget:
        yield "the budget ended the run"
    elif outcome.missing and is_file and outcome.is_resumable and not isinstance(outcome.error, InputError):
        yield f"{command} goes on where this one ended: only what is missing is paid for"
    if not is_file and (outcome.missing or outcome.failed) and args.cache == "use":
        yield "answers are in the cache: another run takes them from there; -o FILE makes a run resumable"
    if outcome.failed and is_file and outcome.is_resumable:
        yield "--retry-failed runs the failed rows again; their errors are in the output"


def _incomplete(outcome: RunSummary) -> str:
    """How many answers are not whole; "" where all are."""
    kinds = (
        ("cut off", outcome.truncated),
        ("refused", outcome.refused),
        ("without text", outcome.empty),
    )
    found = ", ".join(f"{number:,} {kind}" for kind, number in kinds if number)
    return f"answers that are not whole: {found}" if found else ""


def _money(outcome: RunSummary) -> str:
    parts = [f"{format_cost(outcome.cost)} in all"] if outcome.cost or not outcome.unpriced else []
    if outcome.unpriced:
        most = f" (at most {format_cost(outcome.unpriced_at_most)})" if outcome.unpriced_at_most else ""
        parts.append(f"{pluralize(outcome.unpriced, 'answer')} of unknown price{most}")
    if outcome.saved:
        parts.append(f"{format_cost(outcome.saved)} saved by cached answers")
    if outcome.prompt_cache_saving > 0:
        parts.append(f"{format_cost(outcome.prompt_cache_saving)} saved by the prompt cache")
    return ", ".join(parts)


def _fields(outcome: RunSummary, path: Path, failures: ErrorSummary) -> Dict[str, Any]:
    return {
        "success": exit_code(outcome) == _ALL,
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
        # The sum of what is known is no cost where some of it is not.
        "cost_usd": None if outcome.unpriced_at_most else outcome.full_cost,
        "saved_usd": outcome.saved,
        "unpriced": outcome.unpriced,
        "unpriced_at_most": outcome.unpriced_at_most,
        "lost": outcome.lost,
        "lost_cost": outcome.lost_cost,
        "saved": outcome.saved,
        "prompt_cache_saving": outcome.prompt_cache_saving,
        "over_budget": outcome.over_budget,
        "stopped": outcome.stopped,
        "cancelled": outcome.cancelled,
        "error": outcome.error.for_shell() if outcome.error else None,
        # Of the rows that were run now.
        "errors": list(failures.lines()),
        "errors_by_type": failures.by_type,
    }
