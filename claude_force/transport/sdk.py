"""The Messages API by the official SDK, for what only the SDK knows: Amazon Bedrock, Vertex AI, profiles.

The only file that imports `anthropic`. The SDK signs and addresses requests; its own retries and timeouts are
off, and its HTTP library sends over the same connections as `http` does.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from inspect import signature
from typing import Any, AsyncIterator, Dict, Mapping, Optional, Sequence, Tuple, Type

from aiohttp import ClientTimeout
from yarl import URL

from .. import settings
from ..errors import CallError, MissingCredentialsError, PaidCallBlockedError
from .http import AUTHORIZING, CONNECTION_ERRORS, ConnectionPool, HttpResponse
from .network import check_scheme, proxy_for, tls_context
from .protocol import Response
from .redaction import secrets_of
from .request import VERSION_HEADER, to_request
from .services import Service, finds_credentials, looks_elsewhere, lookup_error

# The fields that the SDK's methods want as arguments; all others can be put into the body.
_CREATE = ("model", "max_tokens", "messages", "stream")
_COUNT = ("model", "messages")
# aiohttp's own to set, or worth nothing once the body is decompressed.
_OF_THE_CONNECTION = frozenset({"content-length", "transfer-encoding", "connection", "content-encoding"})


class SdkSender:
    """Sends requests by the SDK's client for a service, which finds credentials in its own ways.

    Raises ValueError where the address is not one of HTTP.
    """

    def __init__(
        self, service: Service, api_key: Optional[str], base_url: Optional[str], connections: int
    ) -> None:
        self.service, self._sdk = service, import_sdk()
        # httpx or httpx2, whichever this SDK is built on.
        self._library = sys.modules[type(self._sdk.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0]]
        http = http_client(self._library, ConnectionPool(connections, tls_context()))
        try:
            self._client = _make_client(self._sdk, service, api_key, base_url, http)
        except self._library.InvalidURL as error:
            raise ValueError(str(error)) from None
        self.base_url = str(self._client.base_url)
        check_scheme(self.base_url)
        proxy_for(self.base_url)
        custom = {name.lower() for name in settings.custom_header_fields()}
        # A cloud has versions of its own.
        self._pins_version = service.is_cloud or VERSION_HEADER in custom
        keys = [getattr(self._client, name, None) or "" for name in ("api_key", "auth_token")]
        self._provider = getattr(self._client, "credentials", None)
        self._is_authorized = bool(any(keys) or self._provider or custom & AUTHORIZING)
        self.secrets: Sequence[str] = secrets_of(keys, self.base_url)
        self.connection_errors: Tuple[Type[Exception], ...] = (
            *CONNECTION_ERRORS,
            self._sdk.APIConnectionError,
            self._library.HTTPError,
        )

    async def send(self, fields: Mapping[str, Any]) -> Response:
        """Raises what the SDK and aiohttp raise, but for statuses, which are responses."""
        return await self._answer(self._client.messages.with_streaming_response.create, _CREATE, fields)

    async def count_tokens(self, fields: Mapping[str, Any]) -> Response:
        return await self._answer(self._client.messages.with_streaming_response.count_tokens, _COUNT, fields)

    async def _answer(
        self, method: Any, arguments: Tuple[str, ...], fields: Mapping[str, Any]
    ) -> SdkResponse:
        stack = AsyncExitStack()
        try:
            found = await stack.enter_async_context(method(**self._given(arguments, fields)))
        except self._sdk.APIStatusError as error:
            return SdkResponse(error.response, stack, self._secrets(error.response))
        return SdkResponse(found.http_response, stack, self._secrets(found.http_response))

    def _given(self, arguments: Tuple[str, ...], fields: Mapping[str, Any]) -> Dict[str, Any]:
        request = to_request(fields, self._pins_version)
        given = {name: request.body[name] for name in arguments}
        given["extra_body"] = {name: value for name, value in request.body.items() if name not in arguments}
        version = {} if self._pins_version else {VERSION_HEADER: settings.API_VERSION}
        given["extra_headers"] = {**version, **request.headers}
        given["extra_query"] = dict(request.query)
        if request.timeout is not None:
            given["timeout"] = request.timeout
        return given

    def _secrets(self, response: Any) -> Tuple[str, ...]:
        """The token of a request, or its signature and the token that goes with that, where they change."""
        if not self.service.is_cloud and self._provider is None:
            return ()
        sent = response.request.headers
        token = sent.get("authorization", "").rpartition(" ")[2].rpartition("Signature=")[2]
        return token, sent.get("x-amz-security-token", ""), sent.get("x-api-key", "")

    def check(self) -> None:
        """Raises PaidCallBlockedError where the switch forbids to look for credentials."""
        cloud = self.service
        if cloud.is_cloud and settings.loopback_only() and looks_elsewhere(cloud, self._client):
            raise PaidCallBlockedError(
                f"Credentials for {cloud.title} would be looked for on other machines, which is "
                "switched off by CLAUDE_FORCE_LOOPBACK_ONLY",
                advice="Put them into the environment, or unset CLAUDE_FORCE_LOOPBACK_ONLY.",
            )

    def check_credentials(self) -> None:
        self.check()
        cloud = self.service
        if cloud.is_cloud and not finds_credentials(cloud, self._client):
            raise MissingCredentialsError(f"No credentials were found for {cloud.title}", advice=cloud.advice)
        if not cloud.is_cloud and not self._is_authorized:
            raise MissingCredentialsError("No credentials were found")

    def unsent_error(self, error: BaseException) -> Optional[CallError]:
        if isinstance(error, TypeError) and "authentication method" in str(error):
            return MissingCredentialsError("No credentials were found")
        return lookup_error(self.service, error) if self.service.is_cloud else None

    async def close(self) -> None:
        await self._client.close()


class SdkResponse:
    """An answer of the SDK's HTTP library, its body not read yet."""

    def __init__(self, response: Any, stack: AsyncExitStack, secrets: Tuple[str, ...]) -> None:
        self._response, self._stack, self.secrets = response, stack, secrets
        self.status_code: int = response.status_code
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw
        }

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        pieces: AsyncIterator[bytes] = self._response.aiter_bytes()
        return pieces

    async def aread(self) -> bytes:
        body: bytes = await self._response.aread()
        return body

    async def aclose(self) -> None:
        await self._stack.aclose()


def import_sdk() -> Any:
    """The module `anthropic`. Its first import takes most of a second."""
    import anthropic

    return anthropic


def http_client(library: Any, pool: ConnectionPool) -> Any:
    """A client of httpx, or httpx2, that sends over `pool`."""

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, response: HttpResponse) -> None:
            self._response = response

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self._response.aiter_bytes()

        async def aclose(self) -> None:
            await self._response.aclose()

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            # httpx has made a header of a name and a password in the address.
            url = URL(str(request.url), encoded=True).with_user(None)
            headers, body = _forwarded(request.headers.raw), await request.aread()
            limits = request.extensions.get("timeout", {})
            timeout = ClientTimeout(sock_connect=limits.get("connect"), sock_read=limits.get("read"))
            found = await pool.request(request.method, url, body, headers, timeout)
            return library.Response(
                found.status_code,
                headers=_forwarded(found.raw_headers),
                stream=await _body(found),
                request=request,
            )

        async def aclose(self) -> None:
            await pool.close()

    async def _body(found: HttpResponse) -> Any:
        if 200 <= found.status_code < 300:
            return Body(found)
        # The SDK reads errors whole before anybody else sees them: here is their beginning.
        try:
            return library.ByteStream(await found.aread())
        finally:
            await found.aclose()

    return library.AsyncClient(transport=Transport(), timeout=None, follow_redirects=False)


def _forwarded(headers: Any) -> Any:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return [(name, value) for name, value in pairs if name.lower() not in _OF_THE_CONNECTION]


def _make_client(
    sdk: Any, service: Service, api_key: Optional[str], base_url: Optional[str], http: Any
) -> Any:
    make = getattr(sdk, service.client)
    arguments = {"max_retries": 0, "timeout": None, "http_client": http, **service.arguments()}
    if "open_telemetry" in signature(make).parameters:
        # It would put a trace of the SDK's own on each call.
        arguments["open_telemetry"] = False
    given = {"api_key": api_key, "base_url": base_url}
    arguments.update((name, value) for name, value in given.items() if value is not None)
    with settings.with_a_home():
        return make(**arguments)
