"""What can be run: definition files, claude.json, the registry over both, model aliases."""

from .loaded import Problem
from .models import resolve_model
from .names import check_name, check_task
from .preparing import prepare_call
from .registry import Registry

__all__ = [
    "Problem",
    "Registry",
    "check_name",
    "check_task",
    "prepare_call",
    "resolve_model",
]
