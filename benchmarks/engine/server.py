"""A Messages API that costs next to nothing: one fixed answer, so that the clients are what is measured."""

from __future__ import annotations

import asyncio
import sys

ANSWER_CHARACTERS = 1500
_BODY = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[{"type":"text",'
    b'"text":"' + b"x" * ANSWER_CHARACTERS + b'"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":1024,"output_tokens":375,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}'
)
_LIMITS = b"".join(
    b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %d\r\n"
    % (kind, most, kind, most - 1)
    for kind, most in ((b"requests", 10**8), (b"input-tokens", 10**11), (b"output-tokens", 10**11))
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\n"
    + _LIMITS
    + b"content-length: %d\r\n\r\n" % len(_BODY)
    + _BODY
)


class Answerer(asyncio.Protocol):
    """Answers each request when its body is whole; no request is read beyond its length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while True:
            head = self._rest.find(b"\r\n\r\n")
            if head < 0:
                return
            at = self._rest[:head].lower().find(b"content-length:")
            size = int(self._rest[at + 15 : self._rest.find(b"\r", at)]) if at >= 0 else 0
            if len(self._rest) < head + 4 + size:
                return
            self._rest = self._rest[head + 4 + size :]
            self._transport.write(_ANSWER)  # type: ignore[attr-defined]


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answerer, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Ends with its parent, whose pipe this is.
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
