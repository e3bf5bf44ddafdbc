"""The figures that a number of executions add up to. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional, Sequence

from ..errors import ClaudeForceError, DeadlineExceededError, SilenceError
from ..types import CUT_OFF, REFUSAL
from .ddsketch import Distribution
from .decoder import ExecutionRow

TIMEOUTS = (SilenceError.__name__, DeadlineExceededError.__name__)
# The error of an execution that failed and whose line does not say how.
UNKNOWN = "unknown"
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass
class Metrics:
    """Sums and distributions; times in milliseconds, money in USD, moments in Unix seconds.

    Attributes:
        errors: how often each type of error ended an execution.
        cached, shared: answers that were kept, and those that another, identical call was just being given.
        retries: attempts beyond the first of each execution.
        input_tokens: of the prompt, those that the prompt cache read and wrote among them.
        truncated, refused, empty: answers that were cut off, declined or without text.
        cost: of those whose cost is known; `unknown_price` counts those whose cost is not, and
            `unknown_at_most` is the most that they may have cost, as far as that is known. A failed call of
            which nothing was billed counts in neither.
        saved_cost: what cached and shared answers would have cost; `unknown_saving` counts those of them
            whose price is not known.
        wall: from the call to its result. wait: none of its attempts was on the wire; service: one was, of
            executions that made an attempt. The lines of older formats tell neither of the two.
        began, ended: the first begin and the last end; None for no execution.
    """

    executions: int = 0
    successes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    cached: int = 0
    shared: int = 0
    truncated: int = 0
    refused: int = 0
    empty: int = 0
    attempts: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: float = 0.0
    unknown_price: int = 0
    unknown_at_most: float = 0.0
    saved_cost: float = 0.0
    unknown_saving: int = 0
    prompt_cache_saving: float = 0.0
    wall: Distribution = field(default_factory=Distribution)
    wait: Distribution = field(default_factory=Distribution)
    service: Distribution = field(default_factory=Distribution)
    began: Optional[float] = None
    ended: Optional[float] = None

    @property
    def failures(self) -> int:
        return self.executions - self.successes

    @property
    def timeouts(self) -> int:
        """Executions that ended by the server's silence or at their deadline."""
        return sum(self.errors[name] for name in TIMEOUTS)

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def seconds(self) -> Optional[float]:
        """From the first begin to the last end; None where that is nothing."""
        if self.began is None or self.ended is None or self.ended <= self.began:
            return None
        return self.ended - self.began

    def merge(self, other: Metrics) -> None:
        """Adds those of other executions."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors.update(other.errors)
        for name in _DISTRIBUTIONS:
            getattr(self, name).merge(getattr(other, name))
        if other.began is not None and other.ended is not None:
            self.began = other.began if self.began is None else min(self.began, other.began)
            self.ended = other.ended if self.ended is None else max(self.ended, other.ended)

    def as_dict(self) -> Dict[str, Any]:
        """Plain values, ready for JSON; None for a share, a mean or a rate of nothing."""
        return {
            "executions": self.executions,
            "successes": self.successes,
            "errors": self.failures,
            "error_rate": _share(self.failures, self.executions),
            "errors_by_type": dict(self.errors.most_common()),
            "timeouts": self.timeouts,
            "timeout_rate": _share(self.timeouts, self.executions),
            "cached": self.cached,
            "cache_hit_rate": _share(self.cached, self.executions),
            "shared": self.shared,
            "shared_rate": _share(self.shared, self.executions),
            "truncated": self.truncated,
            "refused": self.refused,
            "empty": self.empty,
            "attempts": self.attempts,
            "retries": self.retries,
            **{f"{name}_ms": _distributed(getattr(self, name)) for name in _DISTRIBUTIONS},
            "tokens": self._tokens(),
            **self.money(),
            **self._pace(),
        }

    def money(self) -> Dict[str, Any]:
        """The part of `as_dict` that is about USD."""
        return {
            "cost_usd": self.cost,
            "unknown_price": self.unknown_price,
            "unknown_at_most_usd": self.unknown_at_most,
            "saved_usd": self.saved_cost,
            "unknown_saving": self.unknown_saving,
            "prompt_cache_saving_usd": self.prompt_cache_saving,
        }

    def _tokens(self) -> Dict[str, int]:
        return {
            "input": self.input_tokens,
            "output": self.output_tokens,
            "cache_read": self.cache_read_tokens,
            "cache_write": self.cache_write_tokens,
            "total": self.total_tokens,
        }

    def _pace(self) -> Dict[str, Any]:
        seconds = self.seconds
        return {
            "began": _iso(self.began),
            "ended": _iso(self.ended),
            "executions_per_second": self.executions / seconds if seconds else None,
            "tokens_per_minute": self.total_tokens * 60 / seconds if seconds else None,
        }


_DISTRIBUTIONS = ("wall", "wait", "service")
_SUMS = (
    *("executions", "successes", "cached", "shared", "truncated", "refused", "empty", "attempts", "retries"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("cost", "unknown_price", "unknown_at_most", "saved_cost", "unknown_saving", "prompt_cache_saving"),
)


def figures_of(rows: Sequence[ExecutionRow]) -> Metrics:
    """Of these executions. By columns: a loop over the rows takes twice as long."""

    def column(name: str, default: Any = None) -> Any:
        return [row.get(name, default) for row in rows]

    failures = [row.get("error_type") or UNKNOWN for row in rows if not row.get("success", True)]
    costs, attempts = column("estimated_cost"), column("attempts", 0)
    free = [row for row in rows if row.get("cached") or row.get("shared")]
    unknown = _unpriced(rows) if None in costs else []
    savings = [row.get("saved_cost") for row in free]
    ended, walls = column("ended"), column("execution_time_ms", 0)
    return Metrics(
        executions=len(rows),
        successes=len(rows) - len(failures),
        errors=Counter(failures),
        cached=sum(1 for row in free if row.get("cached")),
        shared=sum(1 for row in free if not row.get("cached")),
        attempts=sum(attempts),
        retries=sum(made - 1 for made in attempts if made > 1),
        input_tokens=sum(column("input_tokens", 0)),
        output_tokens=sum(column("output_tokens", 0)),
        cache_read_tokens=sum(column("cache_read_tokens", 0)),
        cache_write_tokens=sum(column("cache_write_tokens", 0)),
        cost=math.fsum(filter(None, costs)),
        unknown_price=len(unknown),
        unknown_at_most=math.fsum(filter(None, [row.get("cost_at_most") for row in unknown])),
        **_incomplete(column("stop_reason"), column("empty")),
        saved_cost=math.fsum(filter(None, savings)),
        unknown_saving=savings.count(None),
        prompt_cache_saving=math.fsum(filter(None, column("prompt_cache_saving"))),
        wall=Distribution(walls),
        wait=Distribution([row["wait_ms"] for row in rows if "wait_ms" in row]),
        service=Distribution(
            [row["service_time_ms"] for row in rows if row.get("attempts") and "service_time_ms" in row]
        ),
        began=min((end - wall / 1000 for end, wall in zip(ended, walls)), default=None),
        ended=max(ended, default=None),
    )


def _incomplete(stops: List[Optional[str]], empty: List[Optional[bool]]) -> Dict[str, int]:
    # Lines of older formats have the stop reason alone.
    truncated, refused = sum(map(stops.count, CUT_OFF)), stops.count(REFUSAL)
    return {"truncated": truncated, "refused": refused, "empty": empty.count(True)}


def _unpriced(rows: Sequence[ExecutionRow]) -> List[ExecutionRow]:
    return [
        row
        for row in rows
        if row.get("estimated_cost") is None
        and (row.get("success", True) or row.get("cost_at_most", 0.0) != 0)
    ]


def advice_on(error_type: str) -> Optional[str]:
    """What can be done about an error of this name; None for one that is not this package's."""
    kinds = [ClaudeForceError]
    while kinds:
        kind = kinds.pop()
        if kind.__name__ == error_type:
            return getattr(kind, "advice", None)
        kinds += kind.__subclasses__()
    return None


def _distributed(values: Distribution) -> Dict[str, Any]:
    figures: Dict[str, Any] = {name: values.quantile(share) for name, share in _PERCENTILES.items()}
    most = values.most if values.count else None
    return {**figures, "mean": values.mean, "max": most, "exact": values.is_exact}


def _share(part: int, whole: int) -> Optional[float]:
    return part / whole if whole else None


def _iso(unix: Optional[float]) -> Optional[str]:
    return None if unix is None else datetime.fromtimestamp(unix, timezone.utc).isoformat()
