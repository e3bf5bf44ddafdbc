"""Workflows: graphs of agents. What users name is here.

Runner, plan and journal are imported from their modules: what only reads a workflow must not wait for them.
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
