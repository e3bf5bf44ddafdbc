"""The figures of a ledger under the names and in the shapes of claude-force 1.x. Pure."""

from __future__ import annotations

from numbers import Real
from typing import Any, Dict, Mapping, Optional, Union

Number = Union[int, float]


class Money(Dict[str, Any]):
    """An amount with what is not known of it, which counts as the number `cost_usd` where one is needed.

    1.x had a plain number here: `f"{costs['total']:.4f}"`, `costs["total"] > 0` and
    `sum(costs["by_agent"].values())` go on working.
    """

    def __float__(self) -> float:
        return float(self["cost_usd"])

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def __round__(self, digits: Optional[int] = None) -> Number:
        return round(float(self), digits)

    def __eq__(self, other: object) -> bool:
        return float(self) == other if isinstance(other, (int, float)) else super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Union[Number, Money]) -> bool:
        return float(self) < float(other)

    def __le__(self, other: Union[Number, Money]) -> bool:
        return float(self) <= float(other)

    def __gt__(self, other: Union[Number, Money]) -> bool:
        return float(self) > float(other)

    def __ge__(self, other: Union[Number, Money]) -> bool:
        return float(self) >= float(other)

    def __add__(self, other: Union[Number, Money]) -> float:
        return float(self) + float(other)

    __radd__ = __add__

    def __sub__(self, other: Union[Number, Money]) -> float:
        return float(self) - float(other)

    def __rsub__(self, other: Number) -> float:
        return other - float(self)

    def __mul__(self, other: Number) -> float:
        return float(self) * other

    __rmul__ = __mul__

    def __truediv__(self, other: Union[Number, Money]) -> float:
        return float(self) / float(other)

    def __rtruediv__(self, other: Number) -> float:
        return other / float(self)


# For code that asks whether it was given a number, and for comparisons within a tolerance.
Real.register(Money)


def with_old_names(figures: Mapping[str, Any]) -> Dict[str, Any]:
    """`figures` with the keys of 1.x beside its own; a rate or a mean of nothing is 0 there."""
    executions, tokens = figures["executions"], figures["tokens"]
    return {
        **figures,
        "total_executions": executions,
        "successful_executions": figures["successes"],
        "failed_executions": figures["errors"],
        "success_rate": figures["successes"] / executions if executions else 0.0,
        "total_tokens": tokens["total"],
        "total_input_tokens": tokens["input"],
        "total_output_tokens": tokens["output"],
        "total_cost": figures["cost_usd"],
        "avg_execution_time_ms": figures["wall_ms"]["mean"] or 0.0,
        "avg_cost_per_execution": figures["cost_usd"] / executions if executions else 0.0,
    }


def summary_with_old_names(summary: Mapping[str, Any], hours: Optional[float]) -> Dict[str, Any]:
    """As `with_old_names`, with the words that 1.x had for the time that the figures cover."""
    period = "all time" if hours is None else f"last {hours:g} hours"
    return {**with_old_names(summary), "time_period": period}


def agents_with_old_names(agents: Mapping[str, Any]) -> Dict[str, Any]:
    """The figures of each agent, as `with_old_names`."""
    return {name: with_old_names(figures) for name, figures in agents.items()}


def agent_with_old_names(name: str, figures: Mapping[str, Any]) -> Dict[str, Any]:
    """The figures of one agent, as `with_old_names`; under its name once more, where 1.x had all of them."""
    own = with_old_names(figures)
    return {**({name: own} if figures["executions"] else {}), **own}


def costs_with_old_shapes(costs: Mapping[str, Any]) -> Dict[str, Any]:
    """Each amount as `Money`."""
    parts = {
        part: {name: Money(amount) for name, amount in of.items()}
        for part, of in costs.items()
        if part != "total"
    }
    return {"total": Money(costs["total"]), **parts}
