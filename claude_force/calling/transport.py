"""One attempt on the wire, through the official SDK: the only file that imports `anthropic`.

The SDK finds credentials, endpoint, proxies and custom headers; its own retries and timeouts are off.
Answers are read from the raw response, because the SDK's event objects cost several times as much
as the answer's own bytes.
"""

from __future__ import annotations

import inspect
import ipaddress
import time
from typing import Any, Dict, Mapping, Optional, Tuple, Type
from urllib.parse import urlsplit, urlunsplit

import anyio

from .. import settings
from ..agents.thinking import thinks
from ..errors import (
    AnswerTooLargeError,
    AuthenticationError,
    BadReplyError,
    CallError,
    ClosedError,
    ConnectionFailedError,
    InvalidOptionError,
    MissingCredentialsError,
    ModelNotFoundError,
    PaidCallBlockedError,
    PermissionDeniedError,
    RequestRefusedError,
    SilenceError,
)
from ..types import Call, Reply
from . import clouds
from .client import address_errors, connection_errors, make_client, make_http, was_never_connected
from .faults import from_status, parsed, redact, request_id
from .messages import EVENTS_MEDIA_TYPE, BodyReader, Reader, StreamReader, request_fields
from .meter import Meter
from .wire import Wire

# After the last event only the end of the HTTP body is due: not worth more waiting than this.
_END_OF_BODY_SECONDS = 0.5
_SHORTEST_SECRET = 8
# Bytes of an answer. A token is a few letters, and a stream's event around it has some 200 bytes, a gateway's
# more. What the server's own tools found comes beside; it has to fit into a later request, of 32 MB.
_PER_TOKEN, _BESIDE, _MOST_OF_ALL = 2**10, 2**25, 2**28
_ONE_PIECE = "application/json"


class Transport:
    """A pool of connections to one endpoint, bound to the event loop that first uses it.

    `silence_seconds` bounds the time in which nothing arrives: until the first byte, then between any two.
    """

    def __init__(
        self,
        api_key: Optional[str],
        base_url: Optional[str],
        silence_seconds: Optional[float],
        stream: bool,
        connections: int,
    ) -> None:
        anthropic, self._cloud = import_sdk(), clouds.chosen(api_key)
        self._silence = float("inf") if silence_seconds is None else silence_seconds
        self._stream, self._address = stream, base_url
        self._sdk = anthropic
        try:
            http = make_http(anthropic, connections)
            self._client = make_client(anthropic, api_key, base_url, http, self._cloud)
            if http is not None and urlsplit(str(self._client.base_url)).username is not None:
                # aiohttp takes no name and password in an address beside a header that has them.
                http, self._client = None, make_client(anthropic, api_key, base_url, None, self._cloud)
            _check_scheme(str(self._client.base_url))
        except address_errors():
            # What they say repeats the address, and with it the password that it may hold.
            raise InvalidOptionError(
                "The address of the endpoint, or of a proxy, can't be read. Correct ANTHROPIC_BASE_URL (for "
                "a cloud its own), base_url or HTTPS_PROXY: write https://HOST or http://HOST:PORT."
            ) from None
        self._wire = Wire(self._client, http, steady=self._cloud is None)
        self._broken = connection_errors(anthropic)
        self._taken = frozenset(inspect.signature(self._client.messages.create).parameters)
        self.base_url = _shown(str(self._client.base_url))
        self.sdk_version = str(anthropic.__version__)
        self.is_fast = http is not None
        self.is_cloud = self._cloud is not None
        self.service = "Anthropic's API" if self._cloud is None else self._cloud.title
        self.counts_tokens = self._cloud is None or self._cloud.counts_tokens
        self._closed = False

    def check(self, call: Call) -> None:
        """Raises InvalidOptionError for an option that the installed SDK doesn't take, or a model that the
        cloud can't have, PaidCallBlockedError where the switch forbids this endpoint."""
        if self._cloud is not None and self._cloud.is_strange(call.model, self._address):
            raise InvalidOptionError(
                f"{self._cloud.title} has no model {call.model!r}. {self._cloud.naming} "
                f"What an alias means, {settings.alias_variable(settings.alias_of(call.model))} says."
            )
        self._guard()
        self._check_key()
        refused = sorted(set(call.options) - self._taken)
        if refused:
            raise InvalidOptionError(
                f"Option {refused[0]!r} is not taken by the installed anthropic SDK "
                f"{self.sdk_version}. Leave it out, or install a version that has it."
            )

    def check_credentials(self) -> None:
        """Raises MissingCredentialsError where the SDK found neither a key, a token nor a profile, and
        PaidCallBlockedError where the switch forbids to look for them."""
        if self._cloud is not None:
            self._guard_look_up()
            if not clouds.finds_credentials(self._cloud, self._client):
                text = f"No credentials were found for {self._cloud.title}"
                raise MissingCredentialsError(text, advice=self._cloud.advice)
            return
        self._check_key()
        found = (self._client.api_key, self._client.auth_token, getattr(self._client, "credentials", None))
        headers = {name.lower() for name in self._client._custom_headers}
        if not any(found) and not headers & {"x-api-key", "authorization"}:
            raise MissingCredentialsError("No credentials were found")

    def _check_key(self) -> None:
        # HTTP's own error would be taken for one of the network, and the request tried again.
        for name in settings.CREDENTIALS if self._cloud is None else ():
            key = getattr(self._client, name.partition("_")[2].lower()) or ""
            if not key.isprintable():
                raise AuthenticationError(
                    f"The key has a line break in it, or another control character ({name})"
                )

    async def attempt(self, call: Call, meter: Meter) -> Reply:
        """One request. Raises CallError; every other exception is a fault of this package."""
        meter.reader = self._new_reader(meter)
        try:
            with _Translation(self, meter):
                with anyio.move_on_after(self._silence) as watch:
                    return await self._exchange(call, watch, meter)
                if meter.reader.complete:
                    return meter.reader.reply(None)
                raise self._silent()
        finally:
            meter.settle(call.max_tokens, not meter.reader.complete and thinks(call.model, call.options))

    async def probe(self, model: str, meter: Meter) -> None:
        """A request that costs nothing: counts the tokens of one word. Raises CallError."""
        self._guard()
        word = [{"role": "user", "content": "Hello"}]
        with _Translation(self, meter):
            with anyio.move_on_after(self._silence):
                count = self._client.messages.with_raw_response.count_tokens
                answer = await count(model=model, messages=word)
                meter.headers = _plain(answer.headers)
                _expect_a_count(parsed(answer.http_response.text))
                return
            raise self._silent()

    def _new_reader(self, meter: Meter) -> Reader:
        if not self._stream:
            return BodyReader()
        return StreamReader(meter.on_text, None if self._cloud is None else self._cloud.decoder())

    def _silent(self) -> SilenceError:
        return SilenceError(f"The server was silent for {self._silence:g} s")

    def hide_credentials(self, error: CallError, others: Tuple[str, ...] = ()) -> None:
        """Servers repeat in their errors what they were sent."""
        own = (getattr(self._client, name, None) for name in ("api_key", "auth_token"))
        for secret in (*own, *others):
            # Without the newline that a file's end may have left on it, which a message shows as two letters.
            secret = (secret or "").strip()
            # A shorter one is a placeholder, and stands in ordinary words too.
            if len(secret) >= _SHORTEST_SECRET:
                error.message = error.message.replace(secret, "***")
        error.args = (error.message,)

    async def _exchange(self, call: Call, watch: anyio.CancelScope, meter: Meter) -> Reply:
        meter.in_doubt = True
        response = await self._wire.send(request_fields(call, self._stream))
        try:
            await self._begin(response, meter)
            reader, left = meter.reader, most_bytes(call.max_tokens)
            async for chunk in response.aiter_bytes():
                left -= len(chunk)
                if not reader.complete:
                    reader.feed(chunk)
                    if left < 0 and not reader.complete:
                        raise _too_large(call.max_tokens)
                    watch.deadline = anyio.current_time() + (
                        _END_OF_BODY_SECONDS if reader.complete else self._silence
                    )
        except CallError as error:
            error.request_id = error.request_id or request_id(meter.headers)
            raise
        finally:
            await response.aclose()
        return meter.reader.reply(request_id(meter.headers))

    async def _begin(self, response: Any, meter: Meter) -> None:
        self._note(response, meter)
        if response.status_code >= 400:
            meter.in_doubt = False
            text = (await response.aread()).decode("utf-8", "replace")
            raise from_status(response.status_code, parsed(text), meter.headers, time.time())
        self._expect_media_type(meter.headers.get("content-type", ""), meter)
        if meter.on_begin is not None:
            meter.on_begin()

    def _note(self, response: Any, meter: Meter) -> None:
        meter.headers = _plain(response.headers)
        if self._cloud is not None:
            meter.secrets = _secrets(_plain(response.request.headers))

    def _expect_media_type(self, given: str, meter: Meter) -> None:
        events = EVENTS_MEDIA_TYPE if self._cloud is None else self._cloud.media_type
        wanted = events if self._stream else _ONE_PIECE
        if self._stream and given.lower().startswith(_ONE_PIECE):
            # Some gateways give the answer in one piece where a stream was asked for, and it is paid for.
            meter.reader = BodyReader()
        elif not given.lower().startswith(wanted):
            raise BadReplyError(f"The server answered with {given or 'no content type'}, not {wanted}")

    def translated(self, error: BaseException, meter: Meter) -> Optional[CallError]:
        """What an error of the SDK, of HTTP or of the network is to a caller; None for any other."""
        if isinstance(error, self._sdk.APIStatusError):
            self._note(error.response, meter)
            meter.in_doubt = False
            body = error.body if error.body is not None else error.message
            return from_status(error.status_code, body, meter.headers, time.time())
        if isinstance(error, self._broken):
            meter.in_doubt = meter.in_doubt and not was_never_connected(error)
            reason = redact(str(error.__cause__ or error)) or type(error).__name__
            return ConnectionFailedError(f"The connection to {self.base_url} failed: {reason}")
        if isinstance(error, TypeError) and "authentication method" in str(error):
            meter.in_doubt = False
            return MissingCredentialsError("No credentials were found")
        if isinstance(error, RuntimeError) and self._closed:
            # The client sends nothing more: a call that waited for its turn is too late.
            meter.in_doubt = False
            return ClosedError("The orchestrator was closed during the call")
        if self._cloud is not None:
            found = clouds.lookup_error(self._cloud, error)
            if found is not None:
                # Nothing is sent without credentials.
                meter.in_doubt = False
                return found
        return None

    def advise(self, error: CallError) -> None:
        """Puts what this endpoint makes likely into what is to be done about an error."""
        if self._cloud is None and isinstance(error, ModelNotFoundError) and _has_version(self.base_url):
            error.advice = "Leave the /v1 out of the address (ANTHROPIC_BASE_URL): the SDK adds it."
        if self._cloud is not None:
            # AWS answers 403 to credentials that are wrong or out of date.
            if isinstance(error, (AuthenticationError, PermissionDeniedError)):
                error.advice = self._cloud.advice
            elif isinstance(error, (ModelNotFoundError, RequestRefusedError)):
                error.advice = f"{error.advice} {self._cloud.naming}"

    def _guard(self) -> None:
        """Raises PaidCallBlockedError where the switch forbids this endpoint, or a look-up of credentials."""
        if settings.loopback_only() and not _is_on_loopback(self.base_url):
            raise PaidCallBlockedError(
                f"Calls to {self.base_url} are switched off by CLAUDE_FORCE_LOOPBACK_ONLY"
            )
        self._guard_look_up()

    def _guard_look_up(self) -> None:
        if self._cloud is None or not settings.loopback_only():
            return
        if clouds.looks_elsewhere(self._cloud, self._client, _is_on_loopback):
            raise PaidCallBlockedError(
                f"Credentials for {self._cloud.title} would be looked for on other machines, which is "
                "switched off by CLAUDE_FORCE_LOOPBACK_ONLY",
                advice="Put them into the environment, or unset CLAUDE_FORCE_LOOPBACK_ONLY.",
            )

    async def close(self) -> None:
        self._closed = True
        await self._client.close()


class _Translation:
    """Errors leave it as CallErrors, with no credentials in them."""

    # Not a generator, which is three objects more for the garbage collector to walk in each call.
    __slots__ = ("_meter", "_transport")

    def __init__(self, transport: Transport, meter: Meter) -> None:
        self._transport, self._meter = transport, meter

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: object
    ) -> None:
        if isinstance(error, CallError):
            self._transport.advise(error)
            self._transport.hide_credentials(error, self._meter.secrets)
        elif error is not None:
            found = self._transport.translated(error, self._meter)
            if found is not None:
                self._transport.advise(found)
                self._transport.hide_credentials(found, self._meter.secrets)
                # The SDK's error for a status repeats what the server said, unhidden, and tells nothing more.
                raise found from (error if found.status is None else None)


def import_sdk() -> Any:
    """The module `anthropic`. Its first import takes most of a second."""
    import anthropic

    return anthropic


def most_bytes(max_tokens: int) -> int:
    """What an answer may have: far more than any that is one, and so little that many without end at the
    same time do not fill the memory."""
    return min(_BESIDE + _PER_TOKEN * max_tokens, _MOST_OF_ALL)


def _too_large(max_tokens: int) -> AnswerTooLargeError:
    size = most_bytes(max_tokens) >> 20
    return AnswerTooLargeError(f"The answer to max_tokens={max_tokens} had more than {size} MB")


def _plain(headers: Any) -> Dict[str, str]:
    # Read once: each look-up in the library's own type costs as much as the whole of this.
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}


def _expect_a_count(body: Any) -> None:
    if not isinstance(body, dict) or not isinstance(body.get("input_tokens"), int):
        raise BadReplyError("The server answered, but not with a count of tokens")


def _check_scheme(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(url)


def _has_version(url: str) -> bool:
    return urlsplit(url).path.rstrip("/").endswith("/v1")


def _shown(url: str) -> str:
    """`url` without the name and the password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _is_on_loopback(url: str) -> bool:
    return _is_loopback(urlsplit(url).hostname or "")


def _secrets(sent: Mapping[str, str]) -> Tuple[str, ...]:
    """What the headers of a request hold of them: a token, or a signature and the token that it goes with."""
    named = (sent.get("authorization", "").rpartition(" ")[2].rpartition("Signature=")[2],)
    return (*named, sent.get("x-amz-security-token", ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
