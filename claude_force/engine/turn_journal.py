"""Keeps the turns of an agent with tools, so that a later process goes on where this one was killed.

An answer is kept before its calls run, and the intent of a call that may have side effects before it runs.
So a later process pays for no kept answer again, and knows of each call whether it has run, has not begun, or
was interrupted. Such a call is not run again: the model is told.
"""

from __future__ import annotations

from typing import FrozenSet, Mapping, NamedTuple, Optional, Protocol

from ..cache.request_key import request_key
from ..conversation import ToolResult
from ..types import Call, Reply, fast_replace

INTERRUPTED = ToolResult(
    "Interrupted: it may or may not have run. The run was stopped during this call. Look at what it has "
    "changed before you repeat it.",
    True,
)


class KeptTurn(NamedTuple):
    """What is kept of one turn.

    Attributes:
        age: seconds since its answer.
        results: those of its calls that have ended, by their position in the answer.
        begun: the positions of calls with side effects that have begun.
        state: that of the tools after the last of the results, for `Tools.restore`.
    """

    reply: Reply
    age: float
    results: Mapping[int, ToolResult]
    begun: FrozenSet[int]
    state: str = ""

    @property
    def free_reply(self) -> Reply:
        """The answer, which was paid for before."""
        return fast_replace(
            self.reply,
            saved_cost=self.reply.cost,
            cost=0.0,
            wasted_cost=0.0,
            cost_at_most=0.0,
            cached=True,
            cache_age=self.age,
            shared=False,
            attempts=0,
            timeline=(),
        )


class TurnJournal(Protocol):
    """Stores the turns of one agent's loop. What a method has stored outlives a kill of this process.

    `question` identifies the request of the turn. No method raises: where it can't store, it says so in the
    log, and the run goes on.
    """

    def find(self, turn: int, question: bytes) -> Optional[KeptTurn]:
        """Returns what an earlier process has kept of a turn with the same request."""

    async def save_answer(self, turn: int, question: bytes, reply: Reply) -> None:
        """Keeps an answer and its cost."""

    async def begin_call(self, turn: int, question: bytes, position: int) -> None:
        """Keeps that a call with side effects begins."""

    async def save_results(
        self, turn: int, question: bytes, results: Mapping[int, ToolResult], state: str
    ) -> None:
        """Keeps the results of calls that have ended, by their position, and the state of the tools then."""


class TurnRecord:
    """What is kept of the turn that runs now. Without a journal it keeps nothing."""

    def __init__(self, journal: Optional[TurnJournal], turn: int, call: Call) -> None:
        """`call`: as it is sent, with its conversation."""
        self._turn, self._question = turn, b""
        key = None if journal is None else request_key(call, ())
        self._journal = journal
        self.kept: Optional[KeptTurn] = None
        if journal is not None and key is not None:
            self._question = key.digest()
            self.kept = journal.find(turn, self._question)
        else:
            self._journal = None

    def kept_result(self, position: int) -> Optional[ToolResult]:
        """Returns the result that a call had before; what says so, for one that was interrupted."""
        if self.kept is None:
            return None
        found = self.kept.results.get(position)
        return INTERRUPTED if found is None and position in self.kept.begun else found

    async def save_answer(self, reply: Reply) -> None:
        """Keeps the answer, unless it was kept before."""
        if self._journal is not None and self.kept is None:
            await self._journal.save_answer(self._turn, self._question, reply)

    async def begin_call(self, position: int) -> None:
        """Keeps that a call with side effects begins."""
        if self._journal is not None:
            await self._journal.begin_call(self._turn, self._question, position)

    @property
    def is_kept(self) -> bool:
        """Whether there is a journal."""
        return self._journal is not None

    async def save_results(self, results: Mapping[int, ToolResult], state: str) -> None:
        """Keeps results, and the state of the tools after them."""
        if self._journal is not None and results:
            await self._journal.save_results(self._turn, self._question, results, state)
