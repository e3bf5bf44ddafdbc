"""The results of a workflow and of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple
from xml.sax.saxutils import quoteattr

from ..costs import CostTotals
from ..types import AgentResult
from .models import Workflow

RUNNING = "running"
SUCCEEDED, FAILED, SKIPPED = "succeeded", "failed", "skipped"


@dataclass(frozen=True)
class StepResult:
    """The result of one step.

    Attributes:
        status: "succeeded", "failed" or "skipped"; `reason` says why it did not succeed.
        results: the last result of each part; a step without `foreach` has one part.
        labels: the labels of the parts; None for a step without `foreach`.
        tries: the results of all calls, those that `retries` repeated included.
        began, ended: seconds since the run began; None for a skipped step.
        resumed: the number of parts whose answer is from an earlier process of the run.

    Example:
        for step in orchestrator.run_workflow("release", "Version 2").steps:
            print(step.id, step.status, step.reason, step.cost)
    """

    id: str
    agent: str
    status: str
    reason: Optional[str] = None
    results: Tuple[AgentResult, ...] = ()
    labels: Optional[Tuple[str, ...]] = None
    tries: Tuple[AgentResult, ...] = ()
    began: Optional[float] = None
    ended: Optional[float] = None
    resumed: int = 0
    optional: bool = False

    @property
    def success(self) -> bool:
        return self.status == SUCCEEDED

    @property
    def output(self) -> str:
        """The answer; for a step with `foreach`, the answers of its parts in tags with their labels."""
        answered = [one.output if one.success else None for one in self.results]
        if self.labels is None:
            return "".join(one for one in answered if one is not None)
        return "\n\n".join(
            f"<answer item={quoteattr(label)}>\n{text}\n</answer>"
            for label, text in zip(self.labels, answered)
            if text is not None
        )

    @property
    def answers(self) -> Tuple[str, ...]:
        """The answers of the parts, without tags."""
        return tuple(one.output for one in self.results if one.success)

    @property
    def cost(self) -> Optional[float]:
        """USD paid now for all calls; None where the price of an answer is unknown."""
        return CostTotals.of(self.tries).full_cost

    def to_dict(self) -> Dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return {
            "id": self.id,
            "agent": self.agent,
            "status": self.status,
            "reason": self.reason,
            "output": self.output,
            "began": self.began,
            "ended": self.ended,
            "cost": self.cost,
            "saved_cost": CostTotals.of(self.tries).saved,
            "calls": len(self.tries),
            "parts": len(self.results),
            "resumed": self.resumed,
            "items": None if self.labels is None else list(self.labels),
        }


class WorkflowResult(List[AgentResult]):
    """The result of a run: a list of the results of all parts, in a topological order of the steps.

    Attributes:
        name, task: the workflow's name, and the task of the run.
        run_id: what to give as `resume`; None where the run was not saved.
        steps: the results of the steps in the same order, skipped steps included.
        success: whether no step failed but optional ones.
        cost: USD paid now; `cost_before`, by earlier processes of the run. None where a price is unknown.
        duration: seconds.

    Example:
        result = orchestrator.run_workflow("release", "Version 2")
        print(result.success, result.cost, result.output)
    """

    def __init__(
        self,
        workflow: Workflow,
        task: str,
        steps: Iterable[StepResult],
        duration: float,
        run_id: Optional[str] = None,
    ) -> None:
        self.name: str = workflow.name
        self.task: str = task
        self.run_id: Optional[str] = run_id
        self.duration: float = duration
        self._needs = workflow.needs
        self.cost_before: Optional[float] = 0.0
        self.steps: Tuple[StepResult, ...] = tuple(steps)
        super().__init__(result for step in self.steps for result in step.results)

    @property
    def success(self) -> bool:
        return not any(step.status == FAILED and not step.optional for step in self.steps)

    @property
    def cost(self) -> Optional[float]:
        return self._spent.full_cost

    @property
    def saved_cost(self) -> float:
        """USD that cached, shared and resumed answers would have cost, as far as it is known."""
        return self._spent.saved

    @property
    def _spent(self) -> CostTotals:
        return CostTotals.of(one for step in self.steps for one in step.tries)

    @property
    def output(self) -> str:
        """The answers of the steps that no other step used; in tags with their ids if there are several."""
        answered = {step.id: step for step in self.steps if step.output}
        used = {one for identity in answered for one in self._needs[identity]}
        ends = [step for identity, step in answered.items() if identity not in used]
        if len(ends) == 1:
            return ends[0].output
        return "\n\n".join(f"<answer step={quoteattr(one.id)}>\n{one.output}\n</answer>" for one in ends)

    def step(self, identity: str) -> StepResult:
        """Returns the result of the step with this id. Raises KeyError."""
        return {step.id: step for step in self.steps}[identity]

    def to_dict(self) -> Dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return {
            "workflow": self.name,
            "run_id": self.run_id,
            "success": self.success,
            "duration": self.duration,
            "cost": self.cost,
            "cost_before": self.cost_before,
            "saved_cost": self.saved_cost,
            "output": self.output,
            "steps": [step.to_dict() for step in self.steps],
        }


@dataclass(frozen=True)
class StepEvent:
    """A change of a step.

    Attributes:
        status: "running", "succeeded", "failed" or "skipped".
        done, failed: how many of the `parts` have ended, and how many of these failed.
        result: None until the step has ended.
        run_id: None where the run can't be resumed.

    Example:
        orchestrator.run_workflow("release", "2.0", on_step=lambda event: print(event.step, event.status))
    """

    step: str
    agent: str
    status: str
    done: int = 0
    parts: int = 0
    failed: int = 0
    result: Optional[StepResult] = None
    run_id: Optional[str] = None


OnStep = Callable[[StepEvent], None]
