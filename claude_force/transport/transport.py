"""Makes one attempt: sends a call, watches for silence, reads the answer and types every error."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import Optional, Type

import anyio

from .. import settings
from ..agents.models import thinks
from ..errors import (
    AnswerTooLargeError,
    BadReplyError,
    CallError,
    ClaudeForceError,
    ClosedError,
    ConfigurationError,
    ConnectionFailedError,
    InputError,
    InvalidOptionError,
    PaidCallBlockedError,
    SilenceError,
)
from ..formatting import Wording
from ..types import Call, Reply
from .error_mapping import from_status, note_headers, parsed, request_id
from .events import EventDecoder, Events
from .messages import StreamReader, answer_limit, reader_of
from .network import (
    NoDescriptorError,
    certificate_advice,
    check_certificates,
    check_custom_headers,
    is_on_loopback,
    is_out_of_descriptors,
    shown_address,
)
from .protocol import AttemptRecord, Response, Sender
from .redaction import Redactor, redact
from .request import check_conversation, check_fields, request_fields
from .services import chosen_service

# How long to wait after the stop reason, when only more usage and the end of the body can follow.
_END_OF_BODY_SECONDS = 0.5


class Transport:
    """Makes attempts at one endpoint. Bound to the event loop that first uses it.

    Args:
        api_key, base_url: None to take them from the environment, as the official SDK does.
        silence_seconds: how long nothing may arrive, before the first byte and between any two.
        stream: whether to ask for streamed answers; without them silence looks the same as work.
        connections: the most at a time.
        quiet_seconds: how long nothing but pings may arrive.

    >>> transport = Transport(None, None, silence_seconds=30, stream=True, connections=10)
    >>> reply = await transport.attempt(call, AttemptRecord())
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
        self._silence = float("inf") if silence_seconds is None else silence_seconds
        self._stream, self._quiet = stream, quiet_seconds
        self._sender = sender = make_sender(api_key, base_url, connections)
        self.redactor = Redactor(sender.secrets)
        self.base_url = shown_address(sender.base_url)
        self.service, self._address = sender.service, base_url
        self._closed = False

    def check(self, call: Call) -> None:
        """Raises InvalidOptionError for an unknown option or a model that the service can't have, and
        PaidCallBlockedError if this endpoint is switched off."""
        if self.service.lacks_model(call.model, self._address):
            raise InvalidOptionError(
                f"{self.service.title} has no model {call.model!r}. {self.service.naming} "
                f"What an alias means, {settings.alias_variable(settings.alias_of(call.model))} says."
            )
        self._guard()
        self._sender.check()
        check_fields(call.options)
        if call.conversation is not None:
            check_conversation(call.options)

    def check_credentials(self) -> None:
        """Raises MissingCredentialsError if there is neither a key, a token nor a profile, and
        PaidCallBlockedError if looking for them is switched off."""
        self._sender.check_credentials()

    async def attempt(self, call: Call, record: AttemptRecord) -> Reply:
        """Sends one request. Raises CallError; any other exception is a bug."""
        if self._stream:
            record.reader = self._new_stream(call, record)
        try:
            with _Translation(self, record):
                with anyio.move_on_after(self._silence) as watch:
                    record.in_doubt = True
                    try:
                        response = await self._sender.send(request_fields(call, self._stream))
                    except (CallError, InputError):
                        record.in_doubt = False
                        raise
                    try:
                        await self._read(call, response, watch, record)
                        return self._reply(call, record)
                    finally:
                        with suppress(*self._sender.connection_errors):
                            await response.aclose()
                if record.reader.is_whole():
                    return self._reply(call, record)
                raise self._silent(record.only_pings)
        except ClaudeForceError:
            # A connection that `close` has closed is no failure of the server.
            record.hung_up = self._closed
            raise
        except BaseException:
            # Cancelled, or ended by what a callback raised.
            record.hung_up = True
            raise
        finally:
            record.settle(call.max_tokens, not record.reader.stopped and thinks(call.model, call.options))
            record.model = self.redactor.model(record.model, call.model, record.secrets)
            record.usage = record.usage and self.redactor.usage(record.usage, record.secrets)

    async def probe(self, model: str, record: AttemptRecord) -> None:
        """Sends a request that costs nothing: counts the tokens of one word. Raises CallError."""
        self._guard()
        with _Translation(self, record):
            with anyio.move_on_after(self._silence):
                word = [{"role": "user", "content": "Hello"}]
                response = await self._sender.count_tokens({"model": model, "messages": word})
                try:
                    await self._expect_success(response, record)
                    _expect_a_count(await response.aread())
                    return
                finally:
                    await response.aclose()
            raise self._silent()

    async def close(self) -> None:
        self._closed = True
        await self._sender.close()

    def _new_stream(self, call: Call, record: AttemptRecord, events: bool = False) -> StreamReader:
        """A reader for this service's streams, or for server-sent `events` in any case."""
        decoder: Events = EventDecoder() if events else self.service.decoder()
        if call.conversation is not None:
            # Other calls don't need the content.
            from .content import ContentEvents

            decoder = ContentEvents(decoder)
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

    def _reply(self, call: Call, record: AttemptRecord) -> Reply:
        reply = record.reader.reply(request_id(record.headers))
        if call.conversation is not None:
            from .content import with_content

            reply = with_content(reply, record.reader)
        return self.redactor.clean_reply(reply, call.model, record.secrets)

    async def _read(
        self, call: Call, response: Response, watch: anyio.CancelScope, record: AttemptRecord
    ) -> None:
        await self._expect_success(response, record)
        try:
            await self._read_body(call, response, watch, record)
        except self._sender.connection_errors:
            # The answer is complete: a later fault does not matter.
            if not record.reader.is_whole():
                raise

    async def _read_body(
        self, call: Call, response: Response, watch: anyio.CancelScope, record: AttemptRecord
    ) -> None:
        known, left, steps = False, answer_limit(call.max_tokens), 0
        clock = asyncio.get_running_loop().time
        quiet_until = clock() + self._quiet
        async for chunk in response.aiter_bytes():
            if not known:
                known = self._recognise(chunk, call, record)
            reader, left = record.reader, left - len(chunk)
            if reader.complete:
                continue
            stopped = reader.stopped
            reader.feed(chunk)
            if left < 0 and not reader.stopped:
                size = answer_limit(call.max_tokens) >> 20
                raise AnswerTooLargeError(
                    f"The answer to max_tokens={call.max_tokens} had more than {size} MB"
                )
            now = clock()
            if reader.stopped:
                if not stopped:
                    watch.deadline = now + _END_OF_BODY_SECONDS
                reader.complete = reader.complete or left < 0
            elif reader.steps != steps:
                steps, quiet_until = reader.steps, now + self._quiet
                watch.deadline, record.only_pings = now + self._silence, False
            else:
                # Pings alone don't keep an attempt alive forever.
                record.only_pings = quiet_until < now + self._silence
                watch.deadline = min(quiet_until, now + self._silence)
        record.reader.end()

    async def _expect_success(self, response: Response, record: AttemptRecord) -> None:
        record.headers, record.secrets = response.headers, response.secrets
        if not 200 <= response.status_code < 300:
            record.in_doubt = False
            text = (await response.aread()).decode("utf-8", "replace")
            raise from_status(response.status_code, parsed(text), record.headers, time.time())

    def _recognise(self, first: bytes, call: Call, record: AttemptRecord) -> bool:
        """Chooses the reader by the first piece of the body; False while only whitespace has arrived."""
        label = record.headers.get("content-type", "")
        new_stream = partial(self._new_stream, call, record, True)
        found = reader_of(first, label, record.reader, new_stream, self.service.media_type)
        if found is None:
            return False
        record.reader = found
        if record.on_begin is not None:
            record.on_begin()
        return True

    def translate(self, error: BaseException, record: AttemptRecord) -> Optional[CallError]:
        """The CallError for a failed or closed connection; None for any other error."""
        if isinstance(error, self._sender.connection_errors):
            return self._connection_error(error, record)
        if isinstance(error, RuntimeError) and self._closed:
            # Without an answer, the call was still waiting for its turn.
            record.in_doubt = record.in_doubt and bool(record.headers)
            return ClosedError("The orchestrator was closed during the call")
        return None

    def _connection_error(self, error: BaseException, record: AttemptRecord) -> CallError:
        if is_out_of_descriptors(error):
            record.in_doubt = False
            return NoDescriptorError(
                f"No connection to {self.base_url} could be opened: too many files are open"
            )
        # aiohttp is loaded with the first connection.
        from .http import failure_text, was_never_connected

        never_connected = was_never_connected(error)
        record.in_doubt = record.in_doubt and not never_connected
        reason = redact(failure_text(error)) or type(error).__name__
        failed = ConnectionFailedError(
            f"The connection to {self.base_url} failed: {reason}", advice=certificate_advice(reason)
        )
        failed.never_connected = never_connected
        return failed

    def clean(self, error: CallError, record: AttemptRecord) -> None:
        """Adapts an error's advice to this endpoint and removes credentials."""
        self.service.advise(error, self.base_url)
        self.redactor.clean_error(error, record.secrets)

    def _guard(self) -> None:
        """Raises PaidCallBlockedError if only servers on loopback may be called, and this is another."""
        if settings.loopback_only() and not is_on_loopback(self.base_url):
            raise PaidCallBlockedError(
                f"Calls to {self.base_url} are switched off by CLAUDE_FORCE_LOOPBACK_ONLY"
            )


def make_sender(api_key: Optional[str], base_url: Optional[str], connections: int) -> Sender:
    """Chooses how to send: over aiohttp, or through the SDK for a cloud or a profile.

    Imports what that needs: 0.2 s for aiohttp, most of a second for the SDK.
    Raises InvalidOptionError for an address that can't be read, ConfigurationError for certificates.
    """
    service = chosen_service(api_key)
    check_certificates(service.is_cloud)
    check_custom_headers()
    try:
        if not service.is_cloud and not settings.uses_sdk_profile(api_key):
            from .http import HttpSender

            return HttpSender(api_key, base_url, connections)
        from .sdk import SdkSender

        return SdkSender(service, api_key, base_url, connections)
    except ConfigurationError:
        raise
    except ValueError:
        # Its text repeats the address, which may hold a password.
        text = (
            "The address of the endpoint, or of a proxy, can't be read. Correct ANTHROPIC_BASE_URL (for "
            "a cloud its own){} or HTTPS_PROXY: write https://HOST or http://HOST:PORT."
        )
        raise InvalidOptionError(Wording(text.format(", base_url"), text.format(""))) from None


class _Translation:
    """Turns errors into CallErrors without credentials."""

    # A class, not a generator: three objects fewer for the garbage collector in each call.
    __slots__ = ("_record", "_transport")

    def __init__(self, transport: Transport, record: AttemptRecord) -> None:
        self._transport, self._record = transport, record

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: object
    ) -> None:
        if error is None:
            return
        if isinstance(error, CallError):
            note_headers(error, self._record.headers, time.time())
            self._transport.clean(error, self._record)
            return
        found = self._transport.translate(error, self._record)
        if found is not None:
            self._transport.clean(found, self._record)
            raise found from error


def _expect_a_count(body: bytes) -> None:
    found = parsed(body.decode("utf-8", "replace"))
    if not isinstance(found, dict) or not isinstance(found.get("input_tokens"), int):
        raise BadReplyError("The server answered, but not with a count of tokens")
