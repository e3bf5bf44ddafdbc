"""Answers one request: route, fault, validation, rate limit, answer, speed."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Optional

from aiohttp import web

from .fault_injection import IN_PLACE_OF_ANSWER, break_body, break_stream, send_in_place_of_answer
from .faults import Fault
from .http_exchange import HttpExchange
from .limits import Limiter
from .prompt_cache import Prompt, PromptCache
from .replies import HEAD_EVENTS, TAIL_EVENTS, Message, Refused, to_bytes
from .request_log import BilledRequest, RecordedRequest, RequestLog
from .scripts import Answering, write
from .tokens import input_tokens
from .tool_rules import check_tools
from .validation import check_key, check_max_tokens, check_prompt

_log = logging.getLogger(__name__)
_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
_TOKENS_PER_DELTA = 8
_TOKENS_PER_PACED_DELTA = 4
# At high speed the deltas grow instead of becoming more: each one costs a wake-up.
_DELTAS_PER_SECOND = 20


@dataclass(frozen=True)
class Behaviour:
    """How the server answers. Times are in seconds; without `tokens_per_second` all comes at once."""

    answer: Answering
    next_fault: Callable[[RecordedRequest], Optional[Fault]]
    output_tokens: Optional[int]
    time_to_first_token: float
    tokens_per_second: Optional[float]
    clock: Callable[[], float]

    @property
    def tokens_per_delta(self) -> int:
        if self.tokens_per_second is None:
            return _TOKENS_PER_DELTA
        return max(_TOKENS_PER_PACED_DELTA, math.ceil(self.tokens_per_second / _DELTAS_PER_SECOND))

    def done_after(self, tokens: int) -> float:
        """Seconds from the request to the last of so many tokens."""
        return self.time_to_first_token + (tokens / self.tokens_per_second if self.tokens_per_second else 0)


class Handler:
    """Answers the requests of one server; `closing`: the server, not the client, ends connections."""

    def __init__(
        self, behaviour: Behaviour, request_log: RequestLog, cache: PromptCache, limiter: Optional[Limiter]
    ) -> None:
        self.closing = False
        self._behaviour = behaviour
        self._request_log = request_log
        self._cache = cache
        self._limiter = limiter
        self._numbers = itertools.count(1)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = HttpExchange(request, next(self._numbers))
        lost = False
        self._request_log._enter()
        try:
            return await self._respond(exchange)
        except (asyncio.CancelledError, ConnectionError):
            lost = not exchange.hung_up and not self.closing
            # aiohttp would log a ConnectionError as a fault of this handler.
            raise asyncio.CancelledError from None
        finally:
            self._request_log._leave(lost)

    async def _respond(self, exchange: HttpExchange) -> web.StreamResponse:
        try:
            received = await self._receive(exchange.request)
            return await self._answer(exchange, received)
        except Refused as refused:
            self._add_limits(exchange)
            return exchange.json(refused.body(exchange.request_id), refused.status, refused.retry_after)
        except ConnectionError:
            raise
        except Exception as error:
            _log.exception("The stand-in failed")
            return exchange.json(
                Refused(500, f"The stand-in failed: {error!r}").body(exchange.request_id), 500
            )

    async def _receive(self, request: web.BaseRequest) -> RecordedRequest:
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Refused(413) from None
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        received = RecordedRequest(
            method=request.method,
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body if isinstance(body, dict) else {},
            raw=raw,
            at=self._behaviour.clock(),
            connection=self._request_log._number_of(request.protocol),
        )
        self._request_log.requests.append(received)
        return received

    async def _answer(self, exchange: HttpExchange, received: RecordedRequest) -> web.StreamResponse:
        fault = self._behaviour.next_fault(received)
        if fault is not None and fault.kind in IN_PLACE_OF_ANSWER:
            self._add_limits(exchange)
            return await send_in_place_of_answer(fault, exchange)
        if received.method != "POST" or received.path not in _PATHS:
            raise Refused(404, f"{received.method} {received.path} not found")
        check_key(received.headers)
        check_prompt(received)
        check_tools(received.body)
        if received.path != _PATHS[0]:
            return exchange.json(to_bytes({"input_tokens": input_tokens(received.body)}))
        check_max_tokens(received.body)
        prompt = self._cache.measure(received.body)
        message = self._message(exchange, received.body, prompt)
        self._add_limits(exchange)
        await exchange.until(self._behaviour.time_to_first_token)
        self._cache.keep(prompt)
        if fault is not None and fault.kind == "in_one_piece":
            return await self._send(exchange, message, received, None)
        if received.body.get("stream") is True:
            return await self._stream(exchange, message, received, fault)
        return await self._send(exchange, message, received, fault)

    def _message(self, exchange: HttpExchange, body: Dict[str, Any], prompt: Prompt) -> Message:
        if self._limiter:
            self._limiter.admit(prompt.fresh + prompt.created)
        written = write(self._behaviour.answer(body), body, self._behaviour.output_tokens)
        if self._limiter:
            self._limiter.charge(written.tokens)
        usage = prompt.usage(written.tokens)
        return Message(f"msg_{exchange.id}", body["model"], written.blocks, written.stop_reason, usage)

    async def _send(
        self, exchange: HttpExchange, message: Message, received: RecordedRequest, fault: Optional[Fault]
    ) -> web.StreamResponse:
        if fault is not None and fault.kind == "overloaded_in_stream":
            raise Refused(529)
        # A plain answer is complete, and billed, before its first byte is sent.
        with self._billing(exchange, message, received, message.usage["output_tokens"]) as bill:
            if fault is not None:
                return await break_body(fault, exchange, message)
            await exchange.until(self._behaviour.done_after(message.usage["output_tokens"]))
            bill.whole = True
            return exchange.json(message.body())

    async def _stream(
        self, exchange: HttpExchange, message: Message, received: RecordedRequest, fault: Optional[Fault]
    ) -> web.StreamResponse:
        behaviour, tokens = self._behaviour, message.usage["output_tokens"]
        if fault is not None:
            written = max(0, fault.after_events - HEAD_EVENTS) * behaviour.tokens_per_delta
            with self._billing(exchange, message, received, max(1, min(tokens, written))):
                return await break_stream(fault, exchange, message, behaviour.tokens_per_delta)
        if behaviour.tokens_per_second is not None:
            with self._billing(exchange, message, received, 1) as bill:
                return await self._pace(exchange, message, bill)
        await exchange.until(behaviour.done_after(tokens))
        with self._billing(exchange, message, received, tokens) as bill:
            bill.whole = True
            return exchange.events(b"".join(message.events(behaviour.tokens_per_delta)))

    @contextmanager
    def _billing(
        self, exchange: HttpExchange, message: Message, received: RecordedRequest, tokens: int
    ) -> Iterator[BilledRequest]:
        bill = BilledRequest(received, exchange.request_id, {**message.usage, "output_tokens": tokens})
        self._request_log.bills.append(bill)
        try:
            yield bill
        except (asyncio.CancelledError, ConnectionError):
            bill.lost = not exchange.hung_up
            raise

    async def _pace(
        self, exchange: HttpExchange, message: Message, bill: BilledRequest
    ) -> web.StreamResponse:
        behaviour = self._behaviour
        tokens = message.usage["output_tokens"]
        events = message.events(behaviour.tokens_per_delta)
        response = await exchange.open_events()
        await response.write(b"".join(events[:HEAD_EVENTS]))
        for number, delta in enumerate(events[HEAD_EVENTS:-TAIL_EVENTS], 1):
            await exchange.until(behaviour.done_after(min(tokens, number * behaviour.tokens_per_delta)))
            await response.write(delta)
            bill.usage["output_tokens"] = min(tokens, number * behaviour.tokens_per_delta)
        await response.write_eof(b"".join(events[-TAIL_EVENTS:]))
        bill.whole = True
        return response

    def _add_limits(self, exchange: HttpExchange) -> None:
        if self._limiter:
            exchange.headers = {**self._limiter.headers(), **exchange.headers}
