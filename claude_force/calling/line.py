"""One pool of connections and the gate before it, bound to the event loop that it is made in."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import List, Optional, Sequence, Set

import anyio

from ..errors import CallError, ClosedError, ConnectionFailedError, DeadlineExceededError, UnknownPriceError
from ..types import Call, Reply, Usage
from ..wording import Wording
from .attempts import Attempts
from .bill import Bill
from .budget import Budget, Price, worst_cost
from .clock import Clock
from .descriptors import NoDescriptorError
from .forecast import Forecast
from .gate import Gate
from .meter import Meter
from .pace import Need
from .reach import Reach
from .retry import RetryPolicy
from .server_tools import most_searches, unknown_fee
from .terms import ORDINARY, Terms, listener
from .transport import Transport
from .warming import Warming

# How often, and after how many seconds, an attempt looks again for a file descriptor.
_MOST_WAITS, _DESCRIPTOR_SECONDS = 100, 0.1
# The same for a new call of a run whose endpoint has not answered yet.
_MOST_LOOKS, _LOOK_SECONDS = 100, 0.05


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
        self._reach = Reach()

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._live and not self.gate.under_way

    async def send(self, call: Call, deadline_seconds: Optional[float], terms: Terms) -> Reply:
        """Raises InputError before anything is sent, CallError after."""
        self.transport.check(call)
        worst = _worst(call, self._price_of(terms)) if terms.keeps_budget else 0.0
        bill = terms.bill or Bill()
        attempts = Attempts(call, self._policy, self._clock, deadline_seconds, terms)
        attempt = partial(self._attempt, call, terms, worst, bill)
        with anyio.move_on_after(deadline_seconds) as scope:
            self._live.add(scope)
            try:
                reply = await attempts.run(attempt)
                return self._priced(call, reply, bill, self._price_of(terms))
            except CallError as error:
                bill.put_on(error)
                self._reach.judge(error)
                if terms.run_gate is not None:
                    terms.run_gate.note(error, call.model)
                raise
            finally:
                self._live.discard(scope)
        raise self._cut_short(bill, deadline_seconds) from attempts.last_error

    async def probe(self, model: str) -> None:
        """A request that costs nothing; the gate learns what limits its answer tells. Raises CallError."""
        meter = Meter()
        async with self.gate.passage(model, Need(), meter, ORDINARY):
            await self.transport.probe(model, meter)

    async def _attempt(self, call: Call, terms: Terms, worst: float, bill: Bill, number: int) -> Reply:
        meter = Meter(on_text=listener(terms.watch))
        if number == 1 and self._reach.is_doubtful:
            await self._await_retries(call, terms)
        try:
            if terms.first_of_many and self._warming.helps(call):
                async with self._warming.passage(call, meter):
                    reply = await self._afforded(call, terms, worst, meter, number)
            else:
                reply = await self._afforded(call, terms, worst, meter, number)
        except BaseException as error:
            self._reach.failed(error, bool(meter.headers))
            self._charge(bill, call, terms, meter)
            bill.note(meter, error)
            raise
        self._reach.answered()
        bill.note(meter)
        return reply

    async def _await_retries(self, call: Call, terms: Terms) -> None:
        """Waits until the retries of a run's first calls have shown whether its endpoint is dead."""
        looks = 0
        while terms.run_gate is not None and self._reach.is_doubtful and looks < _MOST_LOOKS:
            looks += 1
            await terms.run_gate.sleep(self._clock.sleep, call.model, _LOOK_SECONDS)
            terms.run_gate.check(call.model)

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
        if not meter.usage:
            return worst if meter.in_doubt else 0.0
        cost = self._cost(call, meter.usage, meter.model, self._price_of(terms))
        return worst if cost is None else cost

    def _charge(self, bill: Bill, call: Call, terms: Terms, meter: Meter) -> None:
        """Puts on the bill what a failed attempt cost."""
        price = self._price_of(terms)
        cost = self._cost(call, meter.usage, meter.model, price) if meter.usage else None
        if cost is not None:
            bill.waste(cost)
        elif meter.usage or meter.in_doubt:
            bill.doubt(worst_cost(call, price))

    def _price_of(self, terms: Terms) -> Price:
        return terms.price or self._price

    async def _passed(self, call: Call, terms: Terms, meter: Meter, number: int) -> Reply:
        waits = 0
        while True:
            try:
                async with self.gate.passage(call.model, self._forecast.need(call), meter, terms):
                    if not waits:
                        terms.watch.started(number)
                    reply = await self.transport.attempt(call, meter)
                break
            except NoDescriptorError as error:
                # Nothing was sent: this is no attempt, and fewer at a time will find room.
                waits += 1
                self.gate.lower_ceiling(self.gate.under_way)
                if waits > _MOST_WAITS:
                    raise ConnectionFailedError(error.message, advice=error.advice) from error
                await self._clock.sleep(_DESCRIPTOR_SECONDS)
        if reply.usage.is_known:
            self._forecast.observe(call, reply.usage)
        return reply

    def _priced(self, call: Call, reply: Reply, bill: Bill, price: Price) -> Reply:
        usage = reply.usage
        before = bill.before_the_answer
        cost = self._cost(call, usage, reply.model, price)
        if cost is None:
            most = worst_cost(call, price)
            # What costs nothing at its worst costs nothing.
            cost = 0.0 if most == 0 else None
            bill.doubt(most)
        bill.answer, bill.has_reply = cost, True
        saving: Optional[float] = 0.0
        if usage.prompt_tokens != usage.input_tokens:
            plain = self._cost(call, _without_cache(usage), reply.model, price)
            saving = None if cost is None or plain is None else plain - cost
        return replace(
            reply,
            attempts=len(bill.timeline),
            cost=cost,
            wasted_cost=before,
            cost_at_most=bill.at_most,
            prompt_cache_saving=saving,
            timeline=bill.timeline,
        )

    def _cost(self, call: Call, usage: Usage, answered: str, price: Price) -> Optional[float]:
        # A cloud answers with Anthropic's name of the model, and has prices of its own.
        return price(call.model, usage, call.options, "" if self.transport.is_cloud else answered)

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
