"""Metrics with the keys and shapes of claude-force 1.x. Pure."""

from __future__ import annotations

from numbers import Real
from typing import Any, Callable, Dict, Mapping


class Money(Dict[str, Any]):
    """An amount with its unknown parts, which is also the number `cost_usd`.

    1.x had a number here, so `f"{costs['total']:.4f}"`, `costs["total"] > 0` and
    `sum(costs["by_agent"].values())` must work. `Money == {...}` compares as a dict.
    """

    def __float__(self) -> float:
        return float(self["cost_usd"])

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) if isinstance(other, dict) else float(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other


def _float_operator(name: str) -> Callable[..., Any]:
    def operator(self: Money, *others: Any) -> Any:
        numbers = [float(other) if isinstance(other, Money) else other for other in others]
        return getattr(float(self), name)(*numbers)

    return operator


_ARITHMETIC = ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv")
for _name in (*_ARITHMETIC, "lt", "le", "gt", "ge", "round"):
    setattr(Money, f"__{_name}__", _float_operator(f"__{_name}__"))
# For `isinstance(amount, Real)`, and for comparisons within a tolerance.
Real.register(Money)


def with_legacy_keys(metrics: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns `metrics` with the keys of 1.x added, where the rate or mean of no executions is 0."""
    executions, tokens = metrics["executions"], metrics["tokens"]
    return {
        **metrics,
        "total_executions": executions,
        "successful_executions": metrics["successes"],
        "failed_executions": metrics["errors"],
        "success_rate": metrics["successes"] / executions if executions else 0.0,
        "total_tokens": tokens["total"],
        "total_input_tokens": tokens["input"],
        "total_output_tokens": tokens["output"],
        "total_cost": metrics["cost_usd"],
        "avg_execution_time_ms": metrics["wall_ms"]["mean"] or 0.0,
        "avg_cost_per_execution": metrics["cost_usd"] / executions if executions else 0.0,
    }


def with_money(breakdown: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns a cost breakdown with each amount as `Money`."""
    return {
        part: Money(of) if part == "total" else {name: Money(amount) for name, amount in of.items()}
        for part, of in breakdown.items()
    }
