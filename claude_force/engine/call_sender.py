"""Sends calls over one transport."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import AsyncContextManager, Optional, Set

import anyio
import anyio.to_thread

from ..errors import CallError, ClosedError, ConnectionFailedError, DeadlineExceededError
from ..limits.admission import NO_WAIT, AdmissionController
from ..limits.call_context import DEFAULT_CONTEXT, CallContext, text_callback
from ..limits.call_cost import CallCost, CallPricing
from ..limits.prices import Price
from ..limits.prompt_cache_primer import PromptCachePrimer
from ..limits.rate_limiter import TokenCost
from ..limits.run_gate import ReachabilityMonitor
from ..limits.token_estimator import TokenEstimator
from ..transport.network import NoDescriptorError
from ..transport.protocol import AttemptRecord
from ..transport.transport import Transport
from ..types import Call, Clock, Reply
from .retry import Retrier, RetryPolicy

# How often an attempt tries to get a file descriptor, and after how many seconds it tries again.
_MAX_DESCRIPTOR_TRIES, _DESCRIPTOR_SECONDS = 100, 0.1
# The same for a new call that waits until the endpoint of its run has answered.
_MAX_LOOKS, _LOOK_SECONDS = 100, 0.05


class _EndpointInDoubtError(Exception):
    """The endpoint has not answered anything yet; the first attempt of a call waits for others' retries."""


class CallSender:
    """Sends calls over one transport: retry loop, admission, attempt. Bound to one event loop.

    A call that waits for its next attempt holds no slot.

    Example:
        sender = await pool.sender(settings, call.model)
        reply = await sender.send(call, 60.0, CallContext(), CallCost())
    """

    def __init__(
        self,
        transport: Transport,
        admission: AdmissionController,
        policy: RetryPolicy,
        clock: Clock,
        price: Price,
        token_estimator: TokenEstimator,
    ) -> None:
        self.transport, self.admission = transport, admission
        self._price, self._policy, self._clock, self._token_estimator = price, policy, clock, token_estimator
        self._primer = PromptCachePrimer(clock)
        self._live: Set[anyio.CancelScope] = set()
        self._closed = False
        self._reachability = ReachabilityMonitor()

    @property
    def is_idle(self) -> bool:
        """Whether no call is in flight."""
        return not self._live and not self.admission.in_flight

    async def send(
        self,
        call: Call,
        deadline_seconds: Optional[float] = None,
        context: CallContext = DEFAULT_CONTEXT,
        call_cost: Optional[CallCost] = None,
    ) -> Reply:
        """Raises InputError before anything is sent, CallError after. `call_cost` receives the attempts."""
        self.transport.check(call)
        call_cost = call_cost or CallCost()
        # A cloud answers with Anthropic's name of the model, and has its own prices.
        pricing = CallPricing(call, context.price or self._price, not self.transport.service.is_cloud)
        worst = pricing.require_worst_cost() if context.has_budget else 0.0
        retrier = Retrier(call, self._policy, self._clock, deadline_seconds, context)
        with anyio.move_on_after(deadline_seconds) as scope:
            self._live.add(scope)
            try:
                try:
                    reply = await self._attempt(call, context, pricing, worst, call_cost, 1)
                except CallError as error:
                    attempt = partial(self._attempt, call, context, pricing, worst, call_cost)
                    reply = await retrier.retry(attempt, error)
                return pricing.priced(reply, call_cost)
            except CallError as error:
                call_cost.copy_to(error)
                self._reachability.mark_fatal(error)
                if context.run_gate is not None:
                    context.run_gate.shut_if_fatal(error, call.model)
                raise
            finally:
                self._live.discard(scope)
        raise self._interrupted(call_cost, deadline_seconds) from retrier.last_error

    async def check_credentials(self) -> None:
        """Raises AuthenticationError where there are no credentials. Sends nothing to the API."""
        # A cloud's are looked for in files and on its own servers.
        await anyio.to_thread.run_sync(self.transport.check_credentials)

    async def probe(self, model: str) -> None:
        """Sends a request that costs nothing, to learn the rate limits. Raises CallError."""
        record = AttemptRecord()
        async with self.admission.slot(model, TokenCost(), record, DEFAULT_CONTEXT):
            await self.transport.probe(model, record)

    async def _attempt(
        self,
        call: Call,
        context: CallContext,
        pricing: CallPricing,
        worst: float,
        call_cost: CallCost,
        number: int,
    ) -> Reply:
        record = AttemptRecord(on_text=text_callback(context.listener))
        check = self._check_reachability if number == 1 and context.run_gate is not None else None
        if check is not None:
            await self._await_retries(call, context)
        try:
            reservation = self._reserve(call, context, pricing, worst, record)
            async with self._primer.turn(call, context, record), reservation:
                for tries in count(1):
                    try:
                        token_cost = self._token_estimator.estimate(call)
                        async with self.admission.slot(call.model, token_cost, record, context, check):
                            # Not again after a try that found no descriptor.
                            if record.ended is None:
                                context.listener.started(number)
                            reply = await self.transport.attempt(call, record)
                            break
                    except _EndpointInDoubtError:
                        await self._await_retries(call, context)
                        check = None
                    except NoDescriptorError as error:
                        await self._await_descriptor(tries, error)
        except BaseException as error:
            self._reachability.record_failure(error, bool(record.headers))
            pricing.add_failed(record, call_cost)
            call_cost.record_attempt(record, error)
            raise
        self._reachability.record_answer()
        call_cost.record_attempt(record)
        if reply.usage.is_known:
            self._token_estimator.observe(call, reply.usage)
        return reply

    def _reserve(
        self,
        call: Call,
        context: CallContext,
        pricing: CallPricing,
        worst: float,
        record: AttemptRecord,
    ) -> AsyncContextManager[None]:
        """Returns a context that holds `worst` USD of all budgets until the attempt has ended."""
        if context.shared_limits is None and not context.budgets:
            return NO_WAIT
        spent = partial(pricing.spent, record, worst)
        if context.shared_limits is not None:
            token_cost = self._token_estimator.estimate(call)
            return context.shared_limits.admit(call, token_cost, worst, record, spent)
        return self.admission.reserve(context.budgets, worst, spent)

    def _check_reachability(self) -> None:
        # Not earlier: by the time that an attempt gets its slot, those before it may have failed.
        if self._reachability.is_doubtful:
            raise _EndpointInDoubtError

    async def _await_retries(self, call: Call, context: CallContext) -> None:
        """Waits until the retries of a run's first calls have shown whether its endpoint is dead."""
        looks = 0
        while context.run_gate is not None and self._reachability.is_doubtful and looks < _MAX_LOOKS:
            looks += 1
            await context.run_gate.sleep(self._clock.sleep, call.model, _LOOK_SECONDS)
            context.run_gate.check(call.model)

    async def _await_descriptor(self, tries: int, error: NoDescriptorError) -> None:
        # Nothing was sent, so this is not an attempt; with fewer connections at a time there is room.
        self.admission.reduce_ceiling()
        if tries > _MAX_DESCRIPTOR_TRIES:
            raise ConnectionFailedError(error.message, advice=error.advice) from error
        await self._clock.sleep(_DESCRIPTOR_SECONDS)

    def _interrupted(self, call_cost: CallCost, deadline_seconds: Optional[float]) -> CallError:
        error: CallError
        if self._closed or deadline_seconds is None:
            error = ClosedError("The orchestrator was closed during the call")
        else:
            error = DeadlineExceededError(f"No answer within the deadline of {deadline_seconds:g} s")
        call_cost.copy_to(error)
        return error

    async def close(self) -> None:
        """Ends the calls in flight, then closes the connections."""
        self._closed = True
        # An attempt that is admitted from now on would find no connections.
        self.admission.close()
        for scope in list(self._live):
            scope.cancel()
        await self.transport.close()
