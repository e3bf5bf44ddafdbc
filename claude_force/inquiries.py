"""What an orchestrator answers without a call to the model: its agents, its workflows, its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from .agents import Registry
from .errors import InputError
from .performance_tracker import PerformanceTracker


class Inquiries(ABC):
    """Both faces have these. The figures read the whole ledger: a busy event loop leaves them to a thread."""

    _tracker: Optional[PerformanceTracker] = None

    @abstractmethod
    def _agents(self) -> Registry:
        """The registry at this moment."""

    @property
    def tracker(self) -> PerformanceTracker:
        """The ledger in the project's `.claude/metrics/`."""
        folder = self._agents().ledger
        if self._tracker is None or self._tracker.folder != folder:
            before, self._tracker = self._tracker, PerformanceTracker(folder)
            if before is not None:
                before.close()
        return self._tracker

    def close_ledger(self) -> None:
        """Returns when all that was recorded is in the file."""
        if self._tracker is not None:
            self._tracker.close()

    def list_agents(self) -> List[Dict[str, Any]]:
        """Each agent's `name`, `file`, `domains` and `priority`, by priority."""
        return self._agents().list_agents()

    def list_workflows(self) -> Dict[str, Any]:
        """The workflows of claude.json by name, as they are written there."""
        return self._agents().list_workflows()

    def get_agent_info(self, agent_name: str) -> Dict[str, Any]:
        """`name`, `file`, `contract`, `domains`, `priority`, `description`. Raises AgentNotFoundError."""
        return self._agents().get_agent_info(agent_name)

    def get_performance_summary(self, hours: Optional[float] = None) -> Dict[str, Any]:
        """As `PerformanceTracker.get_performance_summary`."""
        return self.tracker.get_performance_summary(hours)

    def get_agent_performance(
        self, name: Optional[str] = None, *, agent_name: Optional[str] = None
    ) -> Dict[str, Any]:
        """As `PerformanceTracker.get_agent_performance`; both spellings of a name find its agent."""
        name = name or agent_name
        if name is not None:
            # An agent that is gone still has its lines.
            with suppress(InputError):
                name = self._agents().get(name).name
        return self.tracker.get_agent_performance(name)

    def get_cost_breakdown(self) -> Dict[str, Any]:
        """As `PerformanceTracker.get_cost_breakdown`."""
        return self.tracker.get_cost_breakdown()

    def export_performance_metrics(
        self,
        path: Union[str, Path, None] = None,
        format: str = "json",
        *,
        output_path: Union[str, Path, None] = None,
    ) -> None:
        """As `PerformanceTracker.export_performance_metrics`."""
        self.tracker.export_performance_metrics(path, format, output_path=output_path)
