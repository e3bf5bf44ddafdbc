"""How a request's body gets onto the wire: the first time through the SDK, then as the SDK sent the first.

The SDK works out the endpoint, the credentials and all headers anew for each request, which is half of what a
call costs; for one client they stay the same, unless its credentials are of a kind that expires.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Dict, Optional, Tuple

# What the SDK's `create` takes and does not send as a field.
_SDK_OPTIONS = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
_OF_ONE_REQUEST = frozenset({"content-length", "transfer-encoding", "idempotency-key"})


class Wire:
    """Sends over `http`, the client that the SDK's own `client` uses; None where the SDK made its own."""

    def __init__(self, client: Any, http: Optional[Any]) -> None:
        self._client, self._http = client, http
        self._made: Optional[Tuple[Any, Dict[str, str]]] = None

    @asynccontextmanager
    async def response(self, fields: Dict[str, Any]) -> AsyncIterator[Any]:
        """An httpx response, its body not read yet, of any status. Raises as the SDK and httpx do."""
        body = None if self._made is None else _written(fields)
        if self._made is None or body is None:
            async with self._client.messages.with_streaming_response.create(**fields) as answer:
                self._remember(answer.http_response.request, fields)
                yield answer.http_response
            return
        url, headers = self._made
        request = self._http.build_request("POST", url, headers=headers, content=body)  # type: ignore[union-attr]
        response = await self._http.send(request, stream=True)  # type: ignore[union-attr]
        try:
            yield response
        finally:
            await response.aclose()

    def _remember(self, request: Any, fields: Dict[str, Any]) -> None:
        expires = getattr(self._client, "credentials", None) is not None
        if self._http is not None and not expires and not _SDK_OPTIONS & set(fields):
            headers = {
                name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_REQUEST
            }
            self._made = request.url, headers


def _written(fields: Dict[str, Any]) -> Optional[bytes]:
    """The body as JSON; None where it is for the SDK to write."""
    if _SDK_OPTIONS & set(fields):
        return None
    try:
        return json.dumps(fields).encode()
    except (TypeError, ValueError):
        return None
