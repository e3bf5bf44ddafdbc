"""A Messages API in the test's own event loop that keeps its own record of what it bills."""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# USD per million tokens, as the tests' orchestrators have them.
INPUT, OUTPUT, SEARCH = 3.0, 15.0, 0.01
MODEL = "claude-sonnet-5-5"
PRICES = {MODEL: {"input": INPUT, "output": OUTPUT}}


@dataclass
class Answer:
    """How one request is answered.

    Attributes:
        status: an error status, which is not billed.
        lost: the connection closes before the first byte; "billed" if the server charges all the same.
        cut: of a stream, after what it breaks off: "start", "thinking" or "text".
        usage: replaces the usage that the answer tells; what is billed stays.
        final: the same for the last event alone.
        content: blocks in the place of the text.
    """

    text: str = "The answer."
    stop_reason: str = "end_turn"
    status: int = 200
    lost: str = ""
    cut: str = ""
    input_tokens: int = 20
    output_tokens: int = 8
    searches: int = 0
    model: str = ""
    usage: object = "true"
    final: object = "true"
    more: dict = field(default_factory=dict)
    content: tuple = ()


def usd(answer, stream):
    """What the server charges."""
    # Of text that breaks off what was written; one piece is a token.
    output = 1 if stream and answer.cut == "text" else answer.output_tokens
    return (answer.input_tokens * INPUT + output * OUTPUT) / 1e6 + answer.searches * SEARCH


def true_usage(answer, output_tokens):
    reported = {"input_tokens": answer.input_tokens, "output_tokens": output_tokens, **answer.more}
    if answer.searches:
        reported["server_tool_use"] = {"web_search_requests": answer.searches}
    return reported


class BillingServer:
    """`plan` makes an Answer of a request's body. `billed` has USD by task, `requests` the bodies."""

    def __init__(self, plan):
        self.plan = plan
        self.billed, self.requests, self.url = Counter(), [], ""

    async def serve(self, reader, writer):
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.requests.append(body)
        answer, task = self.plan(body), task_of(body)
        if answer.status != 200:
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}
            writer.write(_http(f"{answer.status} No", "application/json", json.dumps(error).encode()))
            return True
        if answer.lost != "free":
            self.billed[task] += usd(answer, body.get("stream"))
        if answer.lost:
            return False
        if body.get("stream"):
            return await self._stream(writer, body, answer)
        writer.write(_http("200 OK", "application/json", json.dumps(_whole(body, answer)).encode()))
        return True

    async def _stream(self, writer, body, answer):
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for kind, event in _events(body, answer):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(0)
            if answer.cut and answer.cut == kind:
                return False
        writer.write(b"0\r\n\r\n")
        return True


def _http(status, kind, body):
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _whole(body, answer):
    reported = true_usage(answer, answer.output_tokens) if answer.usage == "true" else answer.usage
    return {
        "type": "message",
        "model": answer.model or body["model"],
        "content": list(answer.content) or ([{"type": "text", "text": answer.text}] if answer.text else []),
        "stop_reason": answer.stop_reason,
        "usage": reported,
    }


def _events(body, answer):
    whole = _whole(body, answer)
    first = true_usage(answer, 1) if answer.usage == "true" else answer.usage
    last = {"output_tokens": answer.output_tokens} if answer.usage == "true" else answer.usage
    if answer.searches and answer.usage == "true":
        last["server_tool_use"] = {"web_search_requests": answer.searches}
    last = last if answer.final == "true" else answer.final
    yield "start", {"type": "message_start", "message": {**whole, "content": [], "usage": first}}
    if answer.cut == "thinking" or not answer.text:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        yield "thinking", {"type": "content_block_start", "index": 0, "content_block": block}
    if answer.content:
        yield from _block_events(answer.content)
        yield "", {"type": "message_delta", "delta": {"stop_reason": answer.stop_reason}, "usage": last}
        yield "", {"type": "message_stop"}
        return
    yield "", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for letter in answer.text:
        delta = {"type": "text_delta", "text": letter}
        yield "text", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "", {"type": "message_delta", "delta": {"stop_reason": answer.stop_reason}, "usage": last}
    yield "", {"type": "message_stop"}


def _block_events(blocks):
    for index, block in enumerate(blocks):
        if block["type"] == "tool_use":
            empty, part = {**block, "input": {}}, json.dumps(block["input"])
            delta = {"type": "input_json_delta", "partial_json": part}
        else:
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        yield "", {"type": "content_block_start", "index": index, "content_block": empty}
        yield "text", {"type": "content_block_delta", "index": index, "delta": delta}
        yield "", {"type": "content_block_stop", "index": index}


def task_of(body):
    """The first text of the user."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[0]["text"]


@asynccontextmanager
async def billing(plan):
    """A running server."""
    server = BillingServer(plan)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


class Steps:
    """Counts each step of each task of the loop, and cancels `victim` at step number `at`."""

    def __init__(self):
        self.count = self.at = 0
        self.victim = None

    def make_task(self, loop, coroutine, **more):
        return asyncio.Task(_Stepped(coroutine, self), loop=loop, **more)

    def step(self):
        self.count += 1
        if self.count == self.at and self.victim is not None:
            self.victim.cancel()


class _Stepped(Coroutine):
    def __init__(self, coroutine, steps):
        self._coroutine, self._steps = coroutine, steps

    def send(self, value):
        self._steps.step()
        return self._coroutine.send(value)

    def throw(self, *error):
        self._steps.step()
        return self._coroutine.throw(*error)

    def close(self):
        return self._coroutine.close()

    def __await__(self):
        return self

    def __getattr__(self, name):
        return getattr(self._coroutine, name)
