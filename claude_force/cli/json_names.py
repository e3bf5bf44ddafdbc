"""The one name that money and time have in the JSON of every command, beside the older names."""

from __future__ import annotations

from typing import Dict, Mapping

# An older name, and the one that says the unit too.
NAMES: Mapping[str, str] = {
    "cost": "cost_usd",
    "cost_at_most": "cost_at_most_usd",
    "cost_before": "cost_before_usd",
    "estimated_cost": "cost_usd",
    "spent": "cost_usd",
    "lost_cost": "lost_usd",
    "saved": "saved_usd",
    "saved_cost": "saved_usd",
    "prompt_cache_saving": "prompt_cache_saving_usd",
    "unpriced_at_most": "unknown_at_most_usd",
    "duration": "duration_seconds",
    "wall_seconds": "duration_seconds",
}


def with_one_name(value: object) -> object:
    """Returns `value` with the one name of each figure that has an older one, where it is missing."""
    if isinstance(value, (list, tuple)):
        return [with_one_name(one) for one in value]
    if not isinstance(value, dict):
        return value
    named: Dict[object, object] = {name: with_one_name(one) for name, one in value.items()}
    for name, one in value.items():
        # An agent or a workflow of such a name is no figure.
        if name in NAMES and (one is None or isinstance(one, (int, float))):
            named.setdefault(NAMES[name], one)
    return named
