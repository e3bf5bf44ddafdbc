"""The Messages API's wire format: what is sent for a call, and how an answer is put together. Pure.

Source of the rules: the Messages API reference, chapters "Create a Message" and "Streaming messages";
the framing of events is the HTML standard's chapter "Server-sent events".
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Protocol, Union

from ..errors import BadReplyError, ConnectionFailedError
from ..types import Call, Reply, Usage
from .faults import from_stream_error
from .forecast import byte_size

_CACHE_CONTROL: Mapping[str, Mapping[str, str]] = {
    "5m": {"type": "ephemeral"},
    "1h": {"type": "ephemeral", "ttl": "1h"},
}
# No prompt or answer has so many; a larger count could not be computed with.
_MOST_TOKENS = 10**12
EVENTS_MEDIA_TYPE = "text/event-stream"
_CUT_OFF = "The server closed the connection before the answer was whole"


def request_fields(call: Call, stream: bool) -> Dict[str, Any]:
    """The body of the request. The cache breakpoint stands on the last block of `system`.

    It is put on the block, not at the top level, because SDK 0.72 has no such field there.
    """
    fields: Dict[str, Any] = dict(call.options)
    fields.update(
        model=call.model,
        max_tokens=call.max_tokens,
        messages=[{"role": "user", "content": call.task}],
        stream=stream,
    )
    if call.system:
        blocks: List[Dict[str, Any]] = [{"type": "text", "text": text} for text in call.system]
        blocks[-1]["cache_control"] = _CACHE_CONTROL[call.cache_ttl]
        fields["system"] = blocks
    return fields


class Events(Protocol):
    """Bytes of a stream in, decoded events out, however the bytes are cut."""

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]: ...


class EventDecoder:
    """Bytes of a server-sent event stream in, decoded events out, however the bytes are cut."""

    def __init__(self) -> None:
        self._rest: List[bytes] = []
        self._name = b""
        self._data: List[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]:
        # Put together once: a line of many pieces would be copied with each of them.
        self._rest.append(chunk)
        if b"\n" not in chunk:
            return
        lines = b"".join(self._rest).split(b"\n")
        self._rest = [lines.pop()]
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
            elif not line:
                name, data, self._name, self._data = self._name, self._data, b"", []
                if data:
                    yield _event(name, _json_object(b"\n".join(data)))


class StreamReader:
    """Assembles the answer from its events; `on_text` is called with each piece of its text."""

    def __init__(
        self, on_text: Optional[Callable[[str], None]] = None, decoder: Optional[Events] = None
    ) -> None:
        self._decoder, self._on_text = decoder or EventDecoder(), on_text
        self._message: Dict[str, Any] = {}
        self._texts: List[str] = []
        self._unshown_bytes = 0
        self.complete: bool = False

    def feed(self, chunk: bytes) -> None:
        """Raises CallError for an error event, BadReplyError for what is no event of this API."""
        if self.complete:
            return
        for event in self._decoder.feed(chunk):
            self._take(event)
            if self.complete:
                # Gateways that come from another protocol put that one's end mark after it.
                return

    def _take(self, event: Dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            self._append(_member(event, "delta"))
        elif kind == "content_block_start":
            self._append(_member(event, "content_block"))
        elif kind == "message_start":
            self._message = dict(_member(event, "message"))
        elif kind == "message_delta":
            self._update(event)
        elif kind == "message_stop":
            self.complete = True
        elif kind == "error":
            raise from_stream_error(event)

    def _append(self, part: Dict[str, Any]) -> None:
        text = _text(part)
        if not text:
            self._unshown_bytes += _unshown_bytes(part)
            return
        self._texts.append(text)
        if self._on_text is not None:
            self._on_text(text)

    def _update(self, event: Dict[str, Any]) -> None:
        self._message.update(_member(event, "delta"))
        # The final event repeats only some of the counts, and servers differ in which.
        given = {name: count for name, count in _object(event.get("usage")).items() if count is not None}
        self._message["usage"] = {**_object(self._message.get("usage")), **given}

    def billed(self, most: int = _MOST_TOKENS) -> Optional[Usage]:
        """Tokens so far. Of an answer that is not whole the output counts at its most: a token is a byte of
        its text, of what the model thought, or of what it wrote for a tool, and it has `most` of them."""
        if not self._message:
            return None
        usage = read_usage(self._message.get("usage"))
        if self.complete:
            return usage
        size = self._unshown_bytes + sum(map(byte_size, self._texts))
        return replace(usage, output_tokens=max(usage.output_tokens, min(size, most)))

    def reply(self, request_id: Optional[str]) -> Reply:
        """Raises ConnectionFailedError when the stream ended before `message_stop`."""
        if not self.complete:
            raise ConnectionFailedError(_CUT_OFF, request_id=request_id)
        usage = read_usage(self._message.get("usage"))
        return _reply(self._message, "".join(self._texts), usage, request_id)


class BodyReader:
    """The answer of a request that was not streamed."""

    complete = False

    def __init__(self) -> None:
        self._body = bytearray()
        self._usage: Optional[Usage] = None

    def feed(self, chunk: bytes) -> None:
        self._body += chunk

    def billed(self, most: int = _MOST_TOKENS) -> Optional[Usage]:
        """None for what can't be read."""
        return self._usage

    def reply(self, request_id: Optional[str]) -> Reply:
        """Raises BadReplyError for anything but a message."""
        message = _json_object(self._body)
        self._usage = usage = read_usage(message.get("usage"))
        blocks = message.get("content")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise BadReplyError("The answer has no list of content blocks", request_id=request_id)
        text = "".join(_text(block) for block in blocks if block.get("type") == "text")
        return _reply(message, text, usage, request_id)


Reader = Union[StreamReader, BodyReader]


def read_usage(usage: Any) -> Usage:
    """Token counts; what a server leaves out or sends as null counts as 0, and so does less than that."""
    counts = _object(usage)
    split = _object(counts.get("cache_creation"))
    return Usage(
        input_tokens=_count(counts, "input_tokens"),
        output_tokens=_count(counts, "output_tokens"),
        cache_creation_input_tokens=_count(counts, "cache_creation_input_tokens"),
        cache_read_input_tokens=_count(counts, "cache_read_input_tokens"),
        cache_creation_1h_input_tokens=_count(split, "ephemeral_1h_input_tokens"),
    )


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return min(max(value, 0), _MOST_TOKENS) if isinstance(value, int) else 0


def _object(value: Any) -> Dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(block: Dict[str, Any]) -> str:
    value = block.get("text")
    return value if isinstance(value, str) else ""


def _unshown_bytes(part: Dict[str, Any]) -> int:
    """Of what is written and billed and is no text of the answer: thinking, the input of a tool."""
    return sum(byte_size(one) for name, one in part.items() if isinstance(one, str) and name != "type")


def _reply(message: Dict[str, Any], text: str, usage: Usage, request_id: Optional[str]) -> Reply:
    stop_reason = message.get("stop_reason")
    return Reply(
        text=text,
        model=str(message.get("model") or ""),
        usage=usage,
        stop_reason=stop_reason if isinstance(stop_reason, str) else None,
        request_id=request_id,
    )


def _member(event: Dict[str, Any], name: str) -> Dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise BadReplyError(f"A {event.get('type')} event of the stream has no {name}")
    return value


def _event(name: bytes, data: Dict[str, Any]) -> Dict[str, Any]:
    """An event in this API's form: errors in a stream come in the server's own as well."""
    if name == b"error" or "type" not in data:
        error = data.get("error")
        if name == b"error" and not isinstance(error, dict):
            error = data
        if isinstance(error, dict):
            return {**data, "type": "error", "error": error}
    return data


def _json_object(data: Union[bytes, bytearray]) -> Dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadReplyError(f"The server sent malformed JSON ({error})") from error
    if not isinstance(value, dict):
        raise BadReplyError("The server sent JSON that is not an object")
    return value
