"""Stops a run at the first error that all its other calls would meet too."""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Optional, Union

import anyio

from ..costs import clear_cost
from ..errors import MODEL, RUN, CallError, ClaudeForceError, ConnectionFailedError, InputError, SilenceError

_EVERY_MODEL = ""
_KEEP_SECONDS = 2.0

# The error of calls that are not sent.
_Reason = Union[CallError, InputError]


class RunGate:
    """Stops all calls of a run, or those of one model, before they are sent.

    Belongs to one run in one event loop. Requests in flight go on when it is shut.

    Example:
        gate = RunGate()
        gate.shut(ClosedError("The run was ended"))
        gate.check()  # raises a copy of that error, whose `skipped` is True
    """

    def __init__(self) -> None:
        self._reasons: Dict[str, _Reason] = {}
        self._sleeping: Dict[anyio.CancelScope, str] = {}

    @property
    def reason(self) -> Optional[ClaudeForceError]:
        """Why it is shut for every call; None if it is not."""
        return self._reasons.get(_EVERY_MODEL)

    def shut_if_fatal(self, error: _Reason, model: str = _EVERY_MODEL) -> None:
        """Shuts the gate for the calls that would meet the same error, if there are any."""
        if error.fatal_for is not None and not getattr(error, "skipped", False):
            self.shut(error, model if error.fatal_for == MODEL else _EVERY_MODEL)

    def shut(self, reason: _Reason, model: str = _EVERY_MODEL) -> None:
        """Lets no call be sent any more, or none to this model. The first reason stays."""
        if model in self._reasons:
            return
        self._reasons[model] = reason
        for scope, its_model in self._sleeping.items():
            if model in (_EVERY_MODEL, its_model):
                scope.cancel()

    def check(self, model: str = _EVERY_MODEL) -> None:
        """Raises the error of a call that is not sent, if the gate is shut for it."""
        if self._reasons:
            reason = self._reasons.get(_EVERY_MODEL) or self._reasons.get(model)
            if reason is not None:
                raise _skipped(reason) from reason

    def is_shut_for(self, model: str) -> bool:
        """Whether `check` would raise."""
        return _EVERY_MODEL in self._reasons or model in self._reasons

    async def sleep(self, sleep: Callable[[float], Awaitable[Any]], model: str, seconds: float) -> None:
        """Sleeps for `seconds`, or until the gate is shut for this model."""
        if self.is_shut_for(model):
            return
        with anyio.CancelScope() as scope:
            self._sleeping[scope] = model
            try:
                await sleep(seconds)
            finally:
                del self._sleeping[scope]


class RunGates:
    """The gates of runs by their ids, for a process that is given the calls of runs one by one.

    A gate that is shut is forgotten some seconds after the last call of its run: by then there may be
    another key, or new credit.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._open: Dict[str, List[Any]] = {}

    @contextmanager
    def gate_of(self, run_id: str) -> Iterator[RunGate]:
        """Yields the gate of a run for the duration of one of its calls."""
        entry = self._open.get(run_id)
        if entry is None or (not entry[1] and self._now() - entry[2] > _KEEP_SECONDS):
            entry = self._open[run_id] = [RunGate(), 0, 0.0]
        entry[1] += 1
        try:
            yield entry[0]
        finally:
            entry[1], entry[2] = entry[1] - 1, self._now()
            if not entry[1]:
                self._forget_old()

    def _forget_old(self) -> None:
        """Keeps the gates that are in use, and those that are shut and were used a moment ago."""
        now = self._now()
        for run_id, (gate, calls, last) in list(self._open.items()):
            if not calls and (gate.reason is None or now - last > _KEEP_SECONDS):
                del self._open[run_id]


def _skipped(reason: _Reason) -> _Reason:
    """Returns the error for a call that was not sent, without the figures of the request that met it."""
    error = copy(reason)
    if isinstance(error, CallError):
        error.message = f"Not sent, as an earlier call of the run failed for good: {error.message}"
        error.args = (error.message,)
        error.skipped, error.retryable = True, False
        error.request_id = error.retry_after = None
        clear_cost(error)
    return error


# So many attempts in a row without an answer are more than a restart or one broken connection.
_MAX_UNANSWERED = 10


class ReachabilityMonitor:
    """Counts attempts without any answer, to tell a dead endpoint from one that fails now and then."""

    def __init__(self) -> None:
        self._has_answered = False
        self._unanswered = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether nothing was ever answered, so that new calls wait for the retries of the first ones."""
        return not self._has_answered and self._unanswered >= _MAX_UNANSWERED

    def record_answer(self) -> None:
        """Records an answer, of whatever kind."""
        self._has_answered, self._unanswered = True, 0

    def record_failure(self, error: BaseException, has_answer: bool) -> None:
        """Records a failed attempt; `has_answer` says that the server had begun to answer."""
        if has_answer:
            self.record_answer()
        elif _never_connected(error) or (_is_unanswered(error) and not self._has_answered):
            self._unanswered += 1

    def mark_fatal(self, error: CallError) -> None:
        """Marks the last error of a call as fatal for its run if the endpoint is dead."""
        if _never_connected(error):
            is_dead = not self._has_answered or self._unanswered >= _MAX_UNANSWERED
        else:
            is_dead = _is_unanswered(error) and self.is_doubtful
        if is_dead:
            error.fatal_for = RUN
            # The next run tries again.
            self._unanswered = 0


def _never_connected(error: BaseException) -> bool:
    return isinstance(error, ConnectionFailedError) and error.never_connected


def _is_unanswered(error: BaseException) -> bool:
    return isinstance(error, (ConnectionFailedError, SilenceError))
