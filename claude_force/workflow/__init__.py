"""Workflows: graphs of agents. What users name is here.

Runner, plan and journal are imported from their modules: what only reads a workflow must not wait for them.
"""

from .checking import check, faults
from .outcome import OnStep, StepEvent, StepResult, WorkflowResult
from .reading import read_workflow
from .spec import Condition, ForEach, Step, Workflow

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
