"""Sends requests through the official SDK: for Amazon Bedrock, Google Vertex AI and profiles.

The only module that imports `anthropic`, and uses its public API only. The SDK finds credentials and signs
requests; its retries and timeouts are off, and it sends over the same connection pool as `http`.
"""

from __future__ import annotations

import sys
from inspect import signature
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Type

from aiohttp import ClientTimeout
from yarl import URL

from .. import settings
from ..errors import CallError, InvalidOptionError, MissingCredentialsError, PaidCallBlockedError
from .http import AUTHORIZING, CONNECTION_ERRORS, ConnectionPool, HttpResponse
from .network import check_scheme, proxy_for, tls_context
from .protocol import Response
from .redaction import header_secrets, secrets_of
from .request import VERSION_HEADER, to_objects, to_request
from .services import Service, finds_credentials, looks_elsewhere, lookup_error

# Fields that the SDK's methods require as arguments; the others go into `extra_body`, whatever its version.
_CREATE = ("model", "max_tokens", "messages", "stream")
_COUNT = ("model", "messages")
# Set by aiohttp.
_OF_THE_CONNECTION = ("content-length", "transfer-encoding", "connection")
_RESPONSE = "claude_force.response"


class SdkSender:
    """Sends requests through the SDK's client for a service.

    Raises ValueError if its address, or a proxy's, is not an HTTP address.
    """

    def __init__(
        self, service: Service, api_key: Optional[str], base_url: Optional[str], connections: int
    ) -> None:
        # Takes most of a second the first time.
        import anthropic

        self.service, self._sdk = service, anthropic
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
        custom = {name.lower(): value for name, value in settings.custom_header_fields().items()}
        # Clouds have their own versions, in the body.
        self._pins_version = service.is_cloud or VERSION_HEADER in custom
        version = {VERSION_HEADER: custom.get(VERSION_HEADER, settings.API_VERSION)}
        self._version: Mapping[str, str] = {} if service.is_cloud else version
        keys = [getattr(self._client, name, None) or "" for name in ("api_key", "auth_token")]
        self._provider = getattr(self._client, "credentials", None)
        self._is_authorized = bool(any(keys) or self._provider or custom.keys() & AUTHORIZING)
        self.secrets: Sequence[str] = secrets_of(keys, self.base_url)
        self.connection_errors: Tuple[Type[Exception], ...] = (
            *CONNECTION_ERRORS,
            self._sdk.APIConnectionError,
            self._library.HTTPError,
        )

    async def send(self, fields: Mapping[str, Any]) -> Response:
        return await self._answer(self._client.messages.with_streaming_response.create, _CREATE, fields)

    async def count_tokens(self, fields: Mapping[str, Any]) -> Response:
        return await self._answer(self._client.messages.with_streaming_response.count_tokens, _COUNT, fields)

    async def _answer(
        self, method: Any, arguments: Tuple[str, ...], fields: Mapping[str, Any]
    ) -> HttpResponse:
        try:
            async with method(**self._given(arguments, fields)) as answer:
                found = answer.http_response
        except self._sdk.APIStatusError as error:
            found = error.response
        except Exception as error:
            known = self._missing_credentials(error) or _refusal(error)
            if known is None:
                raise
            raise known from error
        response: HttpResponse = found.extensions[_RESPONSE]
        own = header_secrets(fields.get("extra_headers") or {})
        response.secrets = (*self._secrets(found.request.headers), *own)
        return response

    def _given(self, arguments: Tuple[str, ...], fields: Mapping[str, Any]) -> Dict[str, Any]:
        request = to_request(fields, self._pins_version)
        body = to_objects(request.body)
        given = {name: body.pop(name) for name in arguments}
        given["extra_body"] = body
        given["extra_headers"] = {**self._version, **request.headers}
        given["extra_query"] = dict(request.query)
        if request.timeout is not None:
            given["timeout"] = request.timeout
        return given

    def _secrets(self, sent: Any) -> Tuple[str, ...]:
        """The token or signature in the headers of a request, if it differs from one request to the next."""
        if not self.service.is_cloud and self._provider is None:
            return ()
        token = sent.get("authorization", "").rpartition(" ")[2].rpartition("Signature=")[2]
        return token, sent.get("x-amz-security-token", ""), sent.get("x-api-key", "")

    def check(self) -> None:
        """Raises PaidCallBlockedError if finding credentials would take forbidden requests."""
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

    def _missing_credentials(self, error: Exception) -> Optional[CallError]:
        """The CallError for a failed search for credentials; None for any other error."""
        if isinstance(error, TypeError) and "authentication method" in str(error):
            return MissingCredentialsError("No credentials were found")
        return lookup_error(self.service, error) if self.service.is_cloud else None

    async def close(self) -> None:
        await self._client.close()


def _refusal(error: Exception) -> Optional[InvalidOptionError]:
    """The error for what the SDK can't put into an address or a header, such as a model named `..`."""
    return InvalidOptionError(f"The SDK can't send this: {error}.") if isinstance(error, ValueError) else None


def http_client(library: Any, pool: ConnectionPool) -> Any:
    """A client of httpx, or httpx2, that sends over `pool`.

    Its responses have no body, but the HttpResponse as an extension: the SDK would read errors of any size,
    and answers slowly.
    """

    class PoolTransport(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            # httpx turned name and password of the address into a header.
            url = URL(str(request.url), encoded=True).with_user(None)
            headers, body = _forwarded(request.headers.raw), await request.aread()
            limits = request.extensions.get("timeout", {})
            timeout = ClientTimeout(sock_connect=limits.get("connect"), sock_read=limits.get("read"))
            found = await pool.request(request.method, url, body, headers, timeout)
            # Without headers: httpx looks where a redirect points, even if it does not follow it.
            return library.Response(found.status_code, extensions={_RESPONSE: found})

        async def aclose(self) -> None:
            await pool.close()

    return library.AsyncClient(transport=PoolTransport(), timeout=None, follow_redirects=False)


def _forwarded(headers: Any) -> Any:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return [(name, value) for name, value in pairs if name.lower() not in _OF_THE_CONNECTION]


def _make_client(
    sdk: Any, service: Service, api_key: Optional[str], base_url: Optional[str], http: Any
) -> Any:
    make = getattr(sdk, service.client)
    arguments = {"max_retries": 0, "timeout": None, "http_client": http, **service.arguments()}
    if "open_telemetry" in signature(make).parameters:
        # The SDK would add spans to those of this package.
        arguments["open_telemetry"] = False
    given = {"api_key": api_key, "base_url": base_url}
    arguments.update((name, value) for name, value in given.items() if value is not None)
    with settings.with_a_home():
        return make(**arguments)
