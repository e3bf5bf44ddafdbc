"""What can be run: definition files, claude.json, the registry over both, model aliases."""

from .loading import Problem
from .models import resolve_model, warn_if_retired
from .names import check_name, check_task
from .registry import Registry

__all__ = ["Problem", "Registry", "check_name", "check_task", "resolve_model", "warn_if_retired"]
