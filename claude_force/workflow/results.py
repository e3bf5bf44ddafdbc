"""What became of a workflow and of each of its steps."""

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
    """What became of one step.

    Attributes:
        status: "succeeded", "failed" or "skipped"; `reason` says why it is not the first.
        results: one for each part: the last of its calls. A step that is not run over a list has one part.
        labels: of the parts of a step that is run over a list; None for any other.
        tries: all calls, those that `retries` made again among them.
        began, ended: seconds since the run began; None for a step that was skipped.
        resumed: parts whose answer is from an earlier process of the same run.
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
        """The answer; of a step that is run over a list, the answer of each part that has one, marked."""
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
        """The answers of its parts, as they are."""
        return tuple(one.output for one in self.results if one.success)

    @property
    def cost(self) -> Optional[float]:
        """USD paid now for all calls; None where the price of an answer is not known."""
        return CostTotals.of(self.tries).full_cost

    def to_dict(self) -> Dict[str, Any]:
        """Plain values only, ready for JSON."""
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
    """A run of a workflow. As a list: the results of all parts, in a topological order of the steps.

    Attributes:
        name, task: the workflow's, and what it was about.
        run_id: to be given as `resume`, where the run was kept.
        steps: in that order, those that were skipped among them.
        success: no step failed, other than optional ones.
        cost: USD paid now, `cost_before` in earlier processes of this run; None where a price is not known.
        duration: seconds.
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
        """USD that kept, shared and resumed answers would have cost, as far as it is known."""
        return self._spent.saved

    @property
    def _spent(self) -> CostTotals:
        return CostTotals.of(one for step in self.steps for one in step.tries)

    @property
    def output(self) -> str:
        """What those steps answered that no other has gone on from; each under its id if they are several."""
        answered = {step.id: step for step in self.steps if step.output}
        used = {one for identity in answered for one in self._needs[identity]}
        ends = [step for identity, step in answered.items() if identity not in used]
        if len(ends) == 1:
            return ends[0].output
        return "\n\n".join(f"<answer step={quoteattr(one.id)}>\n{one.output}\n</answer>" for one in ends)

    def step(self, identity: str) -> StepResult:
        """The result of a step. Raises KeyError."""
        return {step.id: step for step in self.steps}[identity]

    def to_dict(self) -> Dict[str, Any]:
        """Plain values only, ready for JSON."""
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
    """A step has changed: `status` may also be "running"; `done` of `parts` have ended, `failed` of these.

    `run_id` is that of the run, where it is kept; `result` is there when the step has ended.
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
