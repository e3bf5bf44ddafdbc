"""Outcomes as drivers collect them, and what is charged for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Sequence, Tuple

import sqlalchemy as sa

from .calls import add_budgets, chunks
from .database import Database
from .db_worker import DbOp
from .tables import BUDGETS, RESULTS, now


class Row(NamedTuple):
    """A result as it lies there. `age` is how old it is, in seconds."""

    call_id: str
    figures: str
    text: str
    success: bool
    delivered: bool
    age: float


class BudgetCharge(NamedTuple):
    """What an outcome is to take from a budget of `most`, both in nano-USD."""

    budget: str
    most: int
    nano: int


class Delivered(NamedTuple):
    """A ticket whose outcome was delivered, with what is charged for it the first time that it is."""

    call_id: str
    charges: Tuple[BudgetCharge, ...] = ()


@dataclass(frozen=True)
class Collect(DbOp[Dict[str, Row]]):
    """The results that are there of those asked for; `seen` were delivered, and are counted no second
    time."""

    call_ids: Tuple[str, ...]
    seen: Tuple[Delivered, ...] = ()

    @property
    def about(self) -> Sequence[str]:
        return (*self.call_ids, *(one.call_id for one in self.seen))

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Collect]
    ) -> Sequence[Dict[str, Row]]:
        _note_seen(connection, {one.call_id: one.charges for job in jobs for one in job.seen})
        rows: Dict[str, Row] = {}
        age = (now(connection) - RESULTS.c.created).label("age")
        columns = (*(RESULTS.c[name] for name in _ROW), age)
        for part in chunks([call_id for job in jobs for call_id in job.call_ids]):
            for row in connection.execute(sa.select(*columns).where(RESULTS.c.id.in_(part))):
                rows[row.id] = Row(*row)
        return [{call_id: rows[call_id] for call_id in job.call_ids if call_id in rows} for job in jobs]


_ROW = ("id", "figures", "text", "success", "delivered")


def _note_seen(connection: sa.Connection, seen: Dict[str, Tuple[BudgetCharge, ...]]) -> None:
    fresh: List[str] = []
    for part in chunks(sorted(seen)):
        told = sa.update(RESULTS).where(RESULTS.c.id.in_(part), RESULTS.c.delivered.is_(False))
        fresh += connection.execute(told.values(delivered=True).returning(RESULTS.c.id)).scalars()
    charges = [charge for call_id in fresh for charge in seen[call_id]]
    if not charges:
        return
    add_budgets(connection, {one.budget: one.most for one in charges}, now(connection))
    for budget in sorted({one.budget for one in charges}):
        usd = sum(one.nano for one in charges if one.budget == budget)
        change = sa.update(BUDGETS).where(BUDGETS.c.id == budget)
        connection.execute(change.values(spent=BUDGETS.c.spent + usd))
