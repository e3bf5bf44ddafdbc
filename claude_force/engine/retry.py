"""Whether another attempt is made, and after how long. Pure.

The backoff is exponential with full jitter: Marc Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Awaitable, Callable, Optional

from tenacity import AsyncRetrying, RetryCallState

from .. import settings
from ..clock import Clock
from ..errors import CallError, DeadlineExceededError
from ..limits.call_context import CallContext
from ..types import Call, Reply


@dataclass(frozen=True)
class RetryPolicy:
    """`attempts` counts the first one; times are seconds; `uniform(low, high)` draws the jitter."""

    attempts: int = settings.MAX_ATTEMPTS
    base: float = settings.BACKOFF_BASE_SECONDS
    cap: float = settings.BACKOFF_CAP_SECONDS
    uniform: Callable[[float, float], float] = random.uniform

    def gives_up(self, attempt: int, error: BaseException) -> bool:
        """Whether `error`, met in attempt number `attempt`, is final."""
        return attempt >= self.attempts or not (isinstance(error, CallError) and error.retryable)

    def delay(self, attempt: int, error: BaseException) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 1.

        A `retry-after` is a floor: the jitter comes on top, so that a fleet that was told
        the same time does not come back in the same moment.
        """
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))
        asked = error.retry_after if isinstance(error, CallError) else None
        return (asked or 0.0) + self.uniform(0.0, ceiling)


logger = logging.getLogger(__name__)


class Retrier:
    """Makes attempts at `call` until one succeeds or the policy gives up.

    Attributes:
        last_error: why the last of them failed, when another was to follow.
    """

    def __init__(
        self, call: Call, policy: RetryPolicy, clock: Clock, deadline: Optional[float], context: CallContext
    ) -> None:
        self._call = call
        self._policy = policy
        self._clock = clock
        self._deadline = deadline
        self._terms = context
        self._started = clock.now()
        self.last_error: Optional[BaseException] = None

    async def run(self, attempt: Callable[[int], Awaitable[Reply]]) -> Reply:
        """`attempt` is given its number, from 1. Raises what the last raised, or DeadlineExceededError."""
        try:
            return await attempt(1)
        except CallError as error:
            if not error.retryable:
                raise
            return await self._driven(attempt, error)

    async def _driven(self, attempt: Callable[[int], Awaitable[Reply]], failed: Optional[CallError]) -> Reply:
        made = 1

        async def again() -> Reply:
            # The driver costs a tenth of a call, and most calls need none: it is told of the first attempt.
            nonlocal failed, made
            if failed is not None:
                first, failed = failed, None
                raise first
            made += 1
            return await attempt(made)

        retrying = AsyncRetrying(
            retry=self._follows_another,
            wait=self._delay,
            sleep=self._sleep,
            before_sleep=self._log,
        )
        return await retrying(again)

    # The three have the parameter's name from tenacity: before 8.2 it is given by keyword.
    def _follows_another(self, retry_state: RetryCallState) -> bool:
        error = _error_of(retry_state)
        if error is None or self._policy.gives_up(retry_state.attempt_number, error):
            return False
        self.last_error = error
        self._respect_deadline(error)
        return True

    def _respect_deadline(self, error: BaseException) -> None:
        """Fails now rather than at the deadline when the server asks for more time than is left."""
        asked = error.retry_after if isinstance(error, CallError) else None
        if self._deadline is None or asked is None:
            return
        left = self._deadline - (self._clock.now() - self._started)
        if asked > left:
            raise DeadlineExceededError(
                f"The server asks to wait {asked:g} s and the deadline leaves {max(left, 0):.3g} s"
            ) from error

    def _delay(self, retry_state: RetryCallState) -> float:
        error = _error_of(retry_state)
        return self._policy.delay(retry_state.attempt_number, error) if error else 0.0

    async def _sleep(self, seconds: float) -> None:
        run_gate = self._terms.run_gate
        if run_gate is None:
            await self._clock.sleep(seconds)
        else:
            await run_gate.sleep(self._clock.sleep, self._call.model, seconds)

    def _log(self, retry_state: RetryCallState) -> None:
        error = _error_of(retry_state)
        seconds = retry_state.next_action.sleep if retry_state.next_action else 0.0
        if error is not None:
            self._terms.listener.retried(retry_state.attempt_number, seconds, error)
        logger.warning(
            "attempt %d for %s failed, the next follows in %.2f s: %s",
            retry_state.attempt_number,
            self._call.agent_name,
            seconds,
            error,
            extra={
                "agent": self._call.agent_name,
                "attempt": retry_state.attempt_number,
                "delay_seconds": seconds,
                "error_type": type(error).__name__,
            },
        )


def _error_of(retry_state: RetryCallState) -> Optional[BaseException]:
    return retry_state.outcome.exception() if retry_state.outcome else None
