"""Finds agents, commands, skills and plugins in files, resolves model aliases, and builds calls."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .call_builder import CallRefusals as CallRefusals
    from .call_builder import check_context as check_context
    from .call_builder import prepare_call as prepare_call
    from .description import all_fields as all_fields
    from .description import listed_fields as listed_fields
    from .models import resolve_model as resolve_model
    from .names import check_task as check_task
    from .registry import Registry as Registry

# Loaded on first use, so that listing agents does not load what only calls need.
_HOMES = {
    "CallRefusals": ".call_builder",
    "Registry": ".registry",
    "all_fields": ".description",
    "check_context": ".call_builder",
    "check_task": ".names",
    "listed_fields": ".description",
    "prepare_call": ".call_builder",
    "resolve_model": ".models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return found
