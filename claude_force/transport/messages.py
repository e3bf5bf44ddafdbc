"""Puts answers together, streamed or in one piece, and chooses the reader by their first bytes. Pure.

Source of the rules: the Messages API reference, chapters "Create a Message" and "Streaming messages". Media
types are not trusted: gateways label streams as JSON or as plain text, and JSON as a stream. JSON begins with
a brace or a bracket, which begins no line of a stream, and no frame of an AWS event stream, whose first four
bytes would be its size: two gigabytes.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, Match, Optional, Union

from ..errors import BadReplyError, CallError, ConnectionFailedError
from ..formatting import byte_size
from ..types import Reply, Usage
from .error_mapping import from_body, is_error, readable
from .events import EVENTS_MEDIA_TYPE, EventDecoder, Events, json_object
from .usage import merged_usage, read_usage

_MOST_TOKENS = 10**8
# Bytes of an answer. A token is a few letters inside a stream event of 200 bytes or more. Results of server
# tools come on top; they have to fit into a later request of at most 32 MB.
_PER_TOKEN, _BESIDE, _MOST_OF_ALL = 2**10, 2**25, 2**28
_BLANK = b" \t\r\n\xef\xbb\xbf"
_FIELDS = (b"event:", b"data:", b"id:", b"retry:")
_MOST_OF_A_PAGE = 4096
# Parts of an answer that are billed for more than their bytes.
_THINKING = ("thinking", "redacted_thinking", "thinking_delta", "signature_delta")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_CUT_OFF = "The server closed the connection before the answer was whole"


class StreamReader:
    """Assembles an answer from its events. Calls `on_text` with each piece of text.

    Attributes:
        stopped: the stop reason has arrived, so the answer is complete; only more usage can follow.
        complete: nothing that matters can follow.
        refused: the stream began with an error event, so nothing is billed.
        events: decodes them.
        steps: number of events that show progress; pings, empty pieces and unknown events don't.
    """

    def __init__(
        self, on_text: Optional[Callable[[str], None]] = None, decoder: Optional[Events] = None
    ) -> None:
        self.events, self._on_text = decoder or EventDecoder(), on_text
        self._message: Dict[str, Any] = {}
        self._usage: Dict[str, Any] = {}
        self._texts: List[str] = []
        self._held_surrogate = ""
        self._unshown_bytes = 0
        self._open_blocks, self._thought, self._used_server_tool = 0, False, False
        self._is_counted = False
        self.stopped: bool = False
        self.complete: bool = False
        self.refused: bool = False
        self.steps: int = 0

    def feed(self, chunk: bytes) -> None:
        """Raises CallError for an error event, BadReplyError for what is not an event of this API."""
        if self.complete:
            return
        try:
            for event in self.events.feed(chunk):
                self._take(event)
                if self.complete:
                    return
        except CallError:
            if not self.stopped:
                raise
            # The answer is complete, so this is not part of it.
            self.complete = True

    def end(self) -> None:
        """Call at the end of the body. The last event may lack the empty line that ends it."""
        if not self.complete:
            with suppress(BadReplyError):
                self.feed(b"\n\n")

    def _take(self, event: Dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            self._append(_member(event, "delta"))
        elif kind == "content_block_start":
            self.steps += 1
            self._begin_block(_member(event, "content_block"))
        elif kind == "content_block_stop":
            self.steps += 1
            self._open_blocks -= 1
        elif kind == "message_start":
            self.steps += 1
            self._message = dict(_member(event, "message"))
            self._usage = merged_usage(self._usage, self._message.get("usage"))
        elif kind == "message_delta":
            self.steps += 1
            self._update(event)
        elif kind == "message_stop":
            self.stopped = self.complete = True
        elif kind == "error":
            self.refused = not self._message
            raise from_body(event, "The answer broke off")

    def _begin_block(self, block: Dict[str, Any]) -> None:
        self._open_blocks += 1
        self._used_server_tool = self._used_server_tool or block.get("type") == "server_tool_use"
        self._append(block)

    def _append(self, part: Dict[str, Any]) -> None:
        text = _text(part)
        if not text:
            self._thought = self._thought or part.get("type") in _THINKING
            size = _unshown_bytes(part)
            self._unshown_bytes += size
            self.steps += size > 0
            return
        self.steps += 1
        if self._held_surrogate or "\ud800" <= text[-1] <= "\udbff":
            text = self._with_held_surrogate(text)
        if text:
            text = replace_surrogates(text)
            self._texts.append(text)
            if self._on_text is not None:
                self._on_text(text)

    def _with_held_surrogate(self, text: str) -> str:
        """Prepends the surrogate that the last piece ended with, and holds one back that ends this piece."""
        text, self._held_surrogate = join_surrogates(self._held_surrogate + text), ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._held_surrogate = text[:-1], text[-1]
        return text

    def _update(self, event: Dict[str, Any]) -> None:
        self._message.update(_member(event, "delta"))
        # The output tokens of the first event are only the count so far.
        self._is_counted |= _object(event.get("usage")).get("output_tokens") is not None
        self._usage = merged_usage(self._usage, event.get("usage"))
        if self._message.get("stop_reason") is not None:
            self.stopped = True

    @property
    def model(self) -> str:
        """The model that answers; "" until it is known."""
        return _model(self._message)

    def billed(self, most: int = _MOST_TOKENS, thinks: bool = False) -> Optional[Usage]:
        """The most that can have been billed so far; None before the answer began.

        A partial answer has at most one token per byte received, and at most `most`. Thinking is not sent, so
        an answer that may have been in it (`thinks`) when it broke off counts as `most`: with tools, it may
        come between two blocks too. What a server tool added to the
        prompt is unknown until the end.
        """
        if not self._message:
            return None
        if self.stopped and self._is_counted:
            return read_usage(self._usage)
        usage = read_usage(self._usage, is_final=False)
        if self.stopped:
            return replace(usage, is_known=False)
        if self._used_server_tool:
            usage = replace(usage, is_known=False)
        if self._thought or (thinks and self._open_blocks <= 0):
            return replace(usage, output_tokens=max(usage.output_tokens, most))
        size = self._unshown_bytes + sum(map(byte_size, self._texts))
        return replace(usage, output_tokens=max(usage.output_tokens, min(size, most)))

    def is_whole(self) -> bool:
        """Whether the answer is complete, however its connection ended."""
        return self.stopped

    def reply(self, request_id: Optional[str]) -> Reply:
        """The assembled reply. Raises ConnectionFailedError if the stream ended before its stop reason."""
        if not self.stopped:
            raise ConnectionFailedError(_CUT_OFF, request_id=request_id)
        if self._held_surrogate:
            # A surrogate whose other half never arrived.
            held, self._held_surrogate = replace_surrogates(self._held_surrogate), ""
            self._texts.append(held)
            if self._on_text is not None:
                self._on_text(held)
        usage = self.billed() or Usage(is_known=False)
        return _reply(self._message, "".join(self._texts), usage, request_id)


class BodyReader:
    """Collects an answer that was not streamed; it can be read only once all of it has arrived.

    Attributes:
        body: what has arrived.
    """

    stopped: bool = False
    complete: bool = False
    refused: bool = False

    def __init__(self) -> None:
        self.body = bytearray()
        self._usage: Optional[Usage] = None
        self.model: str = ""
        self.steps: int = 0

    def feed(self, chunk: bytes) -> None:
        self.body += chunk
        # Gateways send whitespace to keep the connection alive.
        self.steps += not chunk.isspace()

    def end(self) -> None:
        """Call at the end of the body."""

    def billed(self, most: int = _MOST_TOKENS, thinks: bool = False) -> Optional[Usage]:
        """The usage of the answer; None until `reply` has read it."""
        return self._usage

    def is_whole(self) -> bool:
        """Whether the answer is complete, however its connection ended."""
        try:
            return isinstance(json.loads(self.body), dict)
        except (ValueError, RecursionError):
            return False

    def reply(self, request_id: Optional[str]) -> Reply:
        """The reply in the body. Raises the error it holds, or BadReplyError if it is not a message."""
        message = json_object(self.body)
        self.refused = is_error(message)
        if self.refused:
            raise from_body(message)
        self._usage = usage = read_usage(message.get("usage"))
        self.model = _model(message)
        blocks = message.get("content")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise BadReplyError("The answer has no list of content blocks", request_id=request_id)
        text = "".join(_text(block) for block in blocks if block.get("type") == "text")
        return _reply(message, replace_surrogates(join_surrogates(text)), usage, request_id)


Reader = Union[StreamReader, BodyReader]


def reader_of(
    first: bytes, label: str, expected: Reader, new_stream: Callable[[], StreamReader], events: str
) -> Optional[Reader]:
    """The reader for an answer with the media type `label` that begins with `first`; None while only
    whitespace has arrived. `events` is the media type of this service's streams.

    Raises BadReplyError for anything but a stream or JSON.
    """
    start = first.lstrip(_BLANK)
    if not start:
        return None
    if start[:1] in (b"{", b"["):
        return expected if isinstance(expected, BodyReader) else BodyReader()
    if events != EVENTS_MEDIA_TYPE and label.lower().startswith(events):
        return expected
    if start[:1] != b"<" and (label.lower().startswith(EVENTS_MEDIA_TYPE) or _is_stream(start)):
        plain = isinstance(expected, BodyReader) or events != EVENTS_MEDIA_TYPE
        return new_stream() if plain else expected
    wanted = events if isinstance(expected, StreamReader) else "application/json"
    words = readable(start[:_MOST_OF_A_PAGE].decode("utf-8", "replace"))
    quoted = f": {words}" if words else ""
    if label.lower().startswith(wanted):
        raise BadReplyError(f"The answer is labelled {label}, and it is not{quoted}")
    raise BadReplyError(f"The server answered with {label or 'no content type'}, not {wanted}{quoted}")


def _is_stream(start: bytes) -> bool:
    # The first piece may end within a field's name.
    return start[:1] == b":" or any(field.startswith(start[: len(field)]) for field in _FIELDS)


def answer_limit(max_tokens: int) -> int:
    """The most bytes of an answer: far above any real one, and low enough that many endless ones at a time
    don't fill the memory."""
    return min(_BESIDE + _PER_TOKEN * max_tokens, _MOST_OF_ALL)


def join_surrogates(text: str) -> str:
    """Replaces surrogate pairs by their characters: JSON may split a pair over two strings."""
    return text if text.isascii() else _SURROGATE_PAIR.sub(_character, text)


def replace_surrogates(text: str) -> str:
    """Replaces lone surrogates, which have no UTF-8, by U+FFFD."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def _character(pair: Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _object(value: Any) -> Dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(block: Dict[str, Any]) -> str:
    value = block.get("text")
    return value if isinstance(value, str) else ""


def _unshown_bytes(part: Dict[str, Any]) -> int:
    """Bytes that are billed but not text of the answer: thinking, a tool's input."""
    return sum(byte_size(one) for name, one in part.items() if isinstance(one, str) and name != "type")


def _reply(message: Dict[str, Any], text: str, usage: Usage, request_id: Optional[str]) -> Reply:
    stop_reason = message.get("stop_reason")
    return Reply(
        text=text,
        model=_model(message),
        usage=usage,
        stop_reason=stop_reason if isinstance(stop_reason, str) else None,
        request_id=request_id,
    )


def _model(message: Mapping[str, Any]) -> str:
    return str(message.get("model") or "")


def _member(event: Dict[str, Any], name: str) -> Dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise BadReplyError(f"A {event.get('type')} event of the stream has no {name}")
    return value
