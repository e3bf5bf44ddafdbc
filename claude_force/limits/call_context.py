"""What holds for one call beside its question, and who is told how it goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, AsyncContextManager, Callable, List, Optional, Protocol, Tuple

from ..errors import CallError, ClosedError
from ..transport.protocol import AttemptRecord
from ..types import Call
from .budget import Budget, Price
from .call_cost import CallCost
from .rate_limiter import TokenCost
from .run_gate import RunGate


class CallListener:
    """Is told of a call's attempts; this one does nothing about it. Seconds throughout."""

    def started(self, attempt: int) -> None:
        """Attempt number `attempt` goes onto the wire."""

    def wrote(self, text: str) -> None:
        """The next piece of a streamed answer has come; `retried` says that it was in vain."""

    def retried(self, attempt: int, delay: float, error: BaseException) -> None:
        """Attempt number `attempt` failed, and another follows after `delay`."""

    def paused(self, seconds: float, error: CallError) -> None:
        """No attempt of any call begins for so long."""


NULL_LISTENER = CallListener()


def text_callback(listener: CallListener) -> Optional[Callable[[str], None]]:
    """What is to be called with each piece of text; None where nobody listens, who then costs nothing."""
    return None if type(listener).wrote is CallListener.wrote else listener.wrote


class SharedLimits(Protocol):
    """Limits that other processes share: no attempt goes on but through it."""

    @property
    def has_budget(self) -> bool:
        """Whether it has to know what an attempt may cost."""

    def slot(
        self, call: Call, need: TokenCost, worst: float, record: AttemptRecord, spent: Callable[[], float]
    ) -> AsyncContextManager[None]:
        """Entered when an attempt may be made that takes `need` and costs at most `worst` USD; left when it
        has ended, however it did. `spent` then says what it cost. Raises BudgetExceededError."""


@dataclass
class Session:
    """The time from an orchestrator's making, or its last `close`, to its next one.

    Attributes:
        closed: it is over; nothing that began in it is sent any more.
    """

    closed: bool = False
    _under_way: int = 0
    _idle: List[asyncio.Future[None]] = field(default_factory=list)

    def check_open(self) -> None:
        """Raises ClosedError once it is over."""
        if self.closed:
            raise ClosedError("The orchestrator was closed before the call was sent")

    def __enter__(self) -> None:
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            waiting, self._idle = self._idle, []
            for one in waiting:
                one.get_loop().call_soon_threadsafe(_settle, one)

    async def wait_until_idle(self) -> None:
        """Returns when nothing that began in it is under way."""
        while self._under_way:
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
    """`first_of_many`: of calls that share a system prompt, one goes first and fills the prompt cache.

    `call_cost` is the call's own, for a caller who wants to know of it before the call has ended. `call_id`,
    "run:place", says which call this is of a durable run: handed over again, it is the same one. `session` is
    that of the run that the call belongs to, and `run_gate` ends that run. `price` is what the call's tokens
    cost, where its caller has prices that are not the engine's. `settings` are those that the call began
    with; whoever sends it knows their type.
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

    def check_open(self, model: str) -> None:
        """Raises ClosedError, or the error of a call that is not sent, where nothing may be sent any more."""
        if self.session is not None:
            self.session.check_open()
        if self.run_gate is not None:
            self.run_gate.check(model)

    @property
    def has_budget(self) -> bool:
        """Whether anybody has to know what an attempt may cost."""
        return bool(self.budgets) or (self.shared_limits is not None and self.shared_limits.has_budget)


DEFAULT_CONTEXT = CallContext()
