"""A ledger's figures, as a whole and by agent, model, workflow and day. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from .decoder import ExecutionRow
from .metrics import UNKNOWN, Metrics, figures_of
from .saturation import TimeAtConcurrencyLimit

# Agent, model, workflow.
Group = Tuple[str, Optional[str], Optional[str]]
_DAY_SECONDS = 86_400


class Summary:
    """Grows with the number of agents, models, workflows and days, not with that of executions.

    Attributes:
        skipped: lines that were none.
    """

    def __init__(self) -> None:
        self.groups: Dict[Group, Metrics] = {}
        self._days: Dict[int, Metrics] = {}
        self.at_limit = TimeAtConcurrencyLimit()
        self.skipped = 0

    def add(self, rows: List[ExecutionRow]) -> None:
        """Takes these executions in."""
        cells: Dict[Tuple[Group, int], List[ExecutionRow]] = {}
        for row in rows:
            group = (row["agent_name"], row.get("model") or None, row.get("workflow_name") or None)
            cells.setdefault((group, int(row["ended"] // _DAY_SECONDS)), []).append(row)
        for (group, day), cell in cells.items():
            self._add(group, day, figures_of(cell))
        self.at_limit.add(rows)

    def _add(self, group: Group, day: int, figures: Metrics) -> None:
        self.groups.setdefault(group, Metrics()).merge(figures)
        self._days.setdefault(day, Metrics()).merge(figures)

    def merge(self, other: Summary) -> None:
        """Adds that of other files. A run that they share is swept for its limit in two parts."""
        for group, figures in other.groups.items():
            self.groups.setdefault(group, Metrics()).merge(figures)
        for day, figures in other._days.items():
            self._days.setdefault(day, Metrics()).merge(figures)
        self.at_limit.merge(other.at_limit)
        self.skipped += other.skipped

    def total(self) -> Metrics:
        """All of it."""
        return merged(self.groups.values())

    def by_agent(self) -> Dict[str, Metrics]:
        """In the order of their names, as the next two."""
        return self._by(lambda group: group[0])

    def by_model(self) -> Dict[str, Metrics]:
        """An execution whose model is not known counts as "unknown"."""
        return self._by(lambda group: group[1] or UNKNOWN)

    def by_workflow(self) -> Dict[str, Metrics]:
        """Executions outside of any workflow are left out."""
        return self._by(lambda group: group[2])

    def by_day(self) -> Dict[str, Metrics]:
        """By the day in UTC on which they ended, as "2026-11-25", in the order of time."""
        days = sorted(self._days.items())
        return {_date(day): merged([figures]) for day, figures in days}

    def as_dict(self) -> Dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **self.total().as_dict(),
            "time_at_concurrency_limit": self.at_limit.share(),
            "by_agent": self.agents_as_dict(),
            "by_model": self.models_as_dict(),
            "by_workflow": _plain(self.by_workflow()),
            "by_day": _plain(self.by_day()),
            "skipped_lines": self.skipped,
        }

    def agents_as_dict(self) -> Dict[str, Any]:
        """The figures of each agent, ready for JSON."""
        return _plain(self.by_agent())

    def models_as_dict(self) -> Dict[str, Any]:
        """The figures of each model, likewise."""
        return _plain(self.by_model())

    def agent_as_dict(self, name: str) -> Dict[str, Any]:
        """The figures of one agent, by model and workflow too, ready for JSON."""
        part = Summary()
        part.groups = {group: figures for group, figures in self.groups.items() if group[0] == name}
        return {
            **part.total().as_dict(),
            "by_model": _plain(part.by_model()),
            "by_workflow": _plain(part.by_workflow()),
        }

    def money(self) -> Dict[str, Any]:
        """The part of it that is about USD, ready for JSON."""
        parts = {
            "by_agent": self.by_agent(),
            "by_model": self.by_model(),
            "by_workflow": self.by_workflow(),
            "by_day": self.by_day(),
        }
        by_part = {
            part: {name: figures.money() for name, figures in of.items()} for part, of in parts.items()
        }
        return {"total": self.total().money(), **by_part}

    def _by(self, key: Callable[[Group], Optional[str]]) -> Dict[str, Metrics]:
        parts: Dict[str, List[Metrics]] = {}
        for group, figures in self.groups.items():
            name = key(group)
            if name is not None:
                parts.setdefault(name, []).append(figures)
        return {name: merged(parts[name]) for name in sorted(parts)}


def merged(parts: Iterable[Metrics]) -> Metrics:
    """New ones; `parts` stay as they are."""
    whole = Metrics()
    for part in parts:
        whole.merge(part)
    return whole


def _plain(parts: Dict[str, Metrics]) -> Dict[str, Any]:
    return {name: figures.as_dict() for name, figures in parts.items()}


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_SECONDS, timezone.utc).date().isoformat()
