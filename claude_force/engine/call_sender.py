"""One pool of connections and the gate before it, bound to the event loop that it is made in."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import List, Optional, Sequence, Set

import anyio

from ..advice import Wording
from ..clock import Clock
from ..errors import CallError, ClosedError, ConnectionFailedError, DeadlineExceededError, UnknownPriceError
from ..limits.admission import AdmissionController
from ..limits.budget import Budget, Price, worst_cost
from ..limits.call_context import DEFAULT_CONTEXT, CallContext, listener
from ..limits.call_cost import CallCost
from ..limits.prices import most_searches, unknown_fee
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
    """Sends calls over one transport, and no attempt but through `gate`.

    A place on the wire belongs to an attempt: a call that waits for its next attempt holds none.
    """

    def __init__(
        self,
        transport: Transport,
        gate: AdmissionController,
        policy: RetryPolicy,
        clock: Clock,
        price: Price,
        forecast: TokenEstimator,
    ) -> None:
        self.transport, self.gate = transport, gate
        self._price, self._policy, self._clock, self._forecast = price, policy, clock, forecast
        self._turn = asyncio.Lock()
        self._warming = PromptCachePrimer(clock)
        self._live: Set[anyio.CancelScope] = set()
        self._closed = False
        self._reach = ReachabilityMonitor()

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._live and not self.gate.in_flight

    async def send(self, call: Call, deadline_seconds: Optional[float], context: CallContext) -> Reply:
        """Raises InputError before anything is sent, CallError after."""
        self.transport.check(call)
        worst = _worst(call, self._price_of(context)) if context.keeps_budget else 0.0
        call_cost = context.call_cost or CallCost()
        attempts = Retrier(call, self._policy, self._clock, deadline_seconds, context)
        attempt = partial(self._attempt, call, context, worst, call_cost)
        with anyio.move_on_after(deadline_seconds) as scope:
            self._live.add(scope)
            try:
                reply = await attempts.run(attempt)
                return self._priced(call, reply, call_cost, self._price_of(context))
            except CallError as error:
                call_cost.copy_to(error)
                self._reach.judge(error)
                if context.run_gate is not None:
                    context.run_gate.note(error, call.model)
                raise
            finally:
                self._live.discard(scope)
        raise self._cut_short(call_cost, deadline_seconds) from attempts.last_error

    async def probe(self, model: str) -> None:
        """A request that costs nothing; the gate learns what limits its answer tells. Raises CallError."""
        record = AttemptRecord()
        async with self.gate.slot(model, TokenCost(), record, DEFAULT_CONTEXT):
            await self.transport.probe(model, record)

    async def _attempt(
        self, call: Call, context: CallContext, worst: float, call_cost: CallCost, number: int
    ) -> Reply:
        record = AttemptRecord(on_text=listener(context.listener))
        if number == 1 and self._reach.is_doubtful:
            await self._await_retries(call, context)
        try:
            if context.first_of_many and self._warming.helps(call):
                async with self._warming.passage(call, record):
                    reply = await self._with_budget(call, context, worst, record, number)
            else:
                reply = await self._with_budget(call, context, worst, record, number)
        except BaseException as error:
            self._reach.failed(error, bool(record.headers))
            self._charge(call_cost, call, context, record)
            call_cost.record_attempt(record, error)
            raise
        self._reach.answered()
        call_cost.record_attempt(record)
        return reply

    async def _await_retries(self, call: Call, context: CallContext) -> None:
        """Waits until the retries of a run's first calls have shown whether its endpoint is dead."""
        looks = 0
        while context.run_gate is not None and self._reach.is_doubtful and looks < _MOST_LOOKS:
            looks += 1
            await context.run_gate.sleep(self._clock.sleep, call.model, _LOOK_SECONDS)
            context.run_gate.check(call.model)

    async def _with_budget(
        self, call: Call, context: CallContext, worst: float, record: AttemptRecord, number: int
    ) -> Reply:
        if context.shared_limits is not None:
            need, spent = self._forecast.need(call), partial(self._spent, worst, call, context, record)
            async with context.shared_limits.slot(call, need, worst, record, spent):
                return await self._with_admission(call, context, record, number)
        if not context.budgets:
            return await self._with_admission(call, context, record, number)
        held: List[Budget] = []
        try:
            # In the order of arrival: small requests do not starve a large one.
            async with self._turn:
                for budget in context.budgets:
                    await _fits(budget, worst)
                    held.append(budget)
            return await self._with_admission(call, context, record, number)
        finally:
            self._settle(held, worst, call, context, record)

    def _settle(
        self, held: Sequence[Budget], worst: float, call: Call, context: CallContext, record: AttemptRecord
    ) -> None:
        spent = self._spent(worst, call, context, record)
        for budget in held:
            budget.settle(worst, spent)

    def _spent(self, worst: float, call: Call, context: CallContext, record: AttemptRecord) -> float:
        if not record.usage:
            return worst if record.in_doubt else 0.0
        cost = self._cost(call, record.usage, record.model, self._price_of(context))
        return worst if cost is None else cost

    def _charge(self, call_cost: CallCost, call: Call, context: CallContext, record: AttemptRecord) -> None:
        """Puts on the bill what a failed attempt cost."""
        price = self._price_of(context)
        cost = self._cost(call, record.usage, record.model, price) if record.usage else None
        if cost is not None:
            call_cost.add_failed_cost(cost)
        elif record.usage or record.in_doubt:
            call_cost.add_unknown_cost(worst_cost(call, price))

    def _price_of(self, context: CallContext) -> Price:
        return context.price or self._price

    async def _with_admission(
        self, call: Call, context: CallContext, record: AttemptRecord, number: int
    ) -> Reply:
        waits = 0
        while True:
            try:
                async with self.gate.slot(call.model, self._forecast.need(call), record, context):
                    if not waits:
                        context.listener.started(number)
                    reply = await self.transport.attempt(call, record)
                break
            except NoDescriptorError as error:
                # Nothing was sent: this is no attempt, and fewer at a time will find room.
                waits += 1
                self.gate.reduce_ceiling(self.gate.in_flight)
                if waits > _MOST_WAITS:
                    raise ConnectionFailedError(error.message, advice=error.advice) from error
                await self._clock.sleep(_DESCRIPTOR_SECONDS)
        if reply.usage.is_known:
            self._forecast.observe(call, reply.usage)
        return reply

    def _priced(self, call: Call, reply: Reply, call_cost: CallCost, price: Price) -> Reply:
        usage = reply.usage
        before = call_cost.before_the_answer
        cost = self._cost(call, usage, reply.model, price)
        if cost is None:
            most = worst_cost(call, price)
            # What costs nothing at its worst costs nothing.
            cost = 0.0 if most == 0 else None
            call_cost.add_unknown_cost(most)
        call_cost.answer_cost, call_cost.has_reply = cost, True
        saving: Optional[float] = 0.0
        if usage.prompt_tokens != usage.input_tokens:
            plain = self._cost(call, _without_cache(usage), reply.model, price)
            saving = None if cost is None or plain is None else plain - cost
        return replace(
            reply,
            attempts=len(call_cost.timeline),
            cost=cost,
            wasted_cost=before,
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
        # Who was about to pass as this began would find no connections behind it.
        self.gate.close()
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


def _worst(call: Call, price: Price) -> float:
    worst = worst_cost(call, price)
    if worst is None:
        _check_tools(call)
        unknown = f"The price of {call.model} is not known, so no budget can be kept."
        python = f"prices={{{call.model!r}: {{'input': ..., 'output': ...}}}} in USD per million tokens"
        shell = f"--price {call.model}=INPUT,OUTPUT in USD per million tokens"
        raise UnknownPriceError(Wording(f"{unknown} Give {python}.", f"{unknown} Give {shell}."))
    return worst


def _check_tools(call: Call) -> None:
    """Raises UnknownPriceError where a tool of the API's can cost any amount."""
    if most_searches(call.options) is None:
        raise UnknownPriceError(
            "What web searches may cost is not bounded, so no budget can be kept. Give the web search tool "
            "max_uses."
        )
    tool = unknown_fee(call.options)
    if tool is not None:
        raise UnknownPriceError(
            f"What the tool {tool!r} costs is not known, so no budget can be kept. Leave out the tool "
            "or the budget."
        )


async def _fits(budget: Budget, worst: float) -> None:
    while not budget.reserve(worst):
        settled = asyncio.Event()
        budget.when_settled(settled.set)
        await settled.wait()
