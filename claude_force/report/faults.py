"""What went wrong, by type, each with what can be done about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Dict, List, Optional, Sequence

from .. import errors
from . import text
from .executions import Execution
from .tables import Column, table

MOST_REQUESTS = 3
NO_ADVICE = "Nothing is known of this type."
COLUMNS = (
    Column("Error"),
    Column("Failed calls", True),
    Column("Failed attempts", True),
    Column("Recovered", True, wide=True),
    Column("Last", wide=True),
    Column("Requests", wide=True),
    Column("Calls"),
)


@dataclass
class Fault:
    """A type of error: the calls that it ended, the attempts that met it, and those whose call succeeded."""

    name: str
    failed: int = 0
    attempts: int = 0
    recovered: int = 0
    last: float = 0.0
    requests: List[str] = field(default_factory=list)


def faults_of(rows: Sequence[Execution]) -> List[Fault]:
    """What ended most calls first."""
    found: Dict[str, Fault] = {}
    for row in rows:
        entry = row.entry
        met = [name for _, _, _, name in entry.timeline if name]
        for name in met:
            fault = found.setdefault(name, Fault(name))
            fault.attempts += 1
            fault.recovered += entry.success
            fault.last = max(fault.last, row.ended)
        if not entry.success:
            name = entry.error_type or "unknown"
            _ended(found.setdefault(name, Fault(name)), row)
    return sorted(found.values(), key=lambda one: (-one.failed, -one.attempts, one.name))


def _ended(fault: Fault, row: Execution) -> None:
    fault.failed += 1
    fault.last = max(fault.last, row.ended)
    if row.entry.request_id:
        fault.requests = [*fault.requests, row.entry.request_id][-MOST_REQUESTS:]


def advice(name: str) -> str:
    """The sentence of the error's class."""
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.ClaudeForceError)):
        return NO_ADVICE
    said: Optional[str] = getattr(kind, "advice", None)
    return said or (kind.__doc__ or NO_ADVICE).splitlines()[0]


def faults(rows: Sequence[Execution], zone: tzinfo) -> str:
    """The table, or that there is nothing to show."""
    found = faults_of(rows)
    if not found:
        return '<p class="empty">No attempt failed.</p>'
    return table("Errors by type", COLUMNS, [_cells(one, zone) for one in found])


def _cells(one: Fault, zone: tzinfo) -> List[str]:
    name = text.escaped(one.name)
    requests = "<br>".join(f"<code>{text.escaped(request)}</code>" for request in one.requests)
    return [
        f'<strong>{name}</strong><p class="advice">{text.escaped(advice(one.name))}</p>',
        text.number(one.failed),
        text.number(one.attempts),
        text.number(one.recovered),
        text.moment(one.last, zone),
        requests or text.NOTHING,
        f'<button type="button" class="show" data-find="{name}" aria-label="Show the calls that met {name}">'
        "Show</button>",
    ]
