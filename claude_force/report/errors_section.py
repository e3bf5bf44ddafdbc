"""What went wrong, by type, each with what can be done about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Dict, List, Sequence

from ..ledger.metrics import UNKNOWN, advice_for
from . import text
from .executions import Execution
from .tables import Column, table

MOST_REQUESTS = 3
NO_ADVICE = "The ledger knows no advice for it."
COLUMNS = (
    Column("Error"),
    Column("Failed calls", True),
    Column("Failed attempts", True),
    Column("Recovered", True, wide=True),
    Column("Last", wide=True),
    Column("Last requests", wide=True),
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


def faults_of(executions: Sequence[Execution]) -> List[Fault]:
    """What ended most calls first."""
    found: Dict[str, Fault] = {}
    for execution in executions:
        entry = execution.entry
        met = [name for _, _, _, name in entry.timeline if name]
        for name in met:
            fault = found.setdefault(name, Fault(name))
            fault.attempts += 1
            fault.recovered += entry.success
            fault.last = max(fault.last, execution.ended)
        if not entry.success:
            name = entry.error_type or UNKNOWN
            _ended(found.setdefault(name, Fault(name)), execution)
    return sorted(found.values(), key=lambda one: (-one.failed, -one.attempts, one.name))


def _ended(fault: Fault, execution: Execution) -> None:
    fault.failed += 1
    fault.last = max(fault.last, execution.ended)
    if execution.entry.request_id:
        fault.requests = [*fault.requests, execution.entry.request_id][-MOST_REQUESTS:]


def faults(executions: Sequence[Execution], zone: tzinfo) -> str:
    """The table, or that there is nothing to show."""
    found = faults_of(executions)
    if not found:
        return '<p class="empty">No attempt failed.</p>'
    return table("Errors by type", COLUMNS, [_cells(one, zone) for one in found])


def _cells(one: Fault, zone: tzinfo) -> List[str]:
    name, advice = text.escaped(one.name), text.escaped(advice_for(one.name) or NO_ADVICE)
    requests = "<br>".join(f"<code>{text.escaped(request)}</code>" for request in one.requests)
    return [
        f'<strong>{name}</strong><p class="advice">{advice}</p><button type="button" class="show link" '
        f'data-find="{name}" aria-label="Show the calls that met {name}">Show the calls</button>',
        text.number(one.failed),
        text.number(one.attempts),
        text.number(one.recovered),
        text.moment(one.last, zone),
        requests or text.NOTHING,
    ]
