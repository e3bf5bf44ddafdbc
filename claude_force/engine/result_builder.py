"""Builds the result of a call from its reply or error, and logs it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

from ..costs import without_cost
from ..errors import (
    BudgetExceededError,
    CallError,
    CancelledCallError,
    ClaudeForceError,
    ClosedError,
    EmptyAnswerError,
    RefusedError,
)
from ..types import (
    PAUSED,
    REFUSAL,
    AgentResult,
    Attempt,
    Call,
    CallCompleted,
    Observer,
    Reply,
    Usage,
    fast_replace,
    is_blank,
)

if TYPE_CHECKING:
    # A cached answer needs neither the event loop nor the transport, which these import.
    from ..limits.call_cost import CallCost
    from ..types import Clock

logger = logging.getLogger(__name__)


class CallLabels(NamedTuple):
    """Whose call it is, for its result and the ledger."""

    agent_name: str
    workflow_name: Optional[str] = None
    workflow_position: Optional[int] = None


def succeeded(
    run: CallLabels,
    reply: Reply,
    duration: float,
    started: float = 0.0,
    error: Optional[CallError] = None,
) -> AgentResult:
    """Returns the result of a reply; a refusal or an answer without text is a failure.

    `started` is the start of the call in seconds of the engine's clock. `error` makes any reply a failure.
    """
    is_known = reply.cost is not None and reply.wasted_cost is not None
    cost = reply.cost + reply.wasted_cost if is_known else None  # type: ignore[operator]
    error = error or _unanswered(reply)
    metadata = _metadata(run, reply.model, reply.usage, cost, duration)
    if reply.cached:
        metadata.update(cached=True, cache_age_seconds=reply.cache_age)
    result = AgentResult(
        agent_name=run.agent_name,
        success=error is None,
        output=reply.text,
        metadata=metadata,
        errors=[] if error is None else [str(error)],
        error=error,
        model=reply.model,
        usage=reply.usage,
        cost=cost,
        saved_cost=reply.saved_cost,
        cached=reply.cached,
        cache_age=reply.cache_age,
        shared=reply.shared,
        prompt_cache_saving=reply.prompt_cache_saving,
        attempts=reply.attempts,
        duration=duration,
        stop_reason=reply.stop_reason,
        request_id=reply.request_id,
        timeline=_since(started, reply.timeline),
        cost_at_most=reply.cost_at_most if cost is None else cost,
    )
    if error is not None:
        error.attempts, error.timeline = result.attempts, reply.timeline
        error.cost, error.cost_at_most = result.cost, result.cost_at_most
    flags = {"truncated": result.truncated, "refused": result.refused, "empty": result.empty}
    metadata.update({name: True for name, is_set in flags.items() if is_set})
    return result


def is_answer(reply: Reply) -> bool:
    """Whether the reply is neither a refusal nor empty: it has text, or the agent's loop goes on from it."""
    return _unanswered(reply) is None


def _unanswered(reply: Reply) -> Optional[CallError]:
    """The error of a refusal or of an answer without text; None for an answer."""
    if reply.stop_reason == REFUSAL:
        return RefusedError("The model refused to answer", request_id=reply.request_id)
    if is_blank(reply.text) and not _goes_on(reply):
        reason = f" (stop reason {reply.stop_reason})" if reply.stop_reason else ""
        return EmptyAnswerError(f"The answer has no text{reason}", request_id=reply.request_id)
    return None


def _goes_on(reply: Reply) -> bool:
    """Whether an answer without text has tool calls, or was paused. False without a conversation."""
    if not reply.content:
        return False
    from ..conversation import TOOL_USE

    return reply.stop_reason == PAUSED or any(block.type == TOOL_USE for block in reply.content)


def as_shared(reply: Reply) -> Reply:
    """Returns the reply for a caller who joined an identical call, which pays for it."""
    return fast_replace(
        reply,
        **without_cost(reply),
        wasted_cost=0.0,
        shared=True,
    )


def failed(
    run: CallLabels, error: ClaudeForceError, model: Optional[str], duration: float, started: float = 0.0
) -> AgentResult:
    """Returns the result of a call that got no reply; `started` as in `succeeded`."""
    call_error = error if isinstance(error, CallError) else None
    cost = call_error.cost if call_error else None
    return AgentResult(
        agent_name=run.agent_name,
        success=False,
        metadata=_metadata(run, model, Usage(), cost, duration),
        errors=[str(error)],
        model=model,
        cost=cost,
        cost_at_most=call_error.cost_at_most if call_error and cost is None else cost or 0.0,
        attempts=call_error.attempts if call_error else 0,
        duration=duration,
        request_id=call_error.request_id if call_error else None,
        error=error,
        timeline=_since(started, call_error.timeline) if call_error else (),
    )


def _since(started: float, timeline: Tuple[Attempt, ...]) -> Tuple[Attempt, ...]:
    return tuple(Attempt(one.began - started, one.ended - started, one.window, one.error) for one in timeline)


def _metadata(
    run: CallLabels, model: Optional[str], usage: Usage, cost: Optional[float], duration: float
) -> Dict[str, Any]:
    return {
        "model": model,
        "tokens_used": usage.total_tokens,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "execution_time_ms": duration * 1000,
        "workflow_name": run.workflow_name,
        "workflow_position": run.workflow_position,
        "cached": False,
        "estimated_cost": cost,
    }


def notify(observers: Iterable[Observer], executed: CallCompleted) -> None:
    """Calls each observer; logs what one raises, so that it fails no call.

    A call that was never sent because the fleet was stopped is left out: it says nothing about its agent.
    """
    if is_unsent(executed.result):
        return
    for observer in observers:
        try:
            observer(executed)
        except Exception:
            logger.exception("an observer of calls failed")


def is_unsent(result: AgentResult) -> bool:
    """Whether the fleet was stopped, or the call cancelled, before anything was sent."""
    error = result.error
    stopped = isinstance(error, (ClosedError, CancelledCallError)) or getattr(error, "skipped", False)
    return stopped and not result.attempts


_NO_COUNTS: Mapping[str, Any] = {}


def log_result(result: AgentResult) -> None:
    """Logs one line, with the figures as fields."""
    # A call that was not sent has not failed: a run that ends by its budget logs that once.
    quiet = result.success or isinstance(result.error, (BudgetExceededError, CancelledCallError, ClosedError))
    quiet = quiet or is_unsent(result)
    level = logging.INFO if quiet else logging.ERROR
    what = "answered" if result.success else f"failed: {result.error}"
    if result.success and result.truncated and not (result.cached or result.shared):
        logger.warning("%s: the answer was cut off (%s)", result.agent_name, result.stop_reason)
    logger.log(
        level,
        "%s %s",
        result.agent_name,
        what,
        extra={
            "agent": result.agent_name,
            "model": result.model,
            "success": result.success,
            "attempts": result.attempts,
            "duration_seconds": result.duration,
            "total_tokens": result.usage.total_tokens,
            "cost_usd": result.cost,
            "request_id": result.request_id,
            "error_type": type(result.error).__name__ if result.error else None,
            **(_tool_counts(result) if result.turns else _NO_COUNTS),
        },
    )


def _tool_counts(result: AgentResult) -> Dict[str, Any]:
    calls = result.tool_calls
    return {
        "turns": len(result.turns),
        "tool_calls": len(calls),
        "failed_tool_calls": sum(one.error is not None for one in calls),
        "denied_tool_calls": sum(one.is_denied for one in calls),
        "stopped_by": result.stopped_by,
    }


class ResultBuilder:
    """Builds the result of one call, whose time starts now.

    Attributes:
        call_cost: receives what the call costs while it goes on.
    """

    def __init__(
        self, call: Call, run: CallLabels, clock: Clock, call_cost: Optional[CallCost] = None
    ) -> None:
        from ..limits.call_cost import CallCost

        self.call_cost = call_cost or CallCost()
        self._call, self._run, self._clock = call, run, clock
        self._began, self._started = time.time(), clock.now()

    def succeeded(self, reply: Reply, error: Optional[CallError] = None) -> CallCompleted:
        """Returns the result of an answered call, failed where there is an `error`."""
        return self._executed(succeeded(self._run, reply, self._duration(), self._started, error))

    def failed(self, error: CallError) -> CallCompleted:
        """Returns the result of a failed call."""
        return self._executed(failed(self._run, error, self._call.model, self._duration(), self._started))

    def cancelled(self) -> Optional[CallCompleted]:
        """Returns the result of a cancelled call, which may be billed; None if nothing was sent."""
        error = CancelledCallError("The call was cancelled")
        self.call_cost.copy_to(error)
        return self.failed(error) if error.timeline else None

    def _duration(self) -> float:
        return self._clock.now() - self._started

    def _executed(self, result: AgentResult) -> CallCompleted:
        run = self._run
        return CallCompleted(self._call, result, self._began, run.workflow_name, run.workflow_position)
