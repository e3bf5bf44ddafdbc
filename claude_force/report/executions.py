"""The executions of a report, each with its place in time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, List, Optional

from ..ledger.entry import Entry
from ..ledger.window import unix_of

ANSWERED, FAILED, KEPT = "answered", "failed", "kept"


@dataclass(frozen=True)
class Execution:
    """An entry that began and ended at these moments, Unix time in seconds."""

    entry: Entry
    began: float
    ended: float

    @property
    def kept(self) -> bool:
        """Whether no request of its own was needed."""
        return self.entry.cached or self.entry.shared

    @property
    def outcome(self) -> str:
        """ANSWERED, FAILED or KEPT."""
        if not self.entry.success:
            return FAILED
        return KEPT if self.kept else ANSWERED

    @property
    def sent(self) -> bool:
        """Whether it was on the wire."""
        return bool(self.entry.timeline) or self.entry.service_time_ms > 0

    @property
    def saved(self) -> Optional[float]:
        """USD that were not paid: for a whole answer, or for the part of a prompt that the API had kept."""
        return self.entry.saved_cost if self.kept else self.entry.prompt_cache_saving


def executions_of(entries: Iterable[Entry]) -> List[Execution]:
    """By the moment of their begin."""
    return sorted(map(_execution, entries), key=lambda row: row.began)


def _execution(entry: Entry) -> Execution:
    ended = unix_of(entry.timestamp)
    return Execution(entry, ended - entry.execution_time_ms / 1000, ended)
