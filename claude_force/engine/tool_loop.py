"""Runs an agent with its tools: requests and tool calls in turn, until the model ends or a bound is reached.

Each request is a call of its own for the backend: paced, cached, retried and paid as every other. Tools run
between requests, and hold no slot.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Awaitable, Callable, List, NamedTuple, Optional, Sequence, Union

import anyio

from ..cache.request_key import OFF
from ..conversation import Conversation, ToolResult, ToolUse
from ..errors import (
    BudgetExceededError,
    CallError,
    ContextFullError,
    DeadlineExceededError,
    InputError,
    NoFinalAnswerError,
    ToolCallCutOffError,
)
from ..limits.budget import worst_cost
from ..limits.call_context import CallContext
from ..limits.call_cost import CallCost, at_most
from ..limits.prices import Price
from ..tools.protocol import Tools
from ..types import REFUSAL, AgentResult, Call, CallCompleted, Clock, Reply, fast_replace
from .agent_loop import BUDGET_USD, DEADLINE_SECONDS, AgentLoop, Allowance, Bounds, Forecast
from .result_builder import CallLabels, ResultBuilder
from .tool_runner import ToolRunner
from .turn_journal import TurnRecord
from .turn_totals import TurnTotals

_CONTEXT_FULL = "model_context_window_exceeded"

# Sends a call under a cache policy, within so many seconds, as `CallBackend.execute` does.
Execute = Callable[[Call, str, Optional[float], CallContext], Awaitable[Reply]]


class LoopSettings(NamedTuple):
    """What holds for the loop of one agent.

    Attributes:
        cache_policy: of its requests, until a tool call that is not read-only has begun. Then no answer is
            taken from the cache or stored: the same messages no longer stand for the same state.
        deadline_seconds: bounds the whole loop; None for no bound.
        price: prices tokens, to see which request is the last that a budget allows.
    """

    bounds: Bounds
    cache_policy: str
    deadline_seconds: Optional[float]
    price: Price


class Offered(NamedTuple):
    """What a request has of an agent's `Tools`: their attributes of these names."""

    definitions: str
    context: str


def with_context(call: Call, tools: Union[Tools, Offered]) -> Call:
    """Returns a call whose system prompt says where its tools work."""
    return fast_replace(call, system=(*call.system, tools.context)) if tools.context else call


def start_conversation(call: Call, tools: Union[Tools, Offered]) -> Conversation:
    """Returns the conversation of the first request."""
    return Conversation.start(tools.definitions, [call.task])


class ToolLoop:
    """Runs one agent once.

        loop = ToolLoop(call, labels, tools, settings, execute, context, clock, tracker.record)
        completed = await loop.run()

    `record_turn` receives each turn as it ends, for the ledger; `context.call_cost` what the turns cost.
    """

    def __init__(
        self,
        call: Call,
        labels: CallLabels,
        tools: Tools,
        settings: LoopSettings,
        execute: Execute,
        context: CallContext,
        clock: Clock,
        record_turn: Callable[[CallCompleted], None],
    ) -> None:
        # Requests tell where the tools work; observers and the ledger are told of the call as it was made.
        self._request = with_context(call, tools)
        self._call, self._labels, self._settings = call, labels, settings
        self._execute, self._context, self._clock, self._record_turn = execute, context, clock, record_turn
        self._loop = AgentLoop(start_conversation(call, tools), settings.bounds)
        self._runner = ToolRunner(tools, context.listener, clock.now)
        self._builder = ResultBuilder(call, labels, clock, context.call_cost)
        self._totals = TurnTotals(self._builder.call_cost)
        self._forecast = Forecast()
        self._began, self._id = clock.now(), os.urandom(8).hex()
        # Of answers that were sent back to be continued.
        self._text = ""

    async def run(self) -> CallCompleted:
        """Returns the completed call, a failed one too. Raises InputError before anything is sent.

        A loop that is cancelled, or ended by a listener, raises that; `cancelled` then has what it cost.
        """
        try:
            while True:
                reply = await self._turn()
                if self._loop.is_over:
                    # What the agent has changed is found in the tools.
                    await self._runner.catch_up()
                    whole = self._totals.reply(reply, self._text + reply.text)
                    return self._labelled(self._builder.succeeded(whole, self._why_unfinished(reply)))
        except CallError as error:
            return self.ended_by(error)
        except InputError as error:
            if not self._totals.turns:
                raise
            return self.ended_by(
                CallError(str(error), advice="What the turns before it cost is on the result.")
            )

    def cancelled(self) -> Optional[CallCompleted]:
        """Returns the completed call after `run` was cancelled; None if nothing was sent."""
        completed = self._builder.cancelled()
        return None if completed is None else self._with_totals(completed)

    async def _turn(self) -> Reply:
        conversation = self._loop.begin_turn(self._allowances())
        number, began = self._loop.turns, self._clock.now()
        self._context.listener.turn_began(number)
        call = fast_replace(self._request, conversation=conversation)
        kept = TurnRecord(self._context.journal, number, call)
        reply = await self._send(call, kept)
        answered = self._clock.now()
        counted = reply.usage.total_tokens if reply.usage.is_known else 0
        uses = self._loop.add_answer(reply.stop_reason, reply.content, counted)
        if self._loop.awaits_results:
            self._text = ""
            await self._add_results(number, uses, kept)
        elif not self._loop.is_over:
            self._text += reply.text
        cost = at_most(reply) or 0.0
        self._forecast.add_turn(answered - began, self._clock.now() - began, cost)
        return reply

    async def _send(self, call: Call, kept: TurnRecord) -> Reply:
        builder = ResultBuilder(self._call, self._labels, self._clock, CallCost())
        began = self._clock.now() - self._began
        context = fast_replace(self._context, call_cost=builder.call_cost)
        policy = OFF if self._runner.has_side_effects else self._settings.cache_policy
        try:
            context.check_open(call.model)
            seconds = self._seconds_left()
            if kept.kept is None:
                reply = await self._execute(call, policy, seconds, context)
                await kept.save_answer(reply)
            else:
                reply = kept.kept.free_reply
        except CallError as error:
            self._totals.add_error(error)
            self._end_turn(builder.failed(error), began)
            raise
        except BaseException:
            completed = builder.cancelled()
            self._totals.cost.absorb(builder.call_cost)
            if completed is not None:
                self._end_turn(completed, began, is_told=False)
            raise
        self._totals.add_reply(reply)
        self._end_turn(builder.succeeded(reply), began)
        return reply

    def _end_turn(self, completed: CallCompleted, began: float, is_told: bool = True) -> None:
        result, number = completed.result, self._loop.turns
        if result.error is not None and not result.attempts:
            # It was not sent: the line of the whole says why.
            return
        turn = self._totals.add_turn(result, began)
        self._record_turn(replace(completed, execution_id=self._id, turn=number))
        if is_told:
            self._context.listener.turn_ended(number, turn)

    async def _add_results(self, turn: int, uses: Sequence[ToolUse], kept: TurnRecord) -> None:
        results: List[ToolResult] = []
        with anyio.move_on_after(self._seconds_left()) as scope:
            results = await self._runner.run(turn, uses, kept)
        if scope.cancelled_caught:
            raise self._too_late()
        for position, (use, result) in enumerate(self._loop.add_results(results), len(uses)):
            self._runner.record_unrun(turn, position, use, result)

    def _allowances(self) -> List[Allowance]:
        """What is left of time and money, from the second turn on."""
        found: List[Allowance] = []
        if not self._loop.turns:
            return found
        seconds = self._seconds_left()
        if seconds is not None:
            found.append(self._forecast.time(seconds))
        if self._context.budgets and self._forecast.has_cost:
            call = fast_replace(self._request, conversation=self._loop.conversation)
            worst = worst_cost(call, self._context.price or self._settings.price)
            left = min(budget.usd - budget.spent for budget in self._context.budgets)
            if worst is not None:
                found.append(self._forecast.money(left, worst))
        return found

    def _seconds_left(self) -> Optional[float]:
        """Raises DeadlineExceededError where there are none."""
        seconds = self._settings.deadline_seconds
        if seconds is None:
            return None
        left = seconds - (self._clock.now() - self._began)
        if left <= 0:
            raise self._too_late()
        return left

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"No final answer within the deadline of {self._settings.deadline_seconds:g} s"
        )

    def _why_unfinished(self, reply: Reply) -> Optional[CallError]:
        """The error where the last answer is not the end of the agent's work."""
        request_id = reply.request_id
        if reply.stop_reason == REFUSAL:
            return None
        if reply.stop_reason == _CONTEXT_FULL:
            return ContextFullError("The messages have filled the model's context", request_id=request_id)
        if not self._loop.has_unrun_calls:
            return None
        if reply.stop_reason == "max_tokens":
            text = "The answer was cut off in its tool calls; none of them was run"
            return ToolCallCutOffError(text, request_id=request_id)
        if self._loop.stopped_by is not None:
            text = (
                f"The model called tools instead of a final answer, and {self._loop.stopped_by} was reached"
            )
            return NoFinalAnswerError(text, request_id=request_id)
        return None

    def ended_by(self, error: CallError) -> CallCompleted:
        """Returns the completed call of a loop that ended with this error."""
        if isinstance(error, DeadlineExceededError):
            cause, error = error, self._too_late()
            error.__cause__ = cause
            self._loop.stopped_by = DEADLINE_SECONDS
        elif isinstance(error, BudgetExceededError):
            self._loop.stopped_by = BUDGET_USD
        self._totals.cost.copy_to(error)
        return self._with_totals(self._builder.failed(error))

    def _with_totals(self, completed: CallCompleted) -> CallCompleted:
        self._totals.add_to_failure(completed.result)
        return self._labelled(completed)

    def _labelled(self, completed: CallCompleted) -> CallCompleted:
        result: AgentResult = completed.result
        result.turns, result.tool_calls = tuple(self._totals.turns), self._runner.calls()
        result.stopped_by = self._loop.stopped_by
        return replace(completed, execution_id=self._id)
