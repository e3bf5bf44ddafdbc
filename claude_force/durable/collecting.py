"""Outcomes as drivers collect them, and what is charged for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Sequence, Tuple

import sqlalchemy as sa

from .calls import add_budgets, chunks
from .database import Database
from .desk import Job
from .tables import BUDGETS, RESULTS, now


class Row(NamedTuple):
    """A result as it lies there. `age` is how old it is, in seconds."""

    ticket: str
    figures: str
    text: str
    success: bool
    delivered: bool
    age: float


class Charge(NamedTuple):
    """What an outcome is to take from a budget of `most`, both in nano-USD."""

    budget: str
    most: int
    nano: int


class Seen(NamedTuple):
    """A ticket whose outcome was delivered, with what is charged for it the first time that it is."""

    ticket: str
    charges: Tuple[Charge, ...] = ()


@dataclass(frozen=True)
class Collect(Job[Dict[str, Row]]):
    """The results that are there of those asked for; `seen` were delivered, and are counted no second
    time."""

    tickets: Tuple[str, ...]
    seen: Tuple[Seen, ...] = ()

    @property
    def about(self) -> Sequence[str]:
        return (*self.tickets, *(one.ticket for one in self.seen))

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Collect]
    ) -> Sequence[Dict[str, Row]]:
        _note_seen(connection, {one.ticket: one.charges for job in jobs for one in job.seen})
        rows: Dict[str, Row] = {}
        age = (now(connection) - RESULTS.c.created).label("age")
        columns = (*(RESULTS.c[name] for name in _ROW), age)
        for part in chunks([ticket for job in jobs for ticket in job.tickets]):
            for row in connection.execute(sa.select(*columns).where(RESULTS.c.id.in_(part))):
                rows[row.id] = Row(*row)
        return [{ticket: rows[ticket] for ticket in job.tickets if ticket in rows} for job in jobs]


_ROW = ("id", "figures", "text", "success", "delivered")


def _note_seen(connection: sa.Connection, seen: Dict[str, Tuple[Charge, ...]]) -> None:
    fresh: List[str] = []
    for part in chunks(sorted(seen)):
        told = sa.update(RESULTS).where(RESULTS.c.id.in_(part), RESULTS.c.delivered.is_(False))
        fresh += connection.execute(told.values(delivered=True).returning(RESULTS.c.id)).scalars()
    charges = [charge for ticket in fresh for charge in seen[ticket]]
    if not charges:
        return
    add_budgets(connection, {one.budget: one.most for one in charges}, now(connection))
    for budget in sorted({one.budget for one in charges}):
        usd = sum(one.nano for one in charges if one.budget == budget)
        change = sa.update(BUDGETS).where(BUDGETS.c.id == budget)
        connection.execute(change.values(spent=BUDGETS.c.spent + usd))
