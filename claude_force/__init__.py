"""Run a fleet of Claude agents: concurrent, paced, budgeted, with every failure accounted for."""

from __future__ import annotations

from importlib import import_module

# Not taken from typing: until the command's first module is imported, Ctrl-C shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

    from .async_orchestrator import AsyncAgentOrchestrator
    from .errors import ClaudeForceError
    from .orchestrator import AgentOrchestrator
    from .response_cache import ResponseCache
    from .tools.patches import apply_patch
    from .types import AgentResult, AsyncAgentResult
    from .workflow import Step, Workflow, WorkflowResult

__version__ = "2.0.0"

_HOMES = {
    "AgentOrchestrator": ".orchestrator",
    "AsyncAgentOrchestrator": ".async_orchestrator",
    "ResponseCache": ".response_cache",
    "AgentResult": ".types",
    "AsyncAgentResult": ".types",
    "ClaudeForceError": ".errors",
    "Step": ".workflow",
    "Workflow": ".workflow",
    "WorkflowResult": ".workflow",
    "apply_patch": ".tools.patches",
}

__all__ = [
    "AgentOrchestrator",
    "AgentResult",
    "AsyncAgentOrchestrator",
    "AsyncAgentResult",
    "ClaudeForceError",
    "ResponseCache",
    "Step",
    "Workflow",
    "WorkflowResult",
    "__version__",
    "apply_patch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> List[str]:
    return sorted(__all__)
