"""Decides what an agent with tools does after each answer. Pure.

loop = AgentLoop(Conversation.start(tools.definitions, [task]), Bounds(max_turns=20))
while not loop.is_over:
    reply = await send(loop.begin_turn())
    uses = loop.add_answer(reply.stop_reason, reply.content, reply.usage.total_tokens)
    if loop.awaits_results:
        loop.add_results([await tools.run(use) for use in uses])
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

from .. import settings
from ..conversation import ContentBlock, Conversation, ToolResult, ToolUse, tool_uses
from ..types import REFUSAL

# The bounds, as `AgentResult.stopped_by` names them.
MAX_TURNS, MAX_TOOL_CALLS = "max_turns", "max_tool_calls"
DEADLINE_SECONDS, BUDGET_USD = "deadline_seconds", "budget_usd"

# Source: the Messages API's page "Handling stop reasons". The answer goes on where it is sent back.
_UNFINISHED = ("pause_turn", "compaction")
# A call may be cut off in its middle, or be part of what was refused.
_CALLS_NOT_RUN = ("max_tokens", "model_context_window_exceeded", REFUSAL)
_BEYOND = "Not run: the most tool calls that this agent may make have been made ({}). Answer without tools."


class Bounds(NamedTuple):
    """What bounds the loop of one agent, besides time and money. None means unlimited."""

    max_turns: int = settings.MAX_TURNS
    max_tool_calls: Optional[int] = None


class Allowance(NamedTuple):
    """What is left of one bound, in its unit: seconds or USD.

    Attributes:
        bound: its name.
        left: what is left of it before the next request.
        turn: the most that a turn took so far, with its tools; 0 before the first has ended.
        answer: the most that an answer after that is expected to take.
    """

    bound: str
    left: float
    turn: float
    answer: float

    @property
    def is_for_one(self) -> bool:
        """Whether it lets only one more request, as after a turn with tools another would not fit."""
        return self.left < self.turn + self.answer


class Forecast:
    """What the next turns will take of time and money, judged by the turns so far."""

    def __init__(self) -> None:
        self._longest_turn = self._longest_answer = 0.0
        self._dearest = self._worst = 0.0

    @property
    def has_cost(self) -> bool:
        """Whether a turn has cost anything."""
        return self._dearest > 0

    def add_turn(self, answer_seconds: float, turn_seconds: float, cost: float) -> None:
        """Adds a turn: the seconds to its answer and to the end of its tools, and its cost in USD."""
        self._longest_answer = max(self._longest_answer, answer_seconds)
        self._longest_turn = max(self._longest_turn, turn_seconds)
        self._dearest = max(self._dearest, cost)

    def time(self, left: float) -> Allowance:
        """Returns the allowance of a deadline that is `left` seconds away."""
        return Allowance(DEADLINE_SECONDS, left, self._longest_turn, self._longest_answer)

    def money(self, left: float, worst: float) -> Allowance:
        """Returns that of a budget with `left` USD, of which the next request may cost `worst`.

        The one after it has more messages: as many more as this one has.
        """
        growth, self._worst = max(0.0, worst - self._worst) if self._worst else 0.0, worst
        return Allowance(BUDGET_USD, left, self._dearest, worst + growth)


class AgentLoop:
    """The state of one agent's loop.

    Attributes:
        conversation: the messages so far.
        turns: the number of requests that have begun.
        tool_calls: the number of calls that were to be run.
        stopped_by: the bound because of which the model may call no further tool; None while it may.
        is_over: whether no further request follows.
        has_unrun_calls: whether the last answer has calls that were not run.
    """

    def __init__(self, conversation: Conversation, bounds: Bounds) -> None:
        self.conversation, self._bounds = conversation, bounds
        self.turns = self.tool_calls = 0
        self.stopped_by: Optional[str] = None
        self.is_over = self.has_unrun_calls = False
        self._pending: Tuple[ToolUse, ...] = ()
        self._run = 0

    @property
    def awaits_results(self) -> bool:
        """Whether the last answer has calls whose results are to be added."""
        return bool(self._pending)

    def begin_turn(self, allowances: Sequence[Allowance] = ()) -> Conversation:
        """Returns the conversation of the next request: the last one that a bound allows forbids calls."""
        self.turns += 1
        if self.stopped_by is None:
            self.stopped_by = self._reached(allowances)
        return self.conversation if self.stopped_by is None else self.conversation.without_calls()

    def _reached(self, allowances: Sequence[Allowance]) -> Optional[str]:
        if self.turns >= self._bounds.max_turns:
            return MAX_TURNS
        most = self._bounds.max_tool_calls
        if most is not None and self.tool_calls >= most:
            return MAX_TOOL_CALLS
        return next((one.bound for one in allowances if one.is_for_one), None)

    def add_answer(
        self, stop_reason: Optional[str], content: Sequence[ContentBlock], tokens: int = 0
    ) -> List[ToolUse]:
        """Adds an answer and returns its calls that are to be run now.

        There may be more calls than `max_tool_calls` allows: `add_results` gives those a result too. `tokens`
        are those of the request and of the answer, 0 where they are not known.

        Raises BadReplyError for a call without a name or an id.
        """
        uses = tool_uses(content)
        may_run = stop_reason not in _CALLS_NOT_RUN and self.stopped_by is None
        if uses and may_run:
            self.conversation = self.conversation.with_answer(content, tokens)
            self._pending = tuple(uses)
            most = self._bounds.max_tool_calls
            self._run = len(uses) if most is None else min(len(uses), most - self.tool_calls)
            self.tool_calls += self._run
            return uses[: self._run]
        self.has_unrun_calls = bool(uses)
        if stop_reason in _UNFINISHED and content and not uses and self.turns < self._bounds.max_turns:
            self.conversation = self.conversation.with_answer(content, tokens)
        else:
            self.is_over = True
        return []

    def add_results(self, results: Sequence[ToolResult]) -> List[Tuple[ToolUse, ToolResult]]:
        """Adds the results of the calls that `add_answer` returned, in their order.

        Returns the calls beyond `max_tool_calls`, with what the model is told of them.
        """
        if len(results) != self._run:
            raise ValueError(f"There are {len(results)} results of {self._run} calls")
        beyond = ToolResult(_BEYOND.format(self._bounds.max_tool_calls), True)
        refused = [(use, beyond) for use in self._pending[self._run :]]
        self.conversation = self.conversation.with_results([*zip(self._pending, results), *refused])
        self._pending, self._run = (), 0
        return refused
