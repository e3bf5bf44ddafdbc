"""One attempt on the wire, through the official SDK: the only file that imports `anthropic`.

The SDK finds credentials, endpoint, proxies and custom headers; its own retries and timeouts are off.
Answers are read from the raw response, because the SDK's event objects cost several times as much
as the answer's own bytes.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Any, Dict, Mapping, Optional, Tuple, Type
from urllib.parse import urlsplit

import anyio

from .. import settings
from ..advice import Wording
from ..agents.thinking import thinks
from ..errors import (
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
from .addresses import check_scheme, has_version, is_on_loopback, shown_address
from .answer_body import most_bytes, reader_of, too_large
from .attempt_record import AttemptRecord
from .certificates import advice_about, check_certificates
from .client import address_errors, connection_errors, make_client, make_http, was_never_connected
from .descriptors import NoDescriptorError, is_none_left
from .error_mapping import from_status, note_headers, parsed, redact, request_id
from .messages import EVENTS_MEDIA_TYPE, BodyReader, StreamReader, request_fields
from .redaction import Redactor, secrets_of
from .wire import Wire

# After the stop reason only more usage and the end of the body are due: not worth more waiting than this.
_END_OF_BODY_SECONDS = 0.5


class Transport:
    """A pool of connections to one endpoint, bound to the event loop that first uses it.

    `silence_seconds` bounds the time in which nothing arrives: until the first byte, then between any two.
    `quiet_seconds` bounds the time in which nothing but pings does.
    """

    def __init__(
        self,
        api_key: Optional[str],
        base_url: Optional[str],
        silence_seconds: Optional[float],
        stream: bool,
        connections: int,
        quiet_seconds: float = settings.QUIET_SECONDS,
    ) -> None:
        anthropic, self._cloud = import_sdk(), clouds.chosen(api_key)
        self._silence = float("inf") if silence_seconds is None else silence_seconds
        self._stream, self._address, self._quiet = stream, base_url, quiet_seconds
        self._sdk = anthropic
        check_certificates(self._cloud is not None)
        try:
            http = make_http(anthropic, connections)
            self._client = make_client(anthropic, api_key, base_url, http, self._cloud)
            if http is not None and urlsplit(str(self._client.base_url)).username is not None:
                # aiohttp takes no name and password in an address beside a header that has them.
                http, self._client = None, make_client(anthropic, api_key, base_url, None, self._cloud)
            check_scheme(str(self._client.base_url))
        except address_errors():
            # What they say repeats the address, and with it the password that it may hold.
            text = (
                "The address of the endpoint, or of a proxy, can't be read. Correct ANTHROPIC_BASE_URL (for "
                "a cloud its own){} or HTTPS_PROXY: write https://HOST or http://HOST:PORT."
            )
            raise InvalidOptionError(Wording(text.format(", base_url"), text.format(""))) from None
        self._wire = Wire(self._client, http, steady=self._cloud is None)
        self.redactor = Redactor(secrets_of(self._client))
        # Of a cloud, or of a profile: a token, or a signature, that changes.
        self._signs = self._cloud is not None or getattr(self._client, "credentials", None) is not None
        self._broken = connection_errors(anthropic)
        self.base_url = shown_address(str(self._client.base_url))
        self.sdk_version = str(anthropic.__version__)
        self.is_fast = http is not None
        self.is_cloud = self._cloud is not None
        self.service = "Anthropic's API" if self._cloud is None else self._cloud.title
        self.counts_tokens = self._cloud is None or self._cloud.counts_tokens
        self._closed = False

    def check(self, call: Call) -> None:
        """Raises InvalidOptionError for an option that nobody knows, or a model that the cloud can't have;
        PaidCallBlockedError where the switch forbids this endpoint."""
        if self._cloud is not None and self._cloud.is_strange(call.model, self._address):
            raise InvalidOptionError(
                f"{self._cloud.title} has no model {call.model!r}. {self._cloud.naming} "
                f"What an alias means, {settings.alias_variable(settings.alias_of(call.model))} says."
            )
        self._guard()
        self._check_key()
        refused = sorted(name for name in call.options if not self._wire.takes(name))
        if refused:
            raise InvalidOptionError(
                f"Option {refused[0]!r} is none of the Messages API, as far as anthropic SDK "
                f"{self.sdk_version} knows it. Leave it out, or install a version that has it."
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

    async def attempt(self, call: Call, record: AttemptRecord) -> Reply:
        """One request. Raises CallError; every other exception is a fault of this package."""
        record.reader = self._new_stream(record) if self._stream else BodyReader()
        try:
            with _Translation(self, record):
                with anyio.move_on_after(self._silence) as watch:
                    return await self._exchange(call, watch, record)
                if record.reader.is_whole():
                    return self._reply(call, record)
                raise self._silent(record.only_pings)
        except asyncio.CancelledError:
            record.hung_up = True
            raise
        finally:
            record.settle(call.max_tokens, not record.reader.stopped and thinks(call.model, call.options))
            record.model = self.redactor.model(record.model, call.model, record.secrets)
            record.usage = record.usage and self.redactor.usage(record.usage, record.secrets)

    async def probe(self, model: str, record: AttemptRecord) -> None:
        """A request that costs nothing: counts the tokens of one word. Raises CallError."""
        self._guard()
        word = [{"role": "user", "content": "Hello"}]
        with _Translation(self, record):
            with anyio.move_on_after(self._silence):
                count = self._client.messages.with_raw_response.count_tokens
                answer = await count(model=model, messages=word, extra_headers=self._wire.version())
                record.headers = _plain(answer.headers)
                _expect_a_count(parsed(answer.http_response.text))
                return
            raise self._silent()

    def _new_stream(self, record: AttemptRecord, events: bool = False) -> StreamReader:
        """For what this service sends as a stream, or for server-sent `events` in any case."""
        decoder = None if events or self._cloud is None else self._cloud.decoder()
        return StreamReader(record.on_text, decoder)

    def _silent(self, only_pings: bool = False) -> SilenceError:
        if only_pings:
            return SilenceError(
                f"The server sent nothing but pings for {self._quiet:g} s",
                advice=Wording(
                    "Raise quiet_seconds if the model thinks for longer, or try again later.",
                    "Try again later, or ask for less: the model may still have been thinking.",
                ),
            )
        return SilenceError(f"The server was silent for {self._silence:g} s")

    async def _exchange(self, call: Call, watch: anyio.CancelScope, record: AttemptRecord) -> Reply:
        record.in_doubt = True
        response = await self._wire.send(request_fields(call, self._stream))
        try:
            await self._expect_success(response, record)
            try:
                await self._read(call, response, watch, record)
            except self._broken:
                # What breaks after the whole answer has come is no concern of the caller's.
                if not record.reader.is_whole():
                    raise
            return self._reply(call, record)
        finally:
            with suppress(*self._broken):
                await response.aclose()

    def _reply(self, call: Call, record: AttemptRecord) -> Reply:
        reply = record.reader.reply(request_id(record.headers))
        return self.redactor.clean_reply(reply, call.model, record.secrets)

    async def _read(self, call: Call, response: Any, watch: anyio.CancelScope, record: AttemptRecord) -> None:
        known, left, steps = False, most_bytes(call.max_tokens), 0
        quiet_until = anyio.current_time() + self._quiet
        async for chunk in response.aiter_bytes():
            if not known:
                known = self._recognise(chunk, record)
            reader, left = record.reader, left - len(chunk)
            if reader.complete:
                continue
            stopped = reader.stopped
            reader.feed(chunk)
            if left < 0 and not reader.stopped:
                raise too_large(call.max_tokens)
            now = anyio.current_time()
            if reader.stopped:
                if not stopped:
                    watch.deadline = now + _END_OF_BODY_SECONDS
                reader.complete = reader.complete or left < 0
            elif reader.steps != steps:
                steps, quiet_until = reader.steps, now + self._quiet
                watch.deadline, record.only_pings = now + self._silence, False
            else:
                # Signs of life alone are not waited for without end.
                record.only_pings = quiet_until < now + self._silence
                watch.deadline = min(quiet_until, now + self._silence)
        record.reader.end()

    async def _expect_success(self, response: Any, record: AttemptRecord) -> None:
        self._note(response, record)
        if not 200 <= response.status_code < 300:
            record.in_doubt = False
            text = (await response.aread()).decode("utf-8", "replace")
            raise from_status(response.status_code, parsed(text), record.headers, time.time())

    def _note(self, response: Any, record: AttemptRecord) -> None:
        record.headers = _plain(response.headers)
        if self._signs:
            record.secrets = _secrets(_plain(response.request.headers))

    def _recognise(self, first: bytes, record: AttemptRecord) -> bool:
        """Chooses the reader by the first piece of the body; False while nothing but blanks has come."""
        label = record.headers.get("content-type", "")
        events = EVENTS_MEDIA_TYPE if self._cloud is None else self._cloud.media_type
        found = reader_of(first, label, record.reader, partial(self._new_stream, record, True), events)
        if found is None:
            return False
        record.reader = found
        if record.on_begin is not None:
            record.on_begin()
        return True

    def translated(self, error: BaseException, record: AttemptRecord) -> Optional[CallError]:
        """What an error of the SDK, of HTTP or of the network is to a caller; None for any other."""
        if isinstance(error, self._sdk.APIStatusError):
            self._note(error.response, record)
            record.in_doubt = False
            body = error.body if error.body is not None else error.message
            return from_status(error.status_code, body, record.headers, time.time())
        if isinstance(error, self._broken):
            if is_none_left(error):
                record.in_doubt = False
                return NoDescriptorError(
                    f"No connection to {self.base_url} could be opened: too many files are open"
                )
            record.in_doubt = record.in_doubt and not was_never_connected(error)
            reason = redact(str(error.__cause__ or error)) or type(error).__name__
            text = f"The connection to {self.base_url} failed: {reason}"
            failed = ConnectionFailedError(text, advice=advice_about(reason))
            failed.never_connected = was_never_connected(error)
            return failed
        if isinstance(error, TypeError) and "authentication method" in str(error):
            record.in_doubt = False
            return MissingCredentialsError("No credentials were found")
        if isinstance(error, RuntimeError) and self._closed:
            # The client sends nothing more: a call that waited for its turn is too late.
            record.in_doubt = False
            return ClosedError("The orchestrator was closed during the call")
        if self._cloud is not None:
            found = clouds.lookup_error(self._cloud, error)
            if found is not None:
                # Nothing is sent without credentials.
                record.in_doubt = False
                return found
        return None

    def advise(self, error: CallError) -> None:
        """Puts what this endpoint makes likely into what is to be done about an error."""
        if self._cloud is None and isinstance(error, ModelNotFoundError) and has_version(self.base_url):
            error.advice = "Leave the /v1 out of the address (ANTHROPIC_BASE_URL): the SDK adds it."
        if self._cloud is not None:
            # AWS answers 403 to credentials that are wrong or out of date.
            if isinstance(error, (AuthenticationError, PermissionDeniedError)):
                error.advice = self._cloud.advice
            elif isinstance(error, (ModelNotFoundError, RequestRefusedError)):
                error.advice = f"{error.advice} {self._cloud.naming}"

    def _guard(self) -> None:
        """Raises PaidCallBlockedError where the switch forbids this endpoint, or a look-up of credentials."""
        if settings.loopback_only() and not is_on_loopback(self.base_url):
            raise PaidCallBlockedError(
                f"Calls to {self.base_url} are switched off by CLAUDE_FORCE_LOOPBACK_ONLY"
            )
        self._guard_look_up()

    def _guard_look_up(self) -> None:
        if self._cloud is None or not settings.loopback_only():
            return
        if clouds.looks_elsewhere(self._cloud, self._client, is_on_loopback):
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

    def __init__(self, transport: Transport, record: AttemptRecord) -> None:
        self._transport, self._meter = transport, record

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: object
    ) -> None:
        if isinstance(error, CallError):
            note_headers(error, self._meter.headers, time.time())
            self._transport.advise(error)
            self._transport.redactor.clean_error(error, self._meter.secrets)
        elif error is not None:
            found = self._transport.translated(error, self._meter)
            if found is not None:
                self._transport.advise(found)
                self._transport.redactor.clean_error(found, self._meter.secrets)
                # The SDK's error for a status repeats what the server said, unhidden, and tells nothing more.
                raise found from (error if found.status is None else None)


def import_sdk() -> Any:
    """The module `anthropic`. Its first import takes most of a second."""
    import anthropic

    return anthropic


def _plain(headers: Any) -> Dict[str, str]:
    # Read once: each look-up in the library's own type costs as much as the whole of this.
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}


def _expect_a_count(body: Any) -> None:
    if not isinstance(body, dict) or not isinstance(body.get("input_tokens"), int):
        raise BadReplyError("The server answered, but not with a count of tokens")


def _secrets(sent: Mapping[str, str]) -> Tuple[str, ...]:
    """What the headers of a request hold of them: a token, or a signature and the token that it goes with."""
    named = (sent.get("authorization", "").rpartition(" ")[2].rpartition("Signature=")[2],)
    return (*named, sent.get("x-amz-security-token", ""), sent.get("x-api-key", ""))
