"""A request that is like those before it, by aiohttp's own session, which the SDK's client has.

Between the two are layers that work out what is known by then (redirects, authentication, cookies, headers),
and each takes its share of the processor. What they do for an answer, to decompress it and to follow where it
points, is still theirs.
"""

from __future__ import annotations

import sys
from typing import Any, Dict, NamedTuple, Optional, Tuple


def direct(http: Any, request: Any, headers: Dict[str, str]) -> Optional[Direct]:
    """The way that `request` went through `http`; None where that is not aiohttp's alone: over a proxy,
    say."""
    aiohttp = sys.modules.get("aiohttp")
    find = getattr(http, "_transport_for_url", None)
    if aiohttp is None or find is None:
        return None
    transport = find(request.url)
    session = getattr(transport, "client", None)
    through = [getattr(transport, name, None) for name in ("proxy", "uds")]
    if not isinstance(session, aiohttp.ClientSession) or any(through):
        return None
    return Direct(aiohttp, http, session, request, headers)


class Direct:
    """Sends bodies by `session` to where `request` went."""

    def __init__(self, aiohttp: Any, http: Any, session: Any, request: Any, headers: Dict[str, str]) -> None:
        self._http, self._session, self._url = http, session, str(request.url)
        # httpx or httpx2, whichever this SDK has.
        self._library = sys.modules[type(request).__module__.partition(".")[0]]
        self._body = _body_of(self._library)
        self._broken = aiohttp.ClientError
        self._how: Dict[str, Any] = {
            "headers": headers,
            # The SDK's own: none. The engine bounds silence by itself.
            "timeout": aiohttp.ClientTimeout(),
            "allow_redirects": False,
            "auto_decompress": False,
            "compress": False,
        }

    async def send(self, body: bytes) -> Optional[Any]:
        """As an httpx response, its body not read yet; None for one that points elsewhere. Raises OSError."""
        try:
            found = await self._session.request("POST", self._url, data=body, **self._how)
        except self._broken as error:
            raise ConnectionError(str(error)) from error
        if 300 <= found.status < 400 and "Location" in found.headers:
            found.release()
            return None
        answer = Answer(found, self._broken)
        if 200 <= found.status < 300 and "Content-Encoding" not in found.headers:
            return answer
        return await self._of_the_library(answer)

    async def _of_the_library(self, answer: Answer) -> Any:
        """Decompressed, and of an error its beginning: it may have no end."""
        body = self._body(answer)
        response = self._library.Response(answer.status_code, headers=answer.headers.raw, stream=body)
        try:
            for hook in self._http.event_hooks["response"]:
                await hook(response)
        except BaseException:
            # Nobody else has it yet, and the rest of an error may never come.
            await answer.aclose()
            raise
        return response


def _body_of(library: Any) -> Any:
    """What httpx takes as the bytes of a response."""

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, answer: Answer) -> None:
            self._answer = answer

        def __aiter__(self) -> Answer:
            return self._answer

        async def aclose(self) -> None:
            await self._answer.aclose()

    return Body


class _Headers(NamedTuple):
    raw: Tuple[Tuple[bytes, bytes], ...]


class Answer:
    """An aiohttp response, with what the engine asks of one of httpx. Its pieces raise OSError."""

    # No generator: those are objects more for the garbage collector to walk in each call.
    __slots__ = ("_broken", "_response", "headers", "status_code")

    def __init__(self, response: Any, broken: Any) -> None:
        self._response, self._broken = response, broken
        self.status_code: int = response.status
        self.headers = _Headers(response.raw_headers)

    def aiter_bytes(self) -> Answer:
        return self

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece: bytes = await self._response.content.readany()
        except self._broken as error:
            raise ConnectionError(str(error)) from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        try:
            await self._response.__aexit__(None, None, None)
        except self._broken as error:
            raise ConnectionError(str(error)) from error
