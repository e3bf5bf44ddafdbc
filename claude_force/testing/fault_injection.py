"""Carries out faults on the connection."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from .faults import Fault
from .http_exchange import EVENTS, JSON, HttpExchange
from .replies import BROKEN_EVENT, HEAD_EVENTS, PING, Message, Refused, overloaded_event, to_bytes

_PAGE = b"<!DOCTYPE html><html><body><h1>Sign in to continue</h1></body></html>"
# Bytes of an answer without end.
_AT_A_TIME = 2**16
# Faults sent in place of an answer, whatever the request says.
IN_PLACE_OF_ANSWER = frozenset({"status", "body", "reset", "silence_before_first_byte", "wrong_content_type"})
# Faults of a complete answer, streamed or plain.
WHOLE = frozenset({"labelled", "headers"})
_SECONDS_BETWEEN_PINGS = 0.05


async def send_in_place_of_answer(fault: Fault, exchange: HttpExchange) -> web.StreamResponse:
    """Sends a fault in place of any answer."""
    exchange.headers = {**exchange.headers, **dict(fault.headers)}
    if fault.kind == "body":
        content = fault.body if isinstance(fault.body, str) else to_bytes(fault.body).decode()
        return exchange.other(content.encode(), fault.content_type, fault.code)
    if fault.kind == "status":
        retry_after = None if fault.retry_after is None else str(fault.retry_after)
        raise Refused(fault.code, fault.message, retry_after=retry_after, error_code=fault.error_code)
    if fault.kind == "reset":
        return await exchange.reset()
    if fault.kind == "wrong_content_type":
        return exchange.page(_PAGE)
    return await exchange.silence()


async def break_stream(
    fault: Fault, exchange: HttpExchange, message: Message, tokens_per_delta: int
) -> web.StreamResponse:
    """Breaks a stream after `fault.after_events` events, before its last event at the latest."""
    events = message.events(tokens_per_delta)
    if fault.kind in WHOLE:
        return _whole(fault, exchange, b"".join(events), EVENTS)
    if fault.kind == "open_after_stop_reason":
        return await _after_stop_reason(fault, exchange, b"".join(events[:-1]))
    split = min(fault.after_events, len(events) - 1)
    head = b"".join(events[:split])
    if fault.kind == "overloaded_in_stream":
        return exchange.events(head + overloaded_event(exchange.request_id))
    if fault.kind == "malformed_json":
        return exchange.events(head + BROKEN_EVENT + b"".join(events[split:]))
    response = await exchange.open_events()
    await response.write(head)
    if fault.kind == "pings":
        await _now_and_then(response, PING)
    if fault.kind == "endless_answer":
        await _for_ever(response, events[HEAD_EVENTS])
    return await _break_off(fault, exchange)


async def break_body(fault: Fault, exchange: HttpExchange, message: Message) -> web.StreamResponse:
    """Breaks a plain answer."""
    body = message.body()
    if fault.kind in WHOLE:
        return _whole(fault, exchange, body, JSON)
    if fault.kind == "open_after_stop_reason":
        return exchange.json(body)
    half = body[: len(body) // 2]
    if fault.kind == "malformed_json":
        return exchange.json(half)
    endless = fault.kind in ("endless_answer", "pings")
    response = await exchange.open_json(None if endless else len(body))
    await response.write(half)
    if fault.kind == "pings":
        await _now_and_then(response, b" ")
    if endless:
        await _for_ever(response, b" and more")
    return await _break_off(fault, exchange)


def _whole(fault: Fault, exchange: HttpExchange, body: bytes, usual: str) -> web.StreamResponse:
    """Sends a complete answer with other headers."""
    exchange.headers = {**exchange.headers, **dict(fault.headers)}
    return exchange.other(body, fault.content_type if fault.kind == "labelled" else usual)


async def _after_stop_reason(fault: Fault, exchange: HttpExchange, head: bytes) -> web.StreamResponse:
    response = await exchange.open_events()
    await response.write(head)
    if fault.message == "pings":
        await _now_and_then(response, PING)
    if fault.message == "garbage":
        await _for_ever(response, b"data: {broken\n\n")
    if fault.message == "reset":
        # Let what was written leave before the reset.
        await asyncio.sleep(_SECONDS_BETWEEN_PINGS)
        return await exchange.reset()
    return await exchange.silence()


async def _now_and_then(response: web.StreamResponse, piece: bytes) -> None:
    """Returns when the connection is gone."""
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(piece)
            await asyncio.sleep(_SECONDS_BETWEEN_PINGS)


async def _for_ever(response: web.StreamResponse, piece: bytes) -> None:
    """Returns when the connection is gone."""
    many = piece * (_AT_A_TIME // len(piece) + 1)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(many)


async def _break_off(fault: Fault, exchange: HttpExchange) -> web.StreamResponse:
    if fault.kind == "truncated_stream":
        return await exchange.hang_up()
    return await exchange.silence()
