"""Pace and budgets that all workers share, before each attempt and after it. The decisions: functions.py."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, AsyncIterator, Callable, Dict, List, Optional, Sequence, Tuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ..clock import Clock
from ..errors import BudgetExceededError, CallError, OverloadedError, RateLimitError
from ..limits.budget import budget_exceeded, to_nano_usd
from ..limits.rate_limiter import LIMIT_TYPES, Rates, TokenCost, header_number
from ..limits.token_estimator import billable_usage
from ..transport.protocol import AttemptRecord
from ..types import Call
from .database import Database
from .db_worker import DbOp, DbWorker
from .functions import EXCEEDED
from .tables import BUCKETS, BUDGETS, SCHEMA, now

# The first in line looks again at least so often: another's pause or answer may have changed what holds.
_NAP_SECONDS = 1.0
# A 429 that names no time.
_PAUSE_SECONDS = 1.0
# As in `limits.rate_limiter`: a limit set by hand is spread over the minute.
_BURST = 0.1
_NOTHING = TokenCost(0.0)


class Limits:
    """What one worker knows of the limits that it shares: nothing, it asks. One for each worker."""

    def __init__(self, desk: DbWorker, clock: Clock, life: str) -> None:
        self.desk, self.clock, self.life = desk, clock, life
        self._turns: Dict[str, asyncio.Lock] = {}

    def guard(self, budgets: Tuple[str, ...]) -> SharedGuard:
        """For one call, whose budgets have these ids."""
        return SharedGuard(self, budgets)

    async def admit(self, admission: Admit) -> None:
        """Returns when the attempt may be made. Those of one model ask one after the other, so that no herd
        asks where one can go. Raises BudgetExceededError."""
        turn = self._turns.setdefault(admission.model, asyncio.Lock())
        async with turn:
            while True:
                seconds = await self.desk.do(admission)
                if seconds == EXCEEDED:
                    raise await self._exceeded(admission)
                if seconds <= 0:
                    return
                await self.clock.sleep(min(seconds, _NAP_SECONDS))

    async def _exceeded(self, admission: Admit) -> BudgetExceededError:
        most, spent = await self.desk.do(Tightest(admission.budgets, admission.worst))
        return budget_exceeded(most / 1e9, spent / 1e9, admission.worst / 1e9)


@dataclass(frozen=True)
class SharedGuard:
    """Implements `SharedLimits`."""

    limits: Limits
    budgets: Tuple[str, ...]

    @property
    def keeps_budget(self) -> bool:
        return bool(self.budgets)

    @asynccontextmanager
    async def slot(
        self, call: Call, need: TokenCost, worst: float, record: AttemptRecord, spent: Callable[[], float]
    ) -> AsyncIterator[None]:
        limits = self.limits
        admission = Admit(uuid.uuid4().hex, limits.life, call.model, need, to_nano_usd(worst), self.budgets)
        error: Optional[BaseException] = None
        # In doubt from the first question on: a cancellation may come when it is granted already.
        try:
            await limits.admit(admission)
            yield
        except BaseException as met:
            error = met
            raise
        finally:
            limits.desk.leave(_settlement(admission.id, need, record, spent, error))


def _settlement(
    identity: str,
    need: TokenCost,
    record: AttemptRecord,
    spent: Callable[[], float],
    error: Optional[BaseException],
) -> Settle:
    used = need
    if record.usage and record.usage.is_known:
        used = billable_usage(record.usage)
    elif record.began is None or isinstance(error, RateLimitError):
        used = _NOTHING
    seconds = record.ended - record.began if record.began is not None and record.ended is not None else 0.0
    limits, left = told(record)
    return Settle(identity, used, to_nano_usd(spent()), limits, left, seconds, _pause(error))


def told(record: AttemptRecord) -> Tuple[List[Optional[float]], List[Optional[float]]]:
    """Limits and what is left of them, as far as the answer's headers tell."""

    def numbers(what: str) -> List[Optional[float]]:
        return [
            header_number(record.headers.get(f"anthropic-ratelimit-{kind}-{what}")) for kind in LIMIT_TYPES
        ]

    return numbers("limit"), numbers("remaining")


def _pause(error: Optional[BaseException]) -> float:
    if not isinstance(error, (RateLimitError, OverloadedError)) or not isinstance(error, CallError):
        return 0.0
    if error.retry_after is not None:
        return error.retry_after
    return _PAUSE_SECONDS if isinstance(error, RateLimitError) else 0.0


@dataclass(frozen=True)
class Admit(DbOp[float]):
    """0, and the attempt is counted; the seconds after which to ask again; or EXCEEDED."""

    id: str
    life: str
    model: str
    need: TokenCost
    worst: int
    budgets: Tuple[str, ...]

    alone = True

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Admit]
    ) -> Sequence[float]:
        return [connection.execute(_ADMIT, job._arguments()).scalar_one() for job in jobs]

    def _arguments(self) -> Dict[str, Any]:
        return {
            "id": self.id,
            "life": self.life,
            "model": self.model,
            "need": _floats(self.need),
            "worst": self.worst,
            "budgets": list(self.budgets),
        }


def _floats(need: TokenCost) -> List[float]:
    return [float(amount) for amount in need]


@dataclass(frozen=True)
class Settle(DbOp[None]):
    """What an attempt took, in the place of what was counted for it, and what its answer told of the
    limits."""

    id: str
    used: TokenCost
    spent: int
    limits: List[Optional[float]]
    left: List[Optional[float]]
    seconds: float
    pause: float

    alone = True

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Settle]
    ) -> Sequence[None]:
        for job in jobs:
            connection.execute(_SETTLE, {**job.__dict__, "used": _floats(job.used)})
        return [None] * len(jobs)


_ADMIT = sa.text(
    f"SELECT {SCHEMA}.cf_admit(:id, :life, :model, CAST(:need AS float8[]), :worst, CAST(:budgets AS text[]))"
)
_SETTLE = sa.text(
    f"SELECT {SCHEMA}.cf_settle(:id, CAST(:used AS float8[]), CAST(:spent AS bigint), "
    "CAST(:limits AS float8[]), CAST(:left AS float8[]), :seconds, :pause)"
)


@dataclass(frozen=True)
class Tightest(DbOp[Tuple[int, int]]):
    """Of the budgets that have no room for `worst`, one's limit and what is spent of it, in nano-USD."""

    budgets: Tuple[str, ...]
    worst: int

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[Tightest]
    ) -> Sequence[Tuple[int, int]]:
        return [job._look(connection) for job in jobs]

    def _look(self, connection: sa.Connection) -> Tuple[int, int]:
        row = connection.execute(
            sa.select(BUDGETS.c.most, BUDGETS.c.spent)
            .where(BUDGETS.c.id.in_(self.budgets))
            .order_by((BUDGETS.c.most - BUDGETS.c.spent).asc())
            .limit(1)
        ).one()
        return row.most, row.spent


@dataclass(frozen=True)
class SetByHand(DbOp[None]):
    """Limits for each minute that all workers keep together; None leaves what is there."""

    rates: Rates

    @classmethod
    def together(
        cls, database: Database, connection: sa.Connection, jobs: Sequence[SetByHand]
    ) -> Sequence[None]:
        for job in jobs:
            for kind, limit in enumerate(job.rates):
                if limit is not None:
                    _set_limit(connection, kind, limit)
        return [None] * len(jobs)


def _set_limit(connection: sa.Connection, kind: int, limit: float) -> None:
    most = max(1.0, limit * _BURST)
    row = {"model": "", "kind": kind, "per_minute": limit, "capacity": most, "spare": 0.0}
    fresh = insert(BUCKETS).values(**row, level=most, at=now(connection))
    values = {name: getattr(fresh.excluded, name) for name in ("per_minute", "capacity", "level", "at")}
    changes = BUCKETS.c.per_minute != fresh.excluded.per_minute
    connection.execute(
        fresh.on_conflict_do_update(index_elements=["model", "kind"], set_=values, where=changes)
    )
