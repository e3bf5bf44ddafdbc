"""Keeps the turns of agents with tools in the journal of runs, as `engine.turn_journal.TurnJournal` asks."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Awaitable, Callable, Dict, Iterable, Mapping, Optional, Set, Tuple

from anyio import CancelScope

from ..conversation import ToolResult, content_of, stored_content
from ..costs import cost_or_bound
from ..engine.turn_journal import KeptTurn
from ..types import Reply, Usage
from .checkpoints import ANSWERED, BEGUN, ENDED, TurnEvent

logger = logging.getLogger(__name__)

# Stores an event of a part's turn, and USD that it has cost.
StoreEvent = Callable[[TurnEvent, float], Awaitable[None]]


@dataclass
class _Turn:
    reply: Optional[Reply] = None
    at: float = 0.0
    results: Dict[int, ToolResult] = field(default_factory=dict)
    begun: Set[int] = field(default_factory=set)
    state: str = ""


class PartTurns:
    """The turns of one part of a step.

    Attributes:
        recorded: USD of answers that are in the run's cost already.
    """

    def __init__(
        self, step: str, part: int, store: StoreEvent, events: Iterable[TurnEvent], keeps_new: bool
    ) -> None:
        """`events`: of earlier processes. `keeps_new`: another call of this process may ask for new turns."""
        self._step, self._part, self._store, self._keeps_new = step, part, store, keeps_new
        self._turns: Dict[Tuple[int, bytes], _Turn] = {}
        self._last = 0
        self._last_has_calls = False
        self.recorded = 0.0
        for event in events:
            self._load(event)

    def _load(self, event: TurnEvent) -> None:
        try:
            self._add(event)
        except (ValueError, TypeError, KeyError):
            logger.warning("a turn of step %s is of another version and is not used", event.step)

    def _add(self, event: TurnEvent) -> None:
        turn = self._turns.setdefault((event.turn, event.question), _Turn())
        if event.kind == ANSWERED:
            turn.reply, turn.at = load_reply(event.content), event.at
        elif event.kind == BEGUN:
            turn.begun.add(event.position)
        elif event.kind == ENDED:
            turn.results[event.position], turn.state = load_result(event.content)

    def find(self, turn: int, question: bytes) -> Optional[KeptTurn]:
        """As `TurnJournal.find`."""
        self._last, self._last_has_calls = turn, False
        found = self._turns.get((turn, question))
        if found is None or found.reply is None:
            return None
        self._last_has_calls = bool(found.begun or found.results)
        age = max(0.0, time.time() - found.at)
        return KeptTurn(found.reply, age, dict(found.results), frozenset(found.begun), found.state)

    async def save_answer(self, turn: int, question: bytes, reply: Reply) -> None:
        """As `TurnJournal.save_answer`."""
        is_known = reply.cost is not None and reply.wasted_cost is not None
        known = (reply.cost or 0.0) + (reply.wasted_cost or 0.0) if is_known else None
        cost = cost_or_bound(known, reply.cost_at_most)
        self.recorded += cost
        await self._save(turn, ANSWERED, 0, question, dump_reply(reply), cost)

    async def begin_call(self, turn: int, question: bytes, position: int) -> None:
        """As `TurnJournal.begin_call`."""
        self._last_has_calls = True
        await self._save(turn, BEGUN, position, question)

    async def save_results(
        self, turn: int, question: bytes, results: Mapping[int, ToolResult], state: str
    ) -> None:
        """As `TurnJournal.save_results`."""
        self._last_has_calls = True
        for position, result in results.items():
            await self._save(turn, ENDED, position, question, dump_result(result, state))

    @property
    def unused_answer(self) -> Optional[int]:
        """The number of the last turn where its answer has no calls: it would only fail again."""
        return None if self._last_has_calls or not self._last else self._last

    def forget(self, turn: int) -> None:
        """Forgets what was kept of a turn."""
        for key in [key for key in self._turns if key[0] == turn]:
            del self._turns[key]

    async def _save(
        self, turn: int, kind: str, position: int, question: bytes, content: str = "", cost: float = 0.0
    ) -> None:
        event = TurnEvent(self._step, self._part, turn, kind, position, question, time.time(), content)
        if self._keeps_new:
            self._add(event)
        # Also for a caller who is cancelled: an answer is paid for, and a call has run.
        with CancelScope(shield=True):
            await self._store(event, cost)


def dump_reply(reply: Reply) -> str:
    """Returns an answer as JSON text."""
    fields = {name: getattr(reply, name) for name in _REPLY_FIELDS}
    fields.update(usage=asdict(reply.usage), content=stored_content(reply.content))
    # What an answer cost that another call had paid for is what it saved.
    fields["cost"] = reply.saved_cost if reply.cached or reply.shared else reply.cost
    return json.dumps(fields)


def load_reply(text: str) -> Reply:
    """Returns the answer in the text of `dump_reply`. Raises ValueError, TypeError, KeyError."""
    fields: Dict[str, Any] = json.loads(text)
    content = content_of(fields["content"])
    if content is None:
        raise ValueError("The content is not that of an answer.")
    return Reply(**{**fields, "usage": Usage(**fields["usage"]), "content": content})


_REPLY_FIELDS = ("text", "model", "stop_reason", "request_id")


def dump_result(result: ToolResult, state: str) -> str:
    """Returns the result of a call, and the state of the tools after it, as JSON text."""
    return json.dumps({**result._asdict(), "state": state})


def load_result(text: str) -> Tuple[ToolResult, str]:
    """Returns what the text of `dump_result` has. Raises ValueError, TypeError, KeyError."""
    fields: Dict[str, Any] = json.loads(text)
    content, state = fields["content"], fields["state"]
    if isinstance(content, list):
        content = tuple(dict(one) for one in content)
    elif not isinstance(content, str):
        raise ValueError("The content is not that of a result.")
    if not isinstance(state, str):
        raise ValueError("The state of the tools is no text.")
    return ToolResult(content, fields["is_error"] is True, fields["is_denied"] is True), state
