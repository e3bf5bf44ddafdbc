"""Finds agents, commands, skills and plugins in files, resolves model aliases, and builds calls."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .call_builder import CallRefusals, check_context, prepare_call
    from .description import all_fields, listed_fields
    from .models import resolve_model
    from .names import check_name, check_task
    from .registry import Registry
    from .snapshot import Problem

# Loaded on first use, so that listing agents does not load what only calls need.
_HOMES = {
    "CallRefusals": ".call_builder",
    "Problem": ".snapshot",
    "Registry": ".registry",
    "all_fields": ".description",
    "check_context": ".call_builder",
    "check_name": ".names",
    "check_task": ".names",
    "listed_fields": ".description",
    "prepare_call": ".call_builder",
    "resolve_model": ".models",
}

__all__ = [
    "CallRefusals",
    "Problem",
    "Registry",
    "all_fields",
    "check_context",
    "check_name",
    "check_task",
    "listed_fields",
    "prepare_call",
    "resolve_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return found
