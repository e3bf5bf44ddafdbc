"""Metrics of executions, in total and by agent, model, workflow and day. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ..errors import ClaudeForceError, DeadlineExceededError, SilenceError
from ..types import CUT_OFF, REFUSAL
from .ddsketch import Distribution
from .entry import ExecutionRow
from .saturation import TimeAtConcurrencyLimit

# Agent, model, workflow.
GroupKey = Tuple[str, Optional[str], Optional[str]]

# Stands for a model or an error type that a line doesn't name.
UNKNOWN = "unknown"
_TIMEOUTS = (SilenceError.__name__, DeadlineExceededError.__name__)
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_DAY_SECONDS = 86_400


@dataclass
class Metrics:
    """Sums and distributions; durations in milliseconds, money in USD, points in time in Unix seconds.

    A run of an agent with tools is one execution; attempts, tokens and money are those of all its turns.

    Attributes:
        errors: the number of executions that each error type ended.
        cached, shared: answers from the cache, and answers shared with an identical call in flight.
        retries: attempts after the first of each execution.
        input_tokens: tokens of prompts, including those read from and written to the prompt cache.
        truncated, refused, empty: answers that were cut off, declined, or without text.
        turns, tool_calls, failed_tool_calls: of agents that used tools.
        cost: the sum of known costs. `unknown_price` counts the executions whose cost is unknown, and
            `unknown_at_most` is an upper bound of their cost, as far as there is one. Failed calls that were
            not billed count in neither.
        saved_cost: what cached and shared answers would have cost; `unknown_saving` counts those of them
            without a known price.
        wall: from the call to its result. wait and service: the parts without and with an attempt on the
            wire. Lines of older formats have only `wall`; service leaves out executions without an attempt.
        began, ended: the first start and the last end; None without executions.
    """

    executions: int = 0
    successes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    cached: int = 0
    shared: int = 0
    truncated: int = 0
    refused: int = 0
    empty: int = 0
    turns: int = 0
    tool_calls: int = 0
    failed_tool_calls: int = 0
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
        """The number of executions without success."""
        return self.executions - self.successes

    @property
    def timeouts(self) -> int:
        """The number of executions that ended by the server's silence or at their deadline."""
        return sum(self.errors[name] for name in _TIMEOUTS)

    @property
    def total_tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens

    @property
    def seconds(self) -> Optional[float]:
        """Seconds from the first start to the last end; None if there is no such time."""
        if self.began is None or self.ended is None or self.ended <= self.began:
            return None
        return self.ended - self.began

    def merge(self, other: Metrics) -> None:
        """Adds the metrics of other executions."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors.update(other.errors)
        for name in _DISTRIBUTIONS:
            getattr(self, name).merge(getattr(other, name))
        if other.began is not None and other.ended is not None:
            self.began = other.began if self.began is None else min(self.began, other.began)
            self.ended = other.ended if self.ended is None else max(self.ended, other.ended)

    def as_dict(self) -> Dict[str, Any]:
        """Returns values for JSON; None for a ratio, a mean or a rate without executions."""
        seconds = self.seconds
        return {
            "executions": self.executions,
            "successes": self.successes,
            "errors": self.failures,
            "error_rate": _ratio(self.failures, self.executions),
            "errors_by_type": dict(self.errors.most_common()),
            "timeouts": self.timeouts,
            "timeout_rate": _ratio(self.timeouts, self.executions),
            "cached": self.cached,
            "cache_hit_rate": _ratio(self.cached, self.executions),
            "shared": self.shared,
            "shared_rate": _ratio(self.shared, self.executions),
            "truncated": self.truncated,
            "refused": self.refused,
            "empty": self.empty,
            "turns": self.turns,
            "tool_calls": self.tool_calls,
            "failed_tool_calls": self.failed_tool_calls,
            "attempts": self.attempts,
            "retries": self.retries,
            **{f"{name}_ms": _percentiles(getattr(self, name)) for name in _DISTRIBUTIONS},
            "tokens": {
                "input": self.input_tokens,
                "output": self.output_tokens,
                "cache_read": self.cache_read_tokens,
                "cache_write": self.cache_write_tokens,
                "total": self.total_tokens,
            },
            **self.money(),
            "began": _iso(self.began),
            "ended": _iso(self.ended),
            "executions_per_second": self.executions / seconds if seconds else None,
            "tokens_per_minute": self.total_tokens * 60 / seconds if seconds else None,
        }

    def money(self) -> Dict[str, Any]:
        """Returns the part of `as_dict` that is in USD."""
        return {
            "cost_usd": self.cost,
            "unknown_price": self.unknown_price,
            "unknown_at_most_usd": self.unknown_at_most,
            "saved_usd": self.saved_cost,
            "unknown_saving": self.unknown_saving,
            "prompt_cache_saving_usd": self.prompt_cache_saving,
        }


_DISTRIBUTIONS = ("wall", "wait", "service")
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_SUMS = tuple(field.name for field in fields(Metrics) if field.type in ("int", "float"))


def compute_metrics(rows: Sequence[ExecutionRow]) -> Metrics:
    """Returns the metrics of executions, column by column: a loop over rows takes twice as long."""

    requests = rows
    if any("execution" in row for row in rows):
        # Of an agent with tools, the lines of turns have the requests, and one line has the outcome.
        requests = [row for row in rows if "turn" in row or "execution" not in row]
        rows = [row for row in rows if "turn" not in row]
    return Metrics(
        **_outcomes(rows), **_requests(requests), **_span(rows if rows is requests else [*rows, *requests])
    )


def _outcomes(rows: Sequence[ExecutionRow]) -> Dict[str, Any]:
    """Returns what executions count."""
    failures = [row.get("error_type") or UNKNOWN for row in rows if not row.get("success", True)]
    free = [row for row in rows if row.get("cached") or row.get("shared")]
    stops = _column(rows, "stop_reason")
    return {
        "executions": len(rows),
        "successes": len(rows) - len(failures),
        "errors": Counter(failures),
        "cached": sum(1 for row in free if row.get("cached")),
        "shared": sum(1 for row in free if not row.get("cached")),
        # By the stop reason, because lines of older formats have no flags for these.
        "truncated": sum(map(stops.count, CUT_OFF)),
        "refused": stops.count(REFUSAL),
        "empty": _column(rows, "empty").count(True),
        **_tool_counts([row for row in rows if "turns" in row]),
        "wall": Distribution(_column(rows, "execution_time_ms", 0)),
        "wait": Distribution([row["wait_ms"] for row in rows if "wait_ms" in row]),
        "service": Distribution(
            [
                row["service_time_ms"]
                for row in rows
                if "service_time_ms" in row
                and (row.get("attempts") or (row.get("turns") and row["service_time_ms"]))
            ]
        ),
    }


def _tool_counts(rows: Sequence[ExecutionRow]) -> Dict[str, int]:
    """Returns what agents that used tools count; {} without one."""
    if not rows:
        return {}
    calls = [call for row in rows for call in row.get("tools", ())]
    return {
        "turns": sum(row["turns"] for row in rows),
        "tool_calls": len(calls),
        "failed_tool_calls": sum(call[-1] for call in calls),
    }


def _requests(rows: Sequence[ExecutionRow]) -> Dict[str, Any]:
    """Returns what requests count: attempts, tokens and money."""
    costs, attempts = _column(rows, "estimated_cost"), _column(rows, "attempts", 0)
    unknown = _unpriced(rows) if None in costs else []
    savings = [row.get("saved_cost") for row in rows if _saves(row)]
    return {
        "attempts": sum(attempts),
        "retries": sum(count - 1 for count in attempts if count > 1),
        **{name: sum(_column(rows, name, 0)) for name in _TOKENS},
        "cost": _sum_known(costs),
        "unknown_price": len(unknown),
        "unknown_at_most": _sum_known([row.get("cost_at_most") for row in unknown]),
        "saved_cost": _sum_known(savings),
        "unknown_saving": savings.count(None),
        "prompt_cache_saving": _sum_known(_column(rows, "prompt_cache_saving")),
    }


def _saves(row: ExecutionRow) -> bool:
    """Whether an answer was not paid for; of joined turns, some of the answers."""
    return bool(row.get("cached") or row.get("shared") or (row.get("turns") and "saved_cost" in row))


def _span(rows: Sequence[ExecutionRow]) -> Dict[str, Any]:
    ended = _column(rows, "ended")
    began = (end - wall / 1000 for end, wall in zip(ended, _column(rows, "execution_time_ms", 0)))
    return {"began": min(began, default=None), "ended": max(ended, default=None)}


def _column(rows: Sequence[ExecutionRow], name: str, default: Any = None) -> List[Any]:
    return [row.get(name, default) for row in rows]


def _unpriced(rows: Sequence[ExecutionRow]) -> List[ExecutionRow]:
    return [
        row
        for row in rows
        if row.get("estimated_cost") is None
        and (row.get("success", True) or row.get("cost_at_most", 0.0) != 0)
    ]


class Summary:
    """Metrics of a ledger. Its memory grows with agents, models, workflows and days, not with executions.

    Attributes:
        groups: metrics by agent, model and workflow.
        at_limit: the time at the concurrency limit.
        skipped: the number of lines that could not be read.
    """

    def __init__(self) -> None:
        self.groups: Dict[GroupKey, Metrics] = {}
        self._days: Dict[int, Metrics] = {}
        self.at_limit = TimeAtConcurrencyLimit()
        self.skipped = 0

    def add(self, rows: Sequence[ExecutionRow]) -> None:
        """Adds these executions."""
        cells: Dict[Tuple[GroupKey, int], List[ExecutionRow]] = {}
        for row in rows:
            group = (row["agent_name"], row.get("model") or None, row.get("workflow_name") or None)
            cells.setdefault((group, int(row["ended"] // _DAY_SECONDS)), []).append(row)
        for (group, day), cell in cells.items():
            metrics = compute_metrics(cell)
            self.groups.setdefault(group, Metrics()).merge(metrics)
            self._days.setdefault(day, Metrics()).merge(metrics)
        self.at_limit.add(rows)

    def total(self) -> Metrics:
        """Returns the metrics of all executions."""
        return _merge(self.groups.values())

    def by_agent(self) -> Dict[str, Metrics]:
        """Returns the metrics of each agent, sorted by name."""
        return self._by(lambda group: group[0])

    def by_model(self) -> Dict[str, Metrics]:
        """Returns the metrics of each model, sorted by name; "unknown" for executions without one."""
        return self._by(lambda group: group[1] or UNKNOWN)

    def by_workflow(self) -> Dict[str, Metrics]:
        """Returns the metrics of each workflow, sorted by name, without executions outside of workflows."""
        return self._by(lambda group: group[2])

    def by_day(self) -> Dict[str, Metrics]:
        """Returns the metrics of each day, such as "2026-11-25", by the end of executions in UTC."""
        return {_date(day): _merge([metrics]) for day, metrics in sorted(self._days.items())}

    def as_dict(self) -> Dict[str, Any]:
        """Returns values for JSON, as `PerformanceTracker.get_performance_summary` describes them."""
        return {
            **self.total().as_dict(),
            "time_at_concurrency_limit": self.at_limit.share(),
            "by_agent": self.agents_as_dict(),
            "by_model": self.models_as_dict(),
            "by_workflow": _as_dicts(self.by_workflow()),
            "by_day": _as_dicts(self.by_day()),
            "skipped_lines": self.skipped,
        }

    def agents_as_dict(self) -> Dict[str, Any]:
        """Returns `by_agent` as values for JSON."""
        return _as_dicts(self.by_agent())

    def models_as_dict(self) -> Dict[str, Any]:
        """Returns `by_model` as values for JSON."""
        return _as_dicts(self.by_model())

    def agent_as_dict(self, name: str) -> Dict[str, Any]:
        """Returns the metrics of one agent, also by model and workflow, as values for JSON."""
        part = Summary()
        part.groups = {group: metrics for group, metrics in self.groups.items() if group[0] == name}
        return {
            **part.total().as_dict(),
            "by_model": part.models_as_dict(),
            "by_workflow": _as_dicts(part.by_workflow()),
        }

    def money(self) -> Dict[str, Any]:
        """Returns what is in USD, as `PerformanceTracker.get_cost_breakdown` describes it."""
        parts = {
            "by_agent": self.by_agent(),
            "by_model": self.by_model(),
            "by_workflow": self.by_workflow(),
            "by_day": self.by_day(),
        }
        money = {key: {name: metrics.money() for name, metrics in of.items()} for key, of in parts.items()}
        return {"total": self.total().money(), **money}

    def _by(self, name_of: Callable[[GroupKey], Optional[str]]) -> Dict[str, Metrics]:
        parts: Dict[str, List[Metrics]] = {}
        for group, metrics in self.groups.items():
            name = name_of(group)
            if name is not None:
                parts.setdefault(name, []).append(metrics)
        return {name: _merge(parts[name]) for name in sorted(parts)}


def advice_for(error_type: str) -> Optional[str]:
    """Returns the advice of the package's error with this class name; None for other errors."""
    kinds = [ClaudeForceError]
    while kinds:
        kind = kinds.pop()
        if kind.__name__ == error_type:
            return getattr(kind, "advice", None)
        kinds += kind.__subclasses__()
    return None


def _merge(parts: Iterable[Metrics]) -> Metrics:
    whole = Metrics()
    for part in parts:
        whole.merge(part)
    return whole


def _as_dicts(parts: Dict[str, Metrics]) -> Dict[str, Any]:
    return {name: metrics.as_dict() for name, metrics in parts.items()}


def _percentiles(values: Distribution) -> Dict[str, Any]:
    found: Dict[str, Any] = {name: values.quantile(share) for name, share in _PERCENTILES.items()}
    maximum = values.maximum if values.count else None
    return {**found, "mean": values.mean, "max": maximum, "exact": values.is_exact}


def _sum_known(amounts: Iterable[Optional[float]]) -> float:
    return math.fsum(filter(None, amounts))


def _ratio(part: int, whole: int) -> Optional[float]:
    return part / whole if whole else None


def _iso(unix: Optional[float]) -> Optional[str]:
    return None if unix is None else datetime.fromtimestamp(unix, timezone.utc).isoformat()


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_SECONDS, timezone.utc).date().isoformat()
