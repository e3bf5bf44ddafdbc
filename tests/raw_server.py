"""A server that sends exactly the bytes that a test gives it."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import List

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": "As it is."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}


def http(body, status="200 OK", **headers):
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


PLAIN = json.dumps(ANSWER).encode()


class Paths(List[str]):
    """Of the requests, in their order; `connected` counts the connections that are open."""

    connected = 0


@asynccontextmanager
async def sequence(*answers):
    """A server that gives these answers in turn, None closes the connection; yields its address and the paths
    that were asked for. An answer may be a function of the address."""
    paths, left = Paths(), list(answers)

    async def serve(reader, writer):
        paths.connected += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                paths.append(head.split(b" ")[1].decode())
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                answer = left.pop(0)
                if answer is None:
                    return
                writer.write(answer(url) if callable(answer) else answer)
        except asyncio.IncompleteReadError:
            return
        finally:
            paths.connected -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield url, paths
    finally:
        server.close()
