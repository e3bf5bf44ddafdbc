"""Sends requests to the Messages API over aiohttp, with a key or a token; and the pool of connections."""

from __future__ import annotations

import base64
import io
import ssl
import zlib
from inspect import signature
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
)
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

import aiohttp
from yarl import URL

from .. import __version__, settings
from ..errors import AuthenticationError, MissingCredentialsError
from .network import check_scheme, proxy_for, shown_address, tls_context
from .protocol import NotSentError, Response
from .redaction import header_secrets, secrets_of
from .request import VERSION_HEADER, Request, is_plain, to_body, to_query, to_request
from .services import API

CONNECTION_ERRORS: Tuple[Type[Exception], ...] = (OSError, aiohttp.ClientError)
# How the names of aiohttp's errors begin where no connection was made.
_NEVER_CONNECTED = ("ClientConnector", "ClientProxyConnection", "ConnectionTimeout")
_KEEP_ALIVE_SECONDS, _DNS_CACHE_SECONDS = 5.0, 60
# Gateways add headers of 20 kB and more, such as policies and traces.
_LARGEST_HEADERS = {"max_line_size": 2**17, "max_field_size": 2**17, "max_headers": 1024}
_NO_TIMEOUT = aiohttp.ClientTimeout()
_MOST_REDIRECTS = 10
# aiohttp warns of larger bodies that are passed as bytes.
_LARGE_BODY = 2**20
# In bytes, decompressed: the beginning of an error's body, and what is decompressed, or sent, at a time.
_MOST_OF_AN_ERROR = 2**16
_PIECE = 2**16
_PACKED = ("gzip", "x-gzip", "deflate")
AUTHORIZING = frozenset({"authorization", "x-api-key"})


class HttpSender:
    """Sends requests to Anthropic's API, or to a compatible server.

    Key, token and address come from the arguments, else from the environment, as do custom headers.
    Raises ValueError if the address, or a proxy's, is not an HTTP address.

    >>> sender = HttpSender("sk-ant-...", "https://api.anthropic.com", connections=10)
    >>> response = await sender.send({"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": [...]})
    """

    connection_errors = CONNECTION_ERRORS
    service = API

    def __init__(self, api_key: Optional[str], base_url: Optional[str], connections: int) -> None:
        self.base_url = base_url or settings.endpoint() or settings.API_ADDRESS
        check_scheme(self.base_url)
        self._messages = _url(self.base_url, "/v1/messages")
        self._count = _url(self.base_url, "/v1/messages/count_tokens")
        self._credential = settings.credential(api_key)
        custom = _lower(settings.custom_header_fields())
        self._pins_version = VERSION_HEADER in custom
        headers = {**_default_headers(self._credential[1]), **custom, **self._address_headers()}
        self._is_authorized = not AUTHORIZING.isdisjoint(headers)
        self.secrets: Sequence[str] = secrets_of([self._credential[1]], self.base_url)
        schemes = {urlsplit(url).scheme for url in (self.base_url, proxy_for(self.base_url) or "")}
        # Reading the system's certificates takes a while, and plain HTTP needs none.
        tls = tls_context() if "https" in schemes else None
        self._pool = ConnectionPool(connections, tls, headers)

    def send(self, fields: Mapping[str, Any]) -> Awaitable[Response]:
        """Raises MissingCredentialsError, and InvalidOptionError for a field that has no JSON."""
        return self._post(self._messages, fields)

    def count_tokens(self, fields: Mapping[str, Any]) -> Awaitable[Response]:
        return self._post(self._count, fields)

    def _post(self, url: URL, fields: Mapping[str, Any]) -> Awaitable[Response]:
        if self._is_authorized and is_plain(fields):
            return self._pool.request("POST", url, to_body(fields))
        request = to_request(fields, self._pins_version)
        headers = _lower(request.headers)
        if not self._is_authorized and AUTHORIZING.isdisjoint(headers):
            raise MissingCredentialsError("No credentials were found")
        if request.query:
            url = url.with_query(to_query(request.query))
        sending = self._pool.request("POST", url, to_body(request.body), headers, _timeout(request))
        secrets = header_secrets(fields.get("extra_headers") or {})
        return _with_secrets(sending, secrets) if secrets else sending

    def check(self) -> None:
        """Raises AuthenticationError for a key that no header can hold."""
        # aiohttp's error would be treated as a failed connection, and retried.
        name, value = self._credential
        if not value.isprintable():
            raise AuthenticationError(
                f"The key has a line break in it, or another control character ({name})"
            )

    def check_credentials(self) -> None:
        if not self._is_authorized:
            raise MissingCredentialsError("No credentials were found")

    async def close(self) -> None:
        await self._pool.close()

    def _address_headers(self) -> Dict[str, str]:
        """Headers for the name and password in the address; the key is then sent as `x-api-key`."""
        userinfo = urlsplit(self.base_url).netloc.rpartition("@")[0]
        if not userinfo:
            return {}
        name, _, password = userinfo.partition(":")
        basic = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
        key = {"x-api-key": self._credential[1]} if self._credential[1] else {}
        return {**key, "authorization": f"Basic {basic}"}


class ConnectionPool:
    """aiohttp's connections, bound to the event loop of the first request. Uses the environment's proxies.

    `tls` verifies servers; None if all requests go over plain HTTP. `headers` are sent with all requests.
    """

    def __init__(
        self, connections: int, tls: Optional[ssl.SSLContext], headers: Optional[Mapping[str, str]] = None
    ) -> None:
        self._connections, self._tls, self._headers = connections, tls, headers
        self._session: Optional[aiohttp.ClientSession] = None
        self._proxies: Dict[Tuple[str, Optional[str]], Optional[URL]] = {}
        self._closed = False

    async def request(
        self,
        method: str,
        url: URL,
        body: Union[bytes, List[bytes]],
        headers: Any = None,
        timeout: aiohttp.ClientTimeout = _NO_TIMEOUT,
    ) -> HttpResponse:
        """Sends one request. Follows redirects to the same server that repeat it (307, 308).

        Raises NotSentError if aiohttp refuses it before connecting, else CONNECTION_ERRORS.
        """
        for left in range(_MOST_REDIRECTS, -1, -1):
            answer = await self._send(method, url, body, headers=headers, timeout=timeout)
            target = _redirection(answer, url) if left else None
            if target is None:
                break
            answer.release()
            url = target
        return HttpResponse(answer)

    async def _send(
        self, method: str, url: URL, body: Union[bytes, List[bytes]], **given: Any
    ) -> aiohttp.ClientResponse:
        session = self._session or self._open()
        while True:
            data = _payload(body)
            try:
                return await session.request(
                    method, url, data=data, proxy=self._proxy(url), allow_redirects=False, **given
                )
            except _SpoiledError:
                # That connection is closed now; the next one is another.
                continue
            except ValueError as error:
                raise NotSentError(str(error)) from error
            except aiohttp.ClientResponseError as error:
                failure = _without_request(error)
            # Not in the handler: the error would keep the other one as its context.
            raise failure

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the connections are closed")
        connector = aiohttp.TCPConnector(
            # As many as attempts: waiting for a connection would be taken for the silence of a server.
            limit=self._connections,
            ssl=True if self._tls is None else self._tls,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            ttl_dns_cache=_DNS_CACHE_SECONDS,
        )
        taken = signature(aiohttp.ClientSession).parameters
        sizes: Dict[str, Any] = {name: size for name, size in _LARGEST_HEADERS.items() if name in taken}
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_CheckedRequest,
            auto_decompress=False,
            timeout=_NO_TIMEOUT,
            **sizes,
        )
        return self._session

    def _proxy(self, url: URL) -> Optional[URL]:
        # aiohttp's own search for proxies would read ~/.netrc too.
        key = url.scheme, url.host
        if key not in self._proxies:
            proxy = proxy_for(str(url))
            self._proxies[key] = None if proxy is None else URL(proxy)
        return self._proxies[key]

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()


def _payload(body: Union[bytes, List[bytes]]) -> Any:
    if isinstance(body, list):
        return _Pieces(body)
    return body if len(body) < _LARGE_BODY else io.BytesIO(body)


class _Pieces(aiohttp.Payload):
    """A body in pieces. Joined into one, it would be copied twice into memory that the system maps anew."""

    def __init__(self, pieces: List[bytes]) -> None:
        super().__init__(pieces)
        self._pieces = pieces

    @property
    def size(self) -> int:
        return sum(map(len, self._pieces))

    @property
    def autoclose(self) -> bool:
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: Any) -> None:
        some, size = [], 0
        for piece in self._pieces:
            some.append(piece)
            size += len(piece)
            if size >= _PIECE:
                await writer.write(b"".join(some))
                some, size = [], 0
        if some:
            await writer.write(b"".join(some))


class _SpoiledError(aiohttp.ClientConnectionError):
    """Bytes that nobody asked for arrived on an idle connection."""


class _NoHttpError(aiohttp.ClientError):
    """What the server sent is not HTTP."""


def _without_request(error: aiohttp.ClientResponseError) -> Exception:
    """The error for an answer that can't be read. aiohttp's holds the headers and the proxy's password."""
    text = f"{error.status}, message={error.message!r}"
    # The proxy made no tunnel, so nothing else was sent.
    return NotSentError(text) if error.request_info.method == "CONNECT" else _NoHttpError(text)


# Connections that were used before. aiohttp 3.10 says of new ones to a proxy that they should close.
_used_connections: WeakSet[Any] = WeakSet()


class _CheckedRequest(aiohttp.ClientRequest):
    """A request that is not sent over a spoiled connection: those bytes would be taken for its answer."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        if conn.protocol in _used_connections and conn.protocol.should_close:
            raise _SpoiledError
        _used_connections.add(conn.protocol)
        return await super().send(conn)


class HttpResponse:
    """An answer whose body has not been read yet; iterates over the pieces of that body."""

    # Its own iterator, not a generator: fewer objects for the garbage collector.
    __slots__ = ("_answer", "headers", "secrets", "status_code")

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer, self.status_code = answer, answer.status
        self.secrets: Tuple[str, ...] = ()
        # A plain dictionary: each look-up in the library's type costs as much as all of this.
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.raw_headers
        }

    @property
    def encoding(self) -> str:
        """How the body is compressed; "" if it is not."""
        named = self.headers.get("content-encoding", "").strip().lower()
        return "" if named == "identity" else named

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Pieces of the body, decompressed if the compression was asked for."""
        return _unpacked(self, self.encoding) if self.encoding in _PACKED else self

    def __aiter__(self) -> HttpResponse:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._answer.content.readany()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aread(self) -> bytes:
        """The first 64 KB: an error may be endless, or a thousand times as long as its compressed form."""
        body = bytearray()
        if self.encoding and self.encoding not in _PACKED:
            return b""
        try:
            async for piece in self.aiter_bytes():
                body += piece
                if len(body) >= _MOST_OF_AN_ERROR:
                    break
        except _DamagedError:
            # The status still says what the error is.
            return b""
        return bytes(body[:_MOST_OF_AN_ERROR])

    async def aclose(self) -> None:
        self._answer.release()


class _DamagedError(ConnectionError):
    """The body is not compressed as its header says."""


async def _unpacked(pieces: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Decompresses a body, at most 64 KB at a time."""
    decoder = None
    async for packed in pieces:
        if decoder is None:
            # Some servers omit zlib's header.
            is_raw = encoding == "deflate" and packed[0] & 15 != zlib.DEFLATED
            decoder = zlib.decompressobj(-zlib.MAX_WBITS if is_raw else 32 + zlib.MAX_WBITS)
        piece = bytes(_PIECE)
        # All input may be consumed while output is still pending.
        while (packed or len(piece) == _PIECE) and not decoder.eof:
            try:
                piece = decoder.decompress(packed, _PIECE)
            except zlib.error as error:
                raise _DamagedError(str(error)) from error
            packed = decoder.unconsumed_tail
            if piece:
                yield piece


async def _with_secrets(sending: Awaitable[HttpResponse], secrets: Sequence[str]) -> HttpResponse:
    response = await sending
    response.secrets = tuple(secrets)
    return response


def was_never_connected(error: BaseException) -> bool:
    """Whether the request can't have been sent, because no connection was made."""
    return any(
        isinstance(one, NotSentError)
        or (isinstance(one, aiohttp.ClientError) and type(one).__name__.startswith(_NEVER_CONNECTED))
        for one in _causes(error)
    )


def failure_text(error: BaseException) -> str:
    """The reason why a connection failed, in aiohttp's words if the error is aiohttp's."""
    own = next((one for one in _causes(error) if isinstance(one, aiohttp.ClientError)), None)
    return str(own or error.__cause__ or error)


def _causes(error: Optional[BaseException]) -> Iterator[BaseException]:
    # Causes only: the context may be the error of an earlier attempt.
    while error is not None:
        yield error
        error = error.__cause__


def _default_headers(credential: str) -> Dict[str, str]:
    headers = {
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "user-agent": f"claude-force/{__version__}",
        VERSION_HEADER: settings.API_VERSION,
    }
    return {**headers, "authorization": f"Bearer {credential}"} if credential else headers


def _lower(headers: Mapping[str, Any]) -> Dict[str, str]:
    return {name.lower(): str(value) for name, value in headers.items()}


def _timeout(request: Request) -> aiohttp.ClientTimeout:
    if request.timeout is None:
        return _NO_TIMEOUT
    return aiohttp.ClientTimeout(sock_connect=request.timeout, sock_read=request.timeout)


def _url(base_url: str, path: str) -> URL:
    parts = urlsplit(shown_address(base_url))
    return URL(parts._replace(path=parts.path.rstrip("/") + path, query="", fragment="").geturl())


def _redirection(answer: aiohttp.ClientResponse, url: URL) -> Optional[URL]:
    if answer.status not in (307, 308) or "Location" not in answer.headers:
        return None
    try:
        # A name and password in it would replace the credentials.
        target = url.join(URL(answer.headers["Location"])).with_user(None)
        return target if target.origin() == url.origin() else None
    except ValueError:
        return None
