"""Sends calls over one transport."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import count
from typing import AsyncContextManager, Optional, Set

import anyio

from ..clock import Clock
from ..errors import CallError, ClosedError, ConnectionFailedError, DeadlineExceededError
from ..limits.admission import NO_WAIT, AdmissionController
from ..limits.budget import Price, require_worst_cost, worst_cost
from ..limits.call_context import DEFAULT_CONTEXT, CallContext, text_callback
from ..limits.call_cost import CallCost
from ..limits.prompt_cache_primer import PromptCachePrimer
from ..limits.rate_limiter import TokenCost
from ..limits.run_gate import ReachabilityMonitor
from ..limits.token_estimator import TokenEstimator
from ..transport.network import NoDescriptorError
from ..transport.protocol import AttemptRecord
from ..transport.transport import Transport
from ..types import Call, Reply, Usage
from .retry import Retrier, RetryPolicy

# How often, and after how many seconds, an attempt looks again for a file descriptor.
_MOST_WAITS, _DESCRIPTOR_SECONDS = 100, 0.1
# The same for a new call of a run whose endpoint has not answered yet.
_MOST_LOOKS, _LOOK_SECONDS = 100, 0.05


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
        """Whether no call is under way."""
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
        price = context.price or self._price
        worst = require_worst_cost(call, price) if context.has_budget else 0.0
        retrier = Retrier(call, self._policy, self._clock, deadline_seconds, context)
        with anyio.move_on_after(deadline_seconds) as scope:
            self._live.add(scope)
            try:
                try:
                    reply = await self._attempt(call, context, worst, call_cost, 1)
                except CallError as error:
                    attempt = partial(self._attempt, call, context, worst, call_cost)
                    reply = await retrier.retry(attempt, error)
                return self._priced(call, reply, call_cost, price)
            except CallError as error:
                call_cost.copy_to(error)
                self._reachability.mark_fatal(error)
                if context.run_gate is not None:
                    context.run_gate.shut_if_fatal(error, call.model)
                raise
            finally:
                self._live.discard(scope)
        raise self._cut_short(call_cost, deadline_seconds) from retrier.last_error

    async def probe(self, model: str) -> None:
        """Sends a request that costs nothing, to learn the rate limits. Raises CallError."""
        record = AttemptRecord()
        async with self.admission.slot(model, TokenCost(), record, DEFAULT_CONTEXT):
            await self.transport.probe(model, record)

    async def _attempt(
        self, call: Call, context: CallContext, worst: float, call_cost: CallCost, number: int
    ) -> Reply:
        record = AttemptRecord(on_text=text_callback(context.listener))
        if number == 1 and self._reachability.is_doubtful:
            await self._await_retries(call, context)
        try:
            async with self._primer.turn(call, context, record), self._reserve(call, context, worst, record):
                for waits in count(1):
                    try:
                        need = self._token_estimator.estimate(call)
                        async with self.admission.slot(call.model, need, record, context):
                            if waits == 1:
                                context.listener.started(number)
                            reply = await self.transport.attempt(call, record)
                            break
                    except NoDescriptorError as error:
                        await self._await_descriptor(waits, error)
        except BaseException as error:
            self._reachability.record_failure(error, bool(record.headers))
            self._add_failed_cost(call_cost, call, context, record)
            call_cost.record_attempt(record, error)
            raise
        self._reachability.record_answer()
        call_cost.record_attempt(record)
        if reply.usage.is_known:
            self._token_estimator.observe(call, reply.usage)
        return reply

    async def _await_retries(self, call: Call, context: CallContext) -> None:
        """Waits until the retries of a run's first calls have shown whether its endpoint is dead."""
        looks = 0
        while context.run_gate is not None and self._reachability.is_doubtful and looks < _MOST_LOOKS:
            looks += 1
            await context.run_gate.sleep(self._clock.sleep, call.model, _LOOK_SECONDS)
            context.run_gate.check(call.model)

    async def _await_descriptor(self, waits: int, error: NoDescriptorError) -> None:
        # Nothing was sent: this is no attempt, and fewer at a time will find room.
        self.admission.reduce_ceiling()
        if waits > _MOST_WAITS:
            raise ConnectionFailedError(error.message, advice=error.advice) from error
        await self._clock.sleep(_DESCRIPTOR_SECONDS)

    def _reserve(
        self, call: Call, context: CallContext, worst: float, record: AttemptRecord
    ) -> AsyncContextManager[None]:
        """Holds `worst` USD of all budgets, until what the attempt has cost takes its place."""
        if context.shared_limits is None and not context.budgets:
            return NO_WAIT
        spent = partial(self._spent, worst, call, context, record)
        if context.shared_limits is None:
            return self.admission.reserve(context.budgets, worst, spent)
        return context.shared_limits.slot(call, self._token_estimator.estimate(call), worst, record, spent)

    def _spent(self, worst: float, call: Call, context: CallContext, record: AttemptRecord) -> float:
        if not record.usage:
            return worst if record.in_doubt else 0.0
        cost = self._cost(call, record.usage, record.model, context.price or self._price)
        return worst if cost is None else cost

    def _add_failed_cost(
        self, call_cost: CallCost, call: Call, context: CallContext, record: AttemptRecord
    ) -> None:
        price = context.price or self._price
        cost = self._cost(call, record.usage, record.model, price) if record.usage else None
        if cost is not None:
            call_cost.add_failed_cost(cost)
        elif record.usage or record.in_doubt:
            call_cost.add_unknown_cost(worst_cost(call, price))

    def _priced(self, call: Call, reply: Reply, call_cost: CallCost, price: Price) -> Reply:
        usage = reply.usage
        wasted = call_cost.wasted
        cost = self._cost(call, usage, reply.model, price)
        if cost is None:
            most = worst_cost(call, price)
            # What costs nothing at its worst costs nothing.
            cost = 0.0 if most == 0 else None
            call_cost.add_unknown_cost(most)
        call_cost.answer_cost = cost
        saving: Optional[float] = 0.0
        if usage.prompt_tokens != usage.input_tokens:
            plain = self._cost(call, _without_cache(usage), reply.model, price)
            saving = None if cost is None or plain is None else plain - cost
        return replace(
            reply,
            attempts=len(call_cost.timeline),
            cost=cost,
            wasted_cost=wasted,
            cost_at_most=call_cost.at_most,
            prompt_cache_saving=saving,
            timeline=call_cost.timeline,
        )

    def _cost(self, call: Call, usage: Usage, answered: str, price: Price) -> Optional[float]:
        # A cloud answers with Anthropic's name of the model, and has prices of its own.
        return price(call.model, usage, call.options, "" if self.transport.service.is_cloud else answered)

    def _cut_short(self, call_cost: CallCost, deadline_seconds: Optional[float]) -> CallError:
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
        # An attempt that were admitted from now on would find no connections.
        self.admission.close()
        for scope in list(self._live):
            scope.cancel()
        await self.transport.close()


def _without_cache(usage: Usage) -> Usage:
    """The same, had the prompt cache not been used."""
    return replace(
        usage,
        input_tokens=usage.prompt_tokens,
        cache_creation_input_tokens=0,
        cache_creation_1h_input_tokens=0,
        cache_read_input_tokens=0,
    )
