"""How a request's body gets onto the wire: the first time through the SDK, then as the SDK sent the first,
where it can by the session that is at the bottom of the SDK's client.

The SDK works out the endpoint, the credentials and all headers anew for each request, which is half of what a
call costs; for one client they stay the same, unless its credentials are of a kind that expires.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from contextvars import ContextVar
from functools import partial
from typing import Any, Callable, Dict, Optional

from .. import settings
from .client import NotSentError
from .direct import Direct, direct

# What the SDK's `create` sends as it is given, in the body. Whatever else it takes is for the SDK to send:
# some of it becomes a header of its own request.
_FIELDS = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stream", "metadata", "stop_sequences", "thinking"),
        *("temperature", "top_k", "top_p", "tools", "tool_choice", "service_tier", "container"),
        *("cache_control", "output_config", "inference_geo", "speed", "diagnostics"),
    }
)
_VERSION = "anthropic-version"
_OF_ONE_REQUEST = frozenset({b"content-length", b"transfer-encoding", b"idempotency-key"})

# Whether the request that this task is about to send is one like all others.
_ordinary: ContextVar[bool] = ContextVar("ordinary", default=False)


class Wire:
    """Sends over `http`, the client that the SDK's own `client` uses; None where the SDK made its own.

    Not `steady` is a client whose every request has an address, a signature or a token of its own.
    """

    def __init__(self, client: Any, http: Optional[Any], steady: bool = True) -> None:
        self._client, self._http = client, http
        self._taken = frozenset(inspect.signature(client.messages.create).parameters)
        # A cloud has versions of its own, and a user may name one in ANTHROPIC_CUSTOM_HEADERS.
        named = {name.lower() for name in client._custom_headers}
        self._names_version = steady and _VERSION not in named
        self._make: Optional[Callable[[bytes], Any]] = None
        self._direct: Optional[Direct] = None
        self._look: Optional[Callable[[], Optional[Direct]]] = None
        self._first: Optional[asyncio.Event] = None
        self._remembers = steady and http is not None and getattr(client, "credentials", None) is None
        if http is not None and self._remembers:
            http.event_hooks = {**http.event_hooks, "request": [self._remember]}

    def takes(self, option: str) -> bool:
        """Whether the API, or the installed SDK, knows an option of this name."""
        return option in self._taken or option in _FIELDS

    async def send(self, fields: Dict[str, Any]) -> Any:
        """An httpx response of any status, its body not read yet; the caller closes it. Raises as the SDK and
        httpx do."""
        # Under another version of the API than the other requests, so with other headers.
        samples = not settings.SAMPLING.isdisjoint(fields)
        body = _written(fields) if self._remembers and not samples else None
        if body is None:
            return await self._by_the_sdk(fields)
        if self._make is None:
            if self._first is None:
                return await self._as_the_first(fields)
            # Of many calls that begin at once only the first goes the long way.
            await self._first.wait()
        if self._make is None:
            return await self._by_the_sdk(fields)
        try:
            return await self._as_before(body, self._make)
        except ValueError as error:
            # What an adapter has against an address or a header; for the SDK that is a failed connection.
            raise NotSentError(str(error)) from error

    async def _as_before(self, body: bytes, make: Callable[[bytes], Any]) -> Any:
        if self._look is not None:
            # Not when the first was remembered: the session is made when that is sent.
            self._direct, self._look = self._look(), None
        if self._direct is not None:
            answer = await self._direct.send(body)
            if answer is not None:
                return answer
            # Those that follow would only be sent elsewhere again.
            self._direct = None
        return await self._http.send(make(body), stream=True)  # type: ignore[union-attr]

    async def _as_the_first(self, fields: Dict[str, Any]) -> Any:
        self._first = asyncio.Event()
        before = _ordinary.set(True)
        try:
            return await self._by_the_sdk(fields)
        finally:
            _ordinary.reset(before)
            self._first.set()
            self._first = None

    async def _by_the_sdk(self, fields: Dict[str, Any]) -> Any:
        given = self._for_the_sdk(fields)
        answer = await self._client.messages.with_streaming_response.create(**given).__aenter__()
        return answer.http_response

    def _for_the_sdk(self, fields: Dict[str, Any]) -> Dict[str, Any]:
        """Arguments that this SDK takes: a field that it does not know goes into the body as it is."""
        more = {name: value for name, value in fields.items() if name not in self._taken}
        given = {name: value for name, value in fields.items() if name in self._taken}
        if more:
            given["extra_body"] = {**more, **(given.get("extra_body") or {})}
        version = self.version(not settings.SAMPLING.isdisjoint(fields))
        if version:
            given["extra_headers"] = {**version, **(given.get("extra_headers") or {})}
        return given

    def version(self, samples: bool = False) -> Dict[str, str]:
        """The header that names the version of the API, where the SDK would send another. `samples`: for a
        request that has one of the sampling fields."""
        own = self._client.default_headers.get(_VERSION, "") if self._names_version else ""
        wanted = settings.API_VERSION_WITH_SAMPLING if samples else max(settings.API_VERSION, own)
        return {_VERSION: wanted} if own and own != wanted else {}

    async def _remember(self, request: Any) -> None:
        if not _ordinary.get() or self._make is not None:
            return
        kind, url, extensions = type(request), request.url, request.extensions
        headers = type(request.headers)(
            [one for one in request.headers.raw if one[0].lower() not in _OF_ONE_REQUEST]
        )
        # Not by the client's `build_request`, which merges these headers with its own for every request.
        self._make = lambda body: kind("POST", url, headers=headers, content=body, extensions=extensions)
        self._look = partial(direct, self._http, request, dict(headers.items()))
        self._http.event_hooks = {**self._http.event_hooks, "request": []}  # type: ignore[union-attr]
        if self._first is not None:
            self._first.set()


def _written(fields: Dict[str, Any]) -> Optional[bytes]:
    """The body as JSON; None where it is for the SDK to write."""
    if not _FIELDS.issuperset(fields):
        return None
    try:
        return json.dumps(fields).encode()
    except (TypeError, ValueError):
        return None
