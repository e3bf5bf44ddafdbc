"""A Messages API that costs next to nothing: one fixed answer, so that the clients are what is measured.

A path may begin with the milliseconds until the answer: `/200/v1/messages`. Streamed answers come in 25
pieces, each an event and an HTTP chunk of its own, written at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Callable, Dict

ANSWER_CHARACTERS, PIECES = 1500, 25
_USAGE = {
    "input_tokens": 1024,
    "output_tokens": 375,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}
_LIMITS = b"".join(
    b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %d\r\n"
    % (kind, most, kind, most - 1)
    for kind, most in ((b"requests", 10**8), (b"input-tokens", 10**11), (b"output-tokens", 10**11))
)


def message(text: str, **more: Any) -> Dict[str, Any]:
    content = [{"type": "text", "text": text}] if text else []
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_USAGE, "output_tokens": 1},
        **more,
    }


def head(kind: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\nrequest-id: req_1\r\n" + _LIMITS


def plain() -> bytes:
    whole = message("x" * ANSWER_CHARACTERS, stop_reason="end_turn", usage=_USAGE)
    body = json.dumps(whole, separators=(",", ":")).encode()
    return head(b"application/json") + b"content-length: %d\r\n\r\n" % len(body) + body


def streamed() -> bytes:
    piece = {"type": "text_delta", "text": "x" * (ANSWER_CHARACTERS // PIECES)}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events = [
        {"type": "message_start", "message": message("")},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": piece} for _ in range(PIECES)),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 375}},
        {"type": "message_stop"},
    ]
    chunks = b"".join(chunk(event) for event in events)
    return (
        head(b"text/event-stream; charset=utf-8")
        + b"transfer-encoding: chunked\r\n\r\n"
        + chunks
        + b"0\r\n\r\n"
    )


def chunk(event: Dict[str, Any]) -> bytes:
    text = f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(text), text)


_PLAIN, _STREAMED = plain(), streamed()


class Answerer(asyncio.Protocol):
    """Answers each request when its body is whole; no request is read beyond its length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while True:
            end = self._rest.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._rest[:end].lower().find(b"content-length:")
            size = int(self._rest[at + 15 : self._rest.find(b"\r", at)]) if at >= 0 else 0
            if len(self._rest) < end + 4 + size:
                return
            request, self._rest = self._rest[: end + 4 + size], self._rest[end + 4 + size :]
            self._answer(request, end)

    def _answer(self, request: bytes, end: int) -> None:
        first = request[: request.index(b"\r")].split(b"/")[1]
        wants_stream = b'"stream":true' in request[end:] or b'"stream": true' in request[end:]
        answer = _STREAMED if wants_stream else _PLAIN
        if first.isdigit() and first != b"0":
            asyncio.get_running_loop().call_later(int(first) / 1000, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def serve(answerer: Callable[[], asyncio.Protocol] = Answerer) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(answerer, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    # Ends with its parent, whose pipe this is.
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
