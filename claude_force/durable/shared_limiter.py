"""Rate limits and budgets that all workers share, applied to each attempt by the functions of `schema.py`."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import AsyncIterator, Callable, Dict, List, Optional, Tuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ..errors import OverloadedError, RateLimitError
from ..limits.budget import budget_exceeded, to_nano_usd
from ..limits.rate_limiter import LIMIT_TYPES, Rates, TokenCost, header_number
from ..limits.token_estimator import billable_usage
from ..transport.protocol import AttemptRecord
from ..types import Call, Clock
from .database import Database
from .db_worker import DbWorker, SingleDbOp
from .schema import BUCKETS, BUDGETS, EXCEEDED, SCHEMA, now

# The longest wait before it asks again: another worker's answer may have changed the limits.
_NAP_SECONDS = 1.0
# The pause after a 429 without `retry-after`.
_PAUSE_SECONDS = 1.0
# As in `limits.rate_limiter`: the share of a minute's limit that may be sent at once.
_BURST = 0.1
_NOTHING = TokenCost(0.0)


class SharedLimiter:
    """One worker's access to the shared limits."""

    def __init__(self, worker: DbWorker, clock: Clock, incarnation: str) -> None:
        self.worker, self.clock, self.incarnation = worker, clock, incarnation
        self._turns: Dict[str, asyncio.Lock] = {}

    async def admit(self, admission: Admit) -> None:
        """Waits until the attempt may be sent. Raises BudgetExceededError."""
        # One attempt of a model asks at a time: where there is room for one, not all should ask.
        async with self._turns.setdefault(admission.model, asyncio.Lock()):
            while True:
                seconds = await self.worker.submit(admission)
                if seconds == EXCEEDED:
                    limit, spent = await self.worker.submit(TightestBudget(admission.budgets))
                    raise budget_exceeded(limit / 1e9, spent / 1e9, admission.worst / 1e9)
                if seconds <= 0:
                    return
                await self.clock.sleep(min(seconds, _NAP_SECONDS))


@dataclass(frozen=True)
class SharedCallLimits:
    """The shared limits for one call; implements `SharedLimits`. `budgets` are ids of those that pay."""

    limiter: SharedLimiter
    budgets: Tuple[str, ...]

    @property
    def has_budget(self) -> bool:
        return bool(self.budgets)

    @asynccontextmanager
    async def admit(
        self, call: Call, need: TokenCost, worst: float, record: AttemptRecord, spent: Callable[[], float]
    ) -> AsyncIterator[None]:
        """Implements `SharedLimits.admit`."""
        worker, incarnation = self.limiter.worker, self.limiter.incarnation
        admission = Admit(uuid.uuid4().hex, incarnation, call.model, need, to_nano_usd(worst), self.budgets)
        error: Optional[BaseException] = None
        # Settled even where `admit` fails: it may be cancelled after the database has admitted the attempt.
        try:
            await self.limiter.admit(admission)
            yield
        except BaseException as met:
            error = met
            raise
        finally:
            worker.submit_nowait(_settlement(admission, record, to_nano_usd(spent()), error))


def _settlement(
    admission: Admit, record: AttemptRecord, spent: int, error: Optional[BaseException]
) -> Settle:
    used = admission.need
    if record.usage and record.usage.is_known:
        used = billable_usage(record.usage)
    elif record.began is None or isinstance(error, RateLimitError):
        used = _NOTHING
    seconds = record.ended - record.began if record.began is not None and record.ended is not None else 0.0
    limits, left = parse_limit_headers(record)
    return Settle(admission.id, used, spent, limits, left, seconds, _pause_after(error))


def parse_limit_headers(record: AttemptRecord) -> Tuple[List[Optional[float]], List[Optional[float]]]:
    """Returns limits and remainders by limit type; None where the answer has no such header."""

    def numbers(what: str) -> List[Optional[float]]:
        return [
            header_number(record.headers.get(f"anthropic-ratelimit-{kind}-{what}")) for kind in LIMIT_TYPES
        ]

    return numbers("limit"), numbers("remaining")


def _pause_after(error: Optional[BaseException]) -> float:
    if not isinstance(error, (RateLimitError, OverloadedError)):
        return 0.0
    if error.retry_after is not None:
        return error.retry_after
    return _PAUSE_SECONDS if isinstance(error, RateLimitError) else 0.0


@dataclass(frozen=True)
class Admit(SingleDbOp[float]):
    """Admits an attempt: returns 0, else the seconds after which to ask again, or EXCEEDED.

    `worst` is the most that it may cost, in nano-USD.
    """

    id: str
    incarnation: str
    model: str
    need: TokenCost
    worst: int
    budgets: Tuple[str, ...]

    unbatched = True

    def execute(self, database: Database, connection: sa.Connection) -> float:
        values = {**self.__dict__, "need": _floats(self.need), "budgets": list(self.budgets)}
        seconds: float = connection.execute(_ADMIT, values).scalar_one()
        return seconds


def _floats(need: TokenCost) -> List[float]:
    return [float(amount) for amount in need]


@dataclass(frozen=True)
class Settle(SingleDbOp[None]):
    """Replaces an attempt's estimates by what it used and `spent`, and passes on its answer's limits.

    `seconds` is how long the attempt took, `pause` how long no attempt may be sent.
    """

    id: str
    used: TokenCost
    spent: int
    limits: List[Optional[float]]
    left: List[Optional[float]]
    seconds: float
    pause: float

    unbatched = True

    def execute(self, database: Database, connection: sa.Connection) -> None:
        connection.execute(_SETTLE, {**self.__dict__, "used": _floats(self.used)})


_ADMIT = sa.text(
    f"SELECT {SCHEMA}.cf_admit(:id, :incarnation, :model, CAST(:need AS float8[]), :worst, "
    "CAST(:budgets AS text[]))"
)
_SETTLE = sa.text(
    f"SELECT {SCHEMA}.cf_settle(:id, CAST(:used AS float8[]), CAST(:spent AS bigint), "
    "CAST(:limits AS float8[]), CAST(:left AS float8[]), :seconds, :pause)"
)


@dataclass(frozen=True)
class TightestBudget(SingleDbOp[Tuple[int, int]]):
    """Returns the limit and the spending of the budget that has least left, in nano-USD."""

    budgets: Tuple[str, ...]

    def execute(self, database: Database, connection: sa.Connection) -> Tuple[int, int]:
        found = sa.select(BUDGETS.c.most, BUDGETS.c.spent).where(BUDGETS.c.id.in_(self.budgets))
        row = connection.execute(found.order_by(BUDGETS.c.most - BUDGETS.c.spent).limit(1)).one()
        return row.most, row.spent


@dataclass(frozen=True)
class SetRates(SingleDbOp[None]):
    """Sets limits per minute that all workers share; a rate of None changes nothing."""

    rates: Rates

    def execute(self, database: Database, connection: sa.Connection) -> None:
        for kind, limit in enumerate(self.rates):
            if limit is not None:
                _set_limit(connection, kind, limit)


def _set_limit(connection: sa.Connection, kind: int, limit: float) -> None:
    burst = max(1.0, limit * _BURST)
    row = {"model": "", "kind": kind, "per_minute": limit, "capacity": burst, "spare": 0.0}
    fresh = insert(BUCKETS).values(**row, level=burst, at=now(connection))
    values = {name: getattr(fresh.excluded, name) for name in ("per_minute", "capacity", "level", "at")}
    changes = BUCKETS.c.per_minute != fresh.excluded.per_minute
    connection.execute(
        fresh.on_conflict_do_update(index_elements=["model", "kind"], set_=values, where=changes)
    )
