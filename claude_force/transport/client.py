"""The SDK's clients, for its API or a cloud, and the errors that they and what they are built on raise.

The module `anthropic` is handed in: its import takes most of a second.
"""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import Any, Dict, List, Optional, Tuple, Type

from .. import settings
from .clouds import Cloud

# What the SDK is built on, before its 2.0 and since.
_HTTPX = ("httpx", "httpx2")
# How the names of their errors begin, and those of aiohttp's, where a connection was not made.
_NEVER_CONNECTED = (
    "ConnectError",
    "ConnectTimeout",
    "ClientConnector",
    "ClientProxyConnection",
    "ClientHttpProxy",
)
# What aiohttp takes of a line, of a header's value, and of headers by number.
_LARGEST_HEADERS = {"max_line_size": 2**17, "max_field_size": 2**17, "max_headers": 1024}
# In bytes, decompressed; of the text 500 letters are shown.
_MOST_OF_AN_ERROR = 2**16


class NotSentError(ConnectionError):
    """The HTTP library refused the request before it connected."""


def make_http(sdk: Any, connections: int) -> Optional[Any]:
    """The fast client; None where the SDK's own has to serve."""
    try:
        import aiohttp  # noqa: F401

        # An attempt that waits for a connection would be taken for a silent server: as many as attempts.
        limits = type(sdk.DEFAULT_CONNECTION_LIMITS)(
            max_connections=connections, max_keepalive_connections=connections
        )
        http = sdk.DefaultAioHttpClient(timeout=None, limits=limits)
        for transport in (http._transport, *http._mounts.values()):
            if hasattr(transport, "get_client"):
                transport.client = partial(_make_session, transport)
        return http
    except (ImportError, RuntimeError):
        # Without aiohttp, or its adapter for older SDKs.
        return None


def _make_session(transport: Any) -> Any:
    """aiohttp's session as the SDK's transport makes it, but for the size of headers that it takes: gateways
    add policies and traces of 20 kB and more. httpx takes 100 kB of them."""
    import aiohttp

    limits = transport.limits
    connector = aiohttp.TCPConnector(
        ssl=transport.ssl_context,
        keepalive_timeout=limits.keepalive_expiry,
        limit=limits.max_connections,
    )
    taken = inspect.signature(aiohttp.ClientSession).parameters
    sizes: Dict[str, Any] = {name: size for name, size in _LARGEST_HEADERS.items() if name in taken}
    return aiohttp.ClientSession(connector=connector, **sizes)


def make_client(
    sdk: Any,
    api_key: Optional[str],
    base_url: Optional[str],
    http: Optional[Any],
    cloud: Optional[Cloud],
) -> Any:
    make = sdk.AsyncAnthropic if cloud is None else getattr(sdk, cloud.client)
    arguments: Dict[str, Any] = {"max_retries": 0, "timeout": None}
    if cloud is not None:
        arguments.update(cloud.arguments())
    else:
        # SDKs of Python 3.8 do not read them; of those that do, these are the same once more.
        arguments["default_headers"] = settings.custom_header_fields()
    if "open_telemetry" in inspect.signature(make).parameters:
        # It would trace the first request alone, and put that one's trace context on all others.
        arguments["open_telemetry"] = False
    if api_key is not None:
        arguments["api_key"] = api_key
    if base_url is not None:
        arguments["base_url"] = base_url
    if http is not None:
        arguments["http_client"] = http
    with settings.with_a_home():
        client = make(**arguments)
    # The SDK reads errors whole before anybody else sees them.
    client._client.event_hooks = {"response": [_shorten_error]}
    return client


async def _shorten_error(response: Any) -> None:
    """Leaves the beginning of an error's body, before anybody has read of it: it may have no end, and what is
    compressed may be a thousand times as long as it is on the wire."""
    twice_packed = "," in response.headers.get("content-encoding", "")
    if twice_packed:
        # No service does that, and on older clients a kilobyte of it can become a gigabyte at once.
        response.headers.pop("content-encoding")
    if response.is_success or response.has_redirect_location:
        return
    # Another response for the same bytes: what has been read of one can't be read of it again.
    package, wire = _package_of(response), response.stream
    packed = package.Response(response.status_code, headers=response.headers, stream=wire)
    body = bytearray()
    try:
        async for chunk in packed.aiter_bytes():
            body += chunk
            if twice_packed or len(body) >= _MOST_OF_AN_ERROR:
                break
    except package.DecodingError:
        # The status still says what it is.
        body.clear()
    if twice_packed:
        body.clear()
    await wire.aclose()
    response.headers.pop("content-encoding", None)
    response.stream = package.ByteStream(bytes(body[:_MOST_OF_AN_ERROR]))


def _package_of(one: Any) -> Any:
    return sys.modules[type(one).__module__.partition(".")[0]]


def connection_errors(sdk: Any) -> Tuple[Type[BaseException], ...]:
    return (sdk.APIConnectionError, OSError, *_named("HTTPError", *_HTTPX), *_named("ClientError", "aiohttp"))


def was_never_connected(error: BaseException) -> bool:
    """Whether there was no connection that a request could have been sent over."""
    chain: List[BaseException] = []
    cause: Optional[BaseException] = error
    while cause is not None:
        if isinstance(cause, NotSentError):
            return True
        chain.append(cause)
        cause = cause.__cause__
    # aiohttp's own say it. Its adapter calls a connection that was lost later one that was never made.
    own = [one for one in chain if type(one).__module__.partition(".")[0] == "aiohttp"]
    return any(type(one).__name__.startswith(_NEVER_CONNECTED) for one in own or chain)


def address_errors() -> Tuple[Type[BaseException], ...]:
    return (ValueError, *_named("InvalidURL", *_HTTPX))


def _named(name: str, *modules: str) -> Tuple[Type[BaseException], ...]:
    """The classes of this name, in those of the modules that are installed."""
    found = []
    for module in modules:
        try:
            found.append(getattr(__import__(module), name))
        except ImportError:
            continue
    return tuple(found)
