"""One pool of connections and the gate before it, bound to the event loop that it is made in."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import List, Optional, Sequence, Set

import anyio

from ..errors import CallError, ClosedError, DeadlineExceededError, UnknownPriceError
from ..types import Call, Reply, Usage
from ..wording import Wording
from .attempts import Attempts
from .bill import Bill
from .budget import Budget, Price, worst_cost
from .clock import Clock
from .forecast import Forecast
from .gate import Gate
from .pace import Need
from .retry import RetryPolicy
from .terms import ORDINARY, Terms, listener
from .transport import Meter, Transport
from .warming import Warming


class Line:
    """Sends calls over one transport, and no attempt but through `gate`.

    A place on the wire belongs to an attempt: a call that waits for its next attempt holds none.
    """

    def __init__(
        self,
        transport: Transport,
        gate: Gate,
        policy: RetryPolicy,
        clock: Clock,
        price: Price,
        forecast: Forecast,
    ) -> None:
        self.transport, self.gate = transport, gate
        self._price, self._policy, self._clock, self._forecast = price, policy, clock, forecast
        self._turn = asyncio.Lock()
        self._warming = Warming(clock)
        self._live: Set[anyio.CancelScope] = set()
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._live and not self.gate.under_way

    async def send(self, call: Call, deadline_seconds: Optional[float], terms: Terms) -> Reply:
        """Raises InputError before anything is sent, CallError after."""
        self.transport.check(call)
        worst = _worst(call, self._price_of(terms)) if terms.keeps_budget else 0.0
        bill = terms.bill or Bill()
        attempts = Attempts(call, self._policy, self._clock, deadline_seconds, terms.watch)
        attempt = partial(self._attempt, call, terms, worst, bill)
        with anyio.move_on_after(deadline_seconds) as scope:
            self._live.add(scope)
            try:
                reply = await attempts.run(attempt)
                return self._priced(call, reply, bill, self._price_of(terms))
            except CallError as error:
                bill.put_on(error)
                raise
            finally:
                self._live.discard(scope)
        raise self._cut_short(bill, deadline_seconds) from attempts.last_error

    async def probe(self, model: str) -> None:
        """A request that costs nothing; the gate learns what limits its answer tells. Raises CallError."""
        meter = Meter()
        async with self.gate.passage(model, Need(), meter, ORDINARY.watch):
            await self.transport.probe(model, meter)

    async def _attempt(self, call: Call, terms: Terms, worst: float, bill: Bill, number: int) -> Reply:
        meter = Meter(on_text=listener(terms.watch))
        try:
            if terms.first_of_many and self._warming.helps(call):
                async with self._warming.passage(call, meter):
                    reply = await self._afforded(call, terms, worst, meter, number)
            else:
                reply = await self._afforded(call, terms, worst, meter, number)
        except BaseException as error:
            if meter.usage:
                bill.waste(self._price_of(terms)(call.model, meter.usage, call.options))
            bill.note(meter, error)
            raise
        bill.note(meter)
        return reply

    async def _afforded(self, call: Call, terms: Terms, worst: float, meter: Meter, number: int) -> Reply:
        if terms.guard is not None:
            need, spent = self._forecast.need(call), partial(self._spent, worst, call, terms, meter)
            async with terms.guard.passage(call, need, worst, meter, spent):
                return await self._passed(call, terms, meter, number)
        if not terms.budgets:
            return await self._passed(call, terms, meter, number)
        held: List[Budget] = []
        try:
            # In the order of arrival: small requests do not starve a large one.
            async with self._turn:
                for budget in terms.budgets:
                    await _fits(budget, worst)
                    held.append(budget)
            return await self._passed(call, terms, meter, number)
        finally:
            self._settle(held, worst, call, terms, meter)

    def _settle(self, held: Sequence[Budget], worst: float, call: Call, terms: Terms, meter: Meter) -> None:
        spent = self._spent(worst, call, terms, meter)
        for budget in held:
            budget.settle(worst, spent)

    def _spent(self, worst: float, call: Call, terms: Terms, meter: Meter) -> float:
        if meter.usage:
            return self._price_of(terms)(call.model, meter.usage, call.options) or 0.0
        return worst if meter.in_doubt else 0.0

    def _price_of(self, terms: Terms) -> Price:
        return terms.price or self._price

    async def _passed(self, call: Call, terms: Terms, meter: Meter, number: int) -> Reply:
        async with self.gate.passage(call.model, self._forecast.need(call), meter, terms.watch):
            terms.watch.started(number)
            reply = await self.transport.attempt(call, meter)
        self._forecast.observe(call, reply.usage)
        return reply

    def _priced(self, call: Call, reply: Reply, bill: Bill, price: Price) -> Reply:
        usage = reply.usage
        cost = bill.answer = self._cost(call, reply, usage, price)
        saving: Optional[float] = 0.0
        if usage.prompt_tokens != usage.input_tokens:
            plain = self._cost(call, reply, Usage(usage.prompt_tokens, usage.output_tokens), price)
            saving = None if cost is None or plain is None else plain - cost
        return replace(
            reply,
            attempts=len(bill.timeline),
            cost=cost,
            wasted_cost=bill.wasted or 0.0,
            prompt_cache_saving=saving,
            timeline=bill.timeline,
        )

    def _cost(self, call: Call, reply: Reply, usage: Usage, price: Price) -> Optional[float]:
        # A cloud answers with Anthropic's name of the model, and has prices of its own.
        answered = "" if self.transport.is_cloud else reply.model
        known = price(answered or call.model, usage, call.options)
        # A server may name the model more exactly than the prices do.
        return known if known is not None else price(call.model, usage, call.options)

    def _cut_short(self, bill: Bill, deadline_seconds: Optional[float]) -> CallError:
        error: CallError
        if self._closed or deadline_seconds is None:
            error = ClosedError("The orchestrator was closed during the call")
        else:
            error = DeadlineExceededError(f"No answer within the deadline of {deadline_seconds:g} s")
        bill.put_on(error)
        return error

    async def close(self) -> None:
        """Ends the calls in flight, then closes the connections."""
        self._closed = True
        # Who was about to pass as this began would find no connections behind it.
        self.gate.shut()
        for scope in list(self._live):
            scope.cancel()
        await self.transport.close()


def _worst(call: Call, price: Price) -> float:
    worst = worst_cost(call, price)
    if worst is None:
        unknown = f"The price of {call.model} is not known, so no budget can be kept."
        python = f"prices={{{call.model!r}: {{'input': ..., 'output': ...}}}} in USD per million tokens"
        shell = f"--price {call.model}=INPUT,OUTPUT in USD per million tokens"
        raise UnknownPriceError(Wording(f"{unknown} Give {python}.", f"{unknown} Give {shell}."))
    return worst


async def _fits(budget: Budget, worst: float) -> None:
    while not budget.reserve(worst):
        settled = asyncio.Event()
        budget.when_settled(settled.set)
        await settled.wait()
