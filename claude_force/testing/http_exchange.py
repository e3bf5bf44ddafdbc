"""One request, with ways to answer it, stay silent or break off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Dict, Optional

from aiohttp import HttpVersion11, web

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


class HttpExchange:
    """`id` is unique within the server; `headers` go with every answer; `hung_up`: this side closed."""

    def __init__(self, request: web.BaseRequest, number: int) -> None:
        self.request = request
        self.id = f"{number:024d}"
        self.headers: Dict[str, str] = {}
        self.hung_up = False
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    @property
    def request_id(self) -> str:
        return f"req_{self.id}"

    async def until(self, seconds: float) -> None:
        """Sleeps until `seconds` after the request's arrival; a late step doesn't delay the next."""
        delay = self._began + seconds - self._loop.time()
        if delay > 0:
            await asyncio.sleep(delay)

    def json(self, body: bytes, status: int = 200, retry_after: Optional[str] = None) -> web.StreamResponse:
        headers = self._headers(JSON)
        if retry_after is not None:
            headers["retry-after"] = retry_after
        return web.Response(body=body, status=status, headers=headers)

    def page(self, body: bytes) -> web.StreamResponse:
        return self.other(body, "text/html; charset=utf-8")

    def other(self, body: bytes, content_type: str, status: int = 200) -> web.StreamResponse:
        """Any body under any media type."""
        return web.Response(body=body, status=status, headers=self._headers(content_type))

    def events(self, body: bytes) -> web.StreamResponse:
        """Answers with a stream whose events are all known."""
        return self._chunked(web.Response(body=body, headers=self._headers(EVENTS)))

    async def open_events(self) -> web.StreamResponse:
        """Opens a stream whose events are written one by one."""
        response = self._chunked(web.StreamResponse(headers=self._headers(EVENTS)))
        await response.prepare(self.request)
        return response

    async def open_json(self, length: Optional[int]) -> web.StreamResponse:
        """Opens a plain answer of `length` bytes, still to be written; None for any length."""
        response = web.StreamResponse(headers=self._headers(JSON))
        if length is None:
            self._chunked(response)
        else:
            response.content_length = length
        await response.prepare(self.request)
        return response

    async def silence(self) -> web.StreamResponse:
        """Never returns: the task is cancelled when the connection is gone."""
        await asyncio.Event().wait()
        raise AssertionError("only the end of the connection ends a silence")

    async def hang_up(self) -> web.StreamResponse:
        """Closes the connection after what was written."""
        self.hung_up = True
        if self.request.transport is not None:
            self.request.transport.close()
        return await self.silence()

    async def reset(self) -> web.StreamResponse:
        """Aborts the connection with RST."""
        self.hung_up = True
        transport = self.request.transport
        if transport is not None:
            # Without lingering, close() drops what is unsent and sends RST instead of FIN.
            with contextlib.suppress(OSError):
                option = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            transport.abort()
        return await self.silence()

    def _headers(self, content_type: str) -> Dict[str, str]:
        fixed = {"content-type": content_type, "request-id": self.request_id}
        return {**fixed, **self.headers}

    def _chunked(self, response: web.StreamResponse) -> web.StreamResponse:
        if self.request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        return response
