"""What holds for one call besides its request, and who listens to its progress."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, AsyncContextManager, Callable, List, Optional, Protocol, Tuple

from ..errors import CallError, ClosedError
from ..transport.protocol import AttemptRecord
from ..types import Call, ToolCall, Turn
from .budget import Budget
from .call_cost import CallCost
from .prices import Price
from .rate_limiter import TokenCost
from .run_gate import RunGate

if TYPE_CHECKING:
    # A call without tools loads none of it.
    from ..conversation import ToolUse


class CallbackError(BaseException):
    """A callback of the caller raised `raised` during a call.

    That is not an error of the call: it is not retried, and identical calls of other callers don't fail with
    it. Not an Exception, so that nothing on its way to the caller handles it as one.
    """

    def __init__(self, raised: BaseException) -> None:
        super().__init__(repr(raised))
        self.raised = raised


class CallListener:
    """Receives the events of a call's attempts; this one ignores them. Times are seconds.

    One that calls a callback of the caller raises CallbackError for whatever that raises.
    """

    def started(self, attempt: int) -> None:
        """Attempt number `attempt` is sent."""

    def wrote(self, text: str) -> None:
        """The next piece of a streamed answer has arrived; `retried` takes all pieces back."""

    def retried(self, attempt: int, delay: float, error: BaseException) -> None:
        """Attempt number `attempt` failed, and another follows after `delay`."""

    def paused(self, seconds: float, error: CallError) -> None:
        """No attempt of any call begins for `seconds`."""

    def turn_began(self, turn: int) -> None:
        """Turn number `turn` of an agent with tools begins, from 1."""

    def turn_ended(self, turn: int, result: Turn) -> None:
        """Turn number `turn` has ended, with an answer or an error; the tools that it called run next."""

    def tool_started(self, turn: int, use: ToolUse) -> None:
        """A tool that the answer of this turn called begins to run."""

    def tool_ended(self, call: ToolCall) -> None:
        """A tool has ended, by itself; one that the end of the run interrupted is not told."""


NULL_LISTENER = CallListener()


def text_callback(listener: CallListener) -> Optional[Callable[[str], None]]:
    """Returns the listener's `wrote`; None if it ignores text, so that nothing is called for each piece."""
    return None if type(listener).wrote is CallListener.wrote else listener.wrote


class SharedLimits(Protocol):
    """Budgets and rate limits that several processes share; each attempt is admitted by them."""

    @property
    def has_budget(self) -> bool:
        """Whether it needs to know what an attempt may cost."""

    def admit(
        self, call: Call, need: TokenCost, worst: float, record: AttemptRecord, spent: Callable[[], float]
    ) -> AsyncContextManager[None]:
        """Returns a context that is entered when an attempt may be made, and left when it has ended.

        Args:
            need: what it takes of the rate limits.
            worst: USD that it costs at most.
            spent: called at its end; returns what it has cost.

        Entering raises BudgetExceededError.
        """


@dataclass
class Session:
    """The time from the creation of an orchestrator, or its last `close`, to its next `close`.

    Attributes:
        closed: whether it is over; nothing that began in it is sent any more.
    """

    closed: bool = False
    _in_flight: int = 0
    _idle: List[asyncio.Future[None]] = field(default_factory=list)

    def check_open(self) -> None:
        """Raises ClosedError once it is over."""
        if self.closed:
            raise ClosedError("The orchestrator was closed before the call was sent")

    def __enter__(self) -> None:
        self._in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            waiting, self._idle = self._idle, []
            for one in waiting:
                one.get_loop().call_soon_threadsafe(_settle, one)

    async def wait_until_idle(self) -> None:
        """Returns when no call of this session is in flight."""
        while self._in_flight:
            waiting = asyncio.get_running_loop().create_future()
            self._idle.append(waiting)
            try:
                await waiting
            finally:
                if waiting in self._idle:
                    self._idle.remove(waiting)


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


@dataclass(frozen=True)
class CallContext:
    """What holds for one call.

    Attributes:
        budgets: all of which pay for the call.
        first_of_many: whether one of the calls that share a system prompt goes first, to fill the API's
            prompt cache for the others.
        call_cost: receives what the call costs, also if it is cancelled.
        call_id: identifies the call in a durable run, as "run:row"; submitted again, it is the same call.
        shared_limits: limits shared with other processes.
        session: that in which the call began.
        price: the prices of the caller, if they are not the sender's.
        run_gate: stops the call's run.
        settings: those with which the call began; the sender knows their type.
        journal: keeps the turns of an agent with tools, where its run can be resumed: a `TurnJournal` of the
            engine.
    """

    budgets: Tuple[Budget, ...] = ()
    listener: CallListener = NULL_LISTENER
    first_of_many: bool = False
    call_cost: Optional[CallCost] = None
    call_id: Optional[str] = None
    shared_limits: Optional[SharedLimits] = None
    session: Optional[Session] = None
    price: Optional[Price] = None
    run_gate: Optional[RunGate] = None
    settings: Any = None
    journal: Any = None

    def check_open(self, model: str) -> None:
        """Raises ClosedError, or the run gate's error, if the call may not be sent any more."""
        if self.session is not None:
            self.session.check_open()
        if self.run_gate is not None:
            self.run_gate.check(model)

    @property
    def has_budget(self) -> bool:
        """Whether a budget holds, so that an attempt needs a known worst cost."""
        return bool(self.budgets) or (self.shared_limits is not None and self.shared_limits.has_budget)


DEFAULT_CONTEXT = CallContext()
