"""Shows what agents that use tools are doing now, one line each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Hashable, List, Optional

from ..bulk import Event, Finished, Retried, Started, ToolEnded, ToolStarted, TurnBegan, TurnEnded
from ..formatting import format_duration_coarse, format_usd, pluralize
from ..limits.call_context import CallListener
from . import streams
from .tool_lines import call_text

if TYPE_CHECKING:
    from ..conversation import ToolUse
    from ..types import ToolCall, Turn

_ASKING, _WAITING, _AGAIN = "waiting for the model", "waiting to send", "trying again"


class AgentActivity(CallListener):
    """What one agent is doing.

    activity = AgentActivity("reviewer")
    activity.tool_started(1, ToolUse("t1", "Read", {"file_path": "a.txt"}))
    activity.line()  # "reviewer: turn 1, 3 s, $0.00: Read a.txt"

    Attributes:
        turn: the number of the turn; 0 for an agent that has not begun one, as one without tools.
    """

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._name, self._now, self._began = streams.one_line(name), now, now()
        self.turn = 0
        self._cost, self._has_unknown = 0.0, False
        self._tools: List[str] = []
        self._doing = _WAITING

    def started(self, attempt: int) -> None:
        self._doing = _ASKING

    def retried(self, attempt: int, delay: float, error: BaseException) -> None:
        self._doing = _AGAIN

    def turn_began(self, turn: int) -> None:
        self.turn, self._doing = turn, _WAITING
        self._tools.clear()

    def turn_ended(self, turn: int, result: Turn) -> None:
        self._cost += result.cost or 0.0
        self._has_unknown |= result.cost is None

    def tool_started(self, turn: int, use: ToolUse) -> None:
        self.begin_tool(use.name, use.input)

    def tool_ended(self, call: ToolCall) -> None:
        text = call_text(call.name, call.input)
        if text in self._tools:
            self._tools.remove(text)

    def begin_tool(self, name: str, given: Any) -> None:
        """Adds a tool that runs now."""
        self._tools.append(call_text(name, given))

    def line(self) -> str:
        """Returns the whole line."""
        return f"{self._name}: {self.state()}"

    def state(self) -> str:
        """Returns the line without the name; what a model wrote is at its end, where a terminal cuts it."""
        passed = format_duration_coarse(self._now() - self._began)
        cost = f"{format_usd(self._cost)}{' and more' if self._has_unknown else ''}"
        more = f" and {len(self._tools) - 1} more" if len(self._tools) > 1 else ""
        doing = f"{self._tools[0]}{more}" if self._tools else self._doing
        return f"turn {self.turn}, {passed}, {cost}: {doing}"


class ActivityBoard:
    """The agents of a run that use tools and have not ended, in the order in which they began."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._agents: Dict[Hashable, AgentActivity] = {}

    def begin(self, key: Hashable, name: str) -> AgentActivity:
        """Adds an agent."""
        self._agents[key] = AgentActivity(name, self._now)
        return self._agents[key]

    def end(self, key: Hashable) -> None:
        """Removes an agent, if it is there."""
        self._agents.pop(key, None)

    def find(self, key: Hashable) -> Optional[AgentActivity]:
        """Returns an agent that has begun a turn."""
        found = self._agents.get(key)
        return found if found is not None and found.turn else None

    def on_event(self, event: Event) -> None:
        """Takes an event of a bulk run. Rows of agents without tools have none that it keeps."""
        if isinstance(event, Finished):
            self.end(event.index)
        elif isinstance(event, TurnBegan):
            agent = self._agents.get(event.index)
            if agent is None:
                agent = self.begin(event.index, f"row {event.index + 1:,} {event.agent_name}")
            agent.turn_began(event.turn)
        elif event.index in self._agents:
            _pass_on(event, self._agents[event.index])

    def lines(self, most: int) -> List[str]:
        """Returns a line for each agent, at most so many; the last one then counts those left out."""
        agents = [one for one in self._agents.values() if one.turn]
        if len(agents) <= most:
            return [one.line() for one in agents]
        if most < 1:
            return []
        shown = [one.line() for one in agents[: most - 1]]
        return [*shown, f"and {pluralize(len(agents) - len(shown), 'more agent')}"]


def _pass_on(event: Event, agent: AgentActivity) -> None:
    if isinstance(event, Started):
        agent.started(event.attempt)
    elif isinstance(event, Retried):
        agent.retried(event.attempt, event.delay, event.error)
    elif isinstance(event, TurnEnded):
        agent.turn_ended(event.turn, event.result)
    elif isinstance(event, ToolStarted):
        agent.begin_tool(event.name, event.input)
    elif isinstance(event, ToolEnded):
        agent.tool_ended(event.call)
