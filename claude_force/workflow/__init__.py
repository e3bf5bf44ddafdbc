"""Workflows: graphs of agents, from what their author wrote to what became of them."""

from .checking import check
from .journal import KeptRun
from .keeping import FAILED, INTERRUPTED, SUCCEEDED, Keeper, Keeping
from .outcome import OnStep, StepEvent, StepResult, WorkflowResult
from .parts import Answered, Part
from .plan import Draft, Plan, PlannedStep, SizeOf, between, drafts
from .reading import read_workflow
from .runner import OnPart, Runner, Setting
from .spec import Condition, ForEach, Step, Workflow

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "SUCCEEDED",
    "Answered",
    "Condition",
    "Draft",
    "ForEach",
    "Keeper",
    "Keeping",
    "KeptRun",
    "OnPart",
    "OnStep",
    "Part",
    "Plan",
    "PlannedStep",
    "Runner",
    "Setting",
    "SizeOf",
    "Step",
    "StepEvent",
    "StepResult",
    "Workflow",
    "WorkflowResult",
    "between",
    "check",
    "drafts",
    "read_workflow",
]
