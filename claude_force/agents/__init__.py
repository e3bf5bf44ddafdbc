"""What can be run: agents, commands and plugins, claude.json, the registry over all, model aliases."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .context import check_context
    from .describing import all_fields, listed_fields
    from .loaded import Problem
    from .models import resolve_model
    from .names import check_name, check_task
    from .preparing import prepare_call
    from .refusals import Refusals
    from .registry import Registry

# Imported when it is asked for: what names agents need not read them, and what lists them makes no call.
_HOMES = {
    "Problem": ".loaded",
    "Refusals": ".refusals",
    "Registry": ".registry",
    "all_fields": ".describing",
    "check_context": ".context",
    "check_name": ".names",
    "check_task": ".names",
    "listed_fields": ".describing",
    "prepare_call": ".preparing",
    "resolve_model": ".models",
}

__all__ = [
    "Problem",
    "Refusals",
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
