"""Ends a run with the first answer that no other call of it can survive: what follows is not sent."""

from __future__ import annotations

from contextlib import contextmanager
from copy import copy
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Optional, Union

import anyio

from ..costs import clear_cost
from ..errors import MODEL, RUN, CallError, ClaudeForceError, ConnectionFailedError, InputError, SilenceError

_EVERY_MODEL = ""
_LINGER_SECONDS = 2.0

# What the calls that are not sent are failed with.
_Reason = Union[CallError, InputError]


class RunGate:
    """Shut for all calls of a run, or for those of one model.

    Belongs to one run in one event loop. What is on the wire when it is shut goes on to its end.
    """

    def __init__(self) -> None:
        self._shut: Dict[str, _Reason] = {}
        self._sleeping: Dict[anyio.CancelScope, str] = {}

    @property
    def reason(self) -> Optional[ClaudeForceError]:
        """Why it is shut for every call; None where it is not."""
        return self._shut.get(_EVERY_MODEL)

    def shut_if_fatal(self, error: _Reason, model: str = _EVERY_MODEL) -> None:
        """Shuts the gate as far as the error of a call holds for others, if it does."""
        if error.fatal_for is not None and not getattr(error, "skipped", False):
            self.shut(error, model if error.fatal_for == MODEL else _EVERY_MODEL)

    def shut(self, reason: _Reason, model: str = _EVERY_MODEL) -> None:
        """From now on no call is sent, or none that asks this model. The first reason stays."""
        if model in self._shut:
            return
        self._shut[model] = reason
        for scope, its_model in self._sleeping.items():
            if model in (_EVERY_MODEL, its_model):
                scope.cancel()

    def check(self, model: str = _EVERY_MODEL) -> None:
        """Raises the error of a call that is not sent, where the gate is shut for it."""
        if self._shut:
            reason = self._shut.get(_EVERY_MODEL) or self._shut.get(model)
            if reason is not None:
                raise _skipped(reason) from reason

    def is_shut_for(self, model: str) -> bool:
        """Whether `check` would raise."""
        return _EVERY_MODEL in self._shut or model in self._shut

    async def sleep(self, sleep: Callable[[float], Awaitable[Any]], model: str, seconds: float) -> None:
        """Sleeps so long, or until the gate is shut for this model."""
        if self.is_shut_for(model):
            return
        with anyio.CancelScope() as scope:
            self._sleeping[scope] = model
            try:
                await sleep(seconds)
            finally:
                del self._sleeping[scope]


class RunGates:
    """The gates of runs whose calls come one by one from elsewhere, by an id. A gate that is shut is
    forgotten some seconds after the last call of its run: by then the key or the credit may be another."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._open: Dict[str, List[Any]] = {}

    @contextmanager
    def gate_of(self, run_id: str) -> Iterator[RunGate]:
        """The gate of a run, for the length of one of its calls."""
        found = self._open.get(run_id)
        if found is None or (not found[1] and self._now() - found[2] > _LINGER_SECONDS):
            found = self._open[run_id] = [RunGate(), 0, 0.0]
        found[1] += 1
        try:
            yield found[0]
        finally:
            found[1], found[2] = found[1] - 1, self._now()
            if not found[1]:
                self._forget_old()

    def _forget_old(self) -> None:
        """Keeps only gates that have calls, or are shut and were used a moment ago."""
        now = self._now()
        for run_id, (gate, calls, last) in list(self._open.items()):
            if not calls and (gate.reason is None or now - last > _LINGER_SECONDS):
                del self._open[run_id]


def _skipped(reason: _Reason) -> _Reason:
    """The same error for a call that was not sent: nothing of the request that met it."""
    error = copy(reason)
    if isinstance(error, CallError):
        error.message = f"Not sent, as an earlier call of the run failed for good: {error.message}"
        error.args = (error.message,)
        error.skipped, error.retryable = True, False
        error.request_id = error.retry_after = None
        clear_cost(error)
    return error


# So many attempts in a row without an answer are neither a restart nor one broken connection.
_ENOUGH = 10


class ReachabilityMonitor:
    """Counts attempts that got no answer: no connection was made, it was closed, or nothing came over it."""

    def __init__(self) -> None:
        self._ever = False
        self._in_vain = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether nothing was ever answered, and enough was tried to wait for the retries of that."""
        return not self._ever and self._in_vain >= _ENOUGH

    def record_answer(self) -> None:
        """An answer came, of whatever kind."""
        self._ever, self._in_vain = True, 0

    def record_failure(self, error: BaseException, has_answer: bool) -> None:
        """An attempt failed; `has_answer` says that the server had begun to answer."""
        if has_answer:
            self.record_answer()
        elif _never_connected(error) or (_is_unanswered(error) and not self._ever):
            self._in_vain += 1

    def mark_fatal(self, error: CallError) -> None:
        """Marks the last error of a call, after its retries, as one that every other call would meet."""
        if _never_connected(error):
            is_dead = not self._ever or self._in_vain >= _ENOUGH
        else:
            is_dead = _is_unanswered(error) and self.is_doubtful
        if is_dead:
            error.fatal_for = RUN
            # The next run finds out anew.
            self._in_vain = 0


def _never_connected(error: BaseException) -> bool:
    return isinstance(error, ConnectionFailedError) and error.never_connected


def _is_unanswered(error: BaseException) -> bool:
    return isinstance(error, (ConnectionFailedError, SilenceError))
