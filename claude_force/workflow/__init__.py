"""Workflows: graphs of agents.

Runner, plan and checkpoints are imported from their modules, so that reading a workflow does not load them.
"""

from .models import Condition, ForEach, Step, Workflow
from .parser import read_workflow
from .results import OnStep, StepEvent, StepResult, WorkflowResult
from .validation import check, faults

__all__ = [
    "Condition",
    "ForEach",
    "OnStep",
    "Step",
    "StepEvent",
    "StepResult",
    "Workflow",
    "WorkflowResult",
    "check",
    "faults",
    "read_workflow",
]
