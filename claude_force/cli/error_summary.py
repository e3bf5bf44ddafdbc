"""Errors of many rows by kind: how often, in which rows, and the server's words of the first. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Tuple

from ..errors import CallError, ClaudeForceError
from ..formatting import pluralize

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
