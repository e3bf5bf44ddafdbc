"""What can be run: agents, commands and plugins, claude.json, the registry over all, model aliases."""

from .context import check_context
from .describing import all_fields, listed_fields
from .loaded import Problem
from .models import resolve_model
from .names import check_name, check_task
from .preparing import prepare_call
from .refusals import Refusals
from .registry import Registry

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
