"""One call from its begin to its end: what is told of it, whichever way it ended."""

from __future__ import annotations

import time
from typing import Optional

from .calling import Bill, Clock
from .errors import CallError, CancelledCallError
from .results import Run, failed, succeeded
from .types import AgentResult, Call, Executed, Reply


class Account:
    """Begins now. `bill` is for the one who sends the call; None makes one."""

    def __init__(self, call: Call, run: Run, clock: Clock, bill: Optional[Bill] = None) -> None:
        self.bill = bill or Bill()
        self._call, self._run, self._clock = call, run, clock
        self._began, self._started = time.time(), clock.now()

    def succeeded(self, reply: Reply) -> Executed:
        """It was answered."""
        return self._executed(succeeded(self._run, reply, self._duration(), self._started))

    def failed(self, error: CallError) -> Executed:
        """It got no answer."""
        return self._executed(failed(self._run, error, self._call.model, self._duration(), self._started))

    def cancelled(self) -> Optional[Executed]:
        """Nobody waits for it any more, and what was sent may be billed; None where nothing was sent."""
        error, bill = CancelledCallError("The call was cancelled"), self.bill.of_one_who_leaves()
        bill.put_on(error)
        return self.failed(error) if bill.timeline else None

    def _duration(self) -> float:
        return self._clock.now() - self._started

    def _executed(self, result: AgentResult) -> Executed:
        run = self._run
        return Executed(self._call, result, self._began, run.workflow_name, run.workflow_position)
