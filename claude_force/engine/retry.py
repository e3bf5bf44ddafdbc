"""Whether another attempt is made, and after how long: a pure policy, and the loop that obeys it.

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
from ..errors import CallError, DeadlineExceededError
from ..limits.call_context import CallContext
from ..types import Call, Clock, Reply

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """When to retry. Pure.

    Attributes:
        attempts: the most attempts of a call, the first one included.
        base, cap: seconds; the jitter of attempt n is at most base * 2^(n - 1), and at most cap.
        uniform: draws the jitter between two bounds.
    """

    attempts: int = settings.MAX_ATTEMPTS
    base: float = settings.BACKOFF_BASE_SECONDS
    cap: float = settings.BACKOFF_CAP_SECONDS
    uniform: Callable[[float, float], float] = random.uniform

    def gives_up(self, attempt: int, error: BaseException) -> bool:
        """Whether `error`, met in attempt number `attempt`, is final."""
        return attempt >= self.attempts or not (isinstance(error, CallError) and error.retryable)

    def delay(self, attempt: int, error: BaseException) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 1.

        The jitter is added to a `retry-after`: clients that were all given the same time do not come back
        at the same moment.
        """
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))
        return (_retry_after(error) or 0.0) + self.uniform(0.0, ceiling)


class Retrier:
    """Retries one call after its first attempt has failed.

    Attributes:
        last_error: the error of the last attempt that was retried.
    """

    def __init__(
        self, call: Call, policy: RetryPolicy, clock: Clock, deadline: Optional[float], context: CallContext
    ) -> None:
        """`deadline` is in seconds from now."""
        self._call, self._policy, self._clock, self._context = call, policy, clock, context
        self._deadline, self._started = deadline, clock.now()
        self.last_error: Optional[BaseException] = None

    async def retry(self, attempt: Callable[[int], Awaitable[Reply]], error: CallError) -> Reply:
        """Waits and calls `attempt` with its number, from 2, until one succeeds or the policy gives up.

        `error` is that of attempt 1. Raises the error of the last attempt, or DeadlineExceededError.
        """
        made = 0

        async def run_next() -> Reply:
            # tenacity is given the first attempt's error rather than the attempt: its driver costs 24 us,
            # a thirtieth of a call, and most calls need no second attempt.
            nonlocal made
            made += 1
            if made == 1:
                raise error
            return await attempt(made)

        retrying = AsyncRetrying(
            retry=self._should_retry, wait=self._delay, sleep=self._sleep, before_sleep=self._log
        )
        return await retrying(run_next)

    # The parameter's name is tenacity's: before 8.2 it is given by keyword.
    def _should_retry(self, retry_state: RetryCallState) -> bool:
        error = _error_of(retry_state)
        if error is None or self._policy.gives_up(retry_state.attempt_number, error):
            return False
        self.last_error = error
        self._check_deadline(error)
        return True

    def _check_deadline(self, error: BaseException) -> None:
        """Fails now rather than at the deadline if the server asks for more time than is left."""
        seconds = _retry_after(error)
        if self._deadline is None or seconds is None:
            return
        left = self._deadline - (self._clock.now() - self._started)
        if seconds > left:
            raise DeadlineExceededError(
                f"The server asks to wait {seconds:g} s and the deadline leaves {max(left, 0):.3g} s"
            ) from error

    def _delay(self, retry_state: RetryCallState) -> float:
        error = _error_of(retry_state)
        return self._policy.delay(retry_state.attempt_number, error) if error else 0.0

    async def _sleep(self, seconds: float) -> None:
        run_gate = self._context.run_gate
        if run_gate is None:
            await self._clock.sleep(seconds)
        else:
            await run_gate.sleep(self._clock.sleep, self._call.model, seconds)

    def _log(self, retry_state: RetryCallState) -> None:
        error = _error_of(retry_state)
        seconds = retry_state.next_action.sleep if retry_state.next_action else 0.0
        if error is not None:
            self._context.listener.retried(retry_state.attempt_number, seconds, error)
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


def _retry_after(error: BaseException) -> Optional[float]:
    return error.retry_after if isinstance(error, CallError) else None


def _error_of(retry_state: RetryCallState) -> Optional[BaseException]:
    return retry_state.outcome.exception() if retry_state.outcome else None
