"""The Messages API's wire format: what is sent for a call, and how an answer is put together. Pure.

Source of the rules: the Messages API reference, chapters "Create a Message" and "Streaming messages";
the framing of events is the HTML standard's chapter "Server-sent events".
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Match, Optional, Protocol, Union

from ..errors import BadReplyError, CallError, ConnectionFailedError
from ..formatting import byte_size
from ..types import Call, Reply, Usage
from .error_mapping import from_body, is_error
from .usage import merged_usage, read_usage

_CACHE_CONTROL: Mapping[str, Mapping[str, str]] = {
    "5m": {"type": "ephemeral"},
    "1h": {"type": "ephemeral", "ttl": "1h"},
}
_MOST_TOKENS = 10**8
# Parts of an answer that stand for more than their bytes.
_THINKING = ("thinking", "redacted_thinking", "thinking_delta", "signature_delta")
EVENTS_MEDIA_TYPE = "text/event-stream"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
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
    """Bytes of a server-sent event stream in, decoded events out, however the bytes are cut.

    Lines end in LF, CRLF or CR; comments, unknown fields and a byte order mark are ignored, as the standard
    says.
    """

    def __init__(self) -> None:
        self._rest: List[bytes] = []
        self._name = b""
        self._data: List[bytes] = []
        self._at_start = True
        self._ends_in_cr = False

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]:
        if self._ends_in_cr or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        # Put together once: a line of many pieces would be copied with each of them.
        self._rest.append(chunk)
        if b"\n" not in chunk:
            return
        lines = b"".join(self._rest).split(b"\n")
        self._rest = [lines.pop()]
        if self._at_start:
            self._at_start = False
            if lines[0].startswith(_BYTE_ORDER_MARK):
                lines[0] = lines[0][len(_BYTE_ORDER_MARK) :]
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
            elif not line:
                name, data, self._name, self._data = self._name, self._data, b"", []
                if data:
                    event = b"\n".join(data)
                    # Gateways that come from OpenAI's protocol put its end mark at the end.
                    if event.strip() != b"[DONE]":
                        yield _event(name, _json_object(event))

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        # The LF of a CRLF may come with the next piece.
        if self._ends_in_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._ends_in_cr = chunk.endswith(b"\r") if chunk else False
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class StreamReader:
    """Assembles the answer from its events; `on_text` is called with each piece of its text.

    Attributes:
        stopped: the stop reason has come, and with it all of the answer; only more usage can follow.
        complete: nothing follows that could matter.
        steps: counts what shows that the model goes on: not pings, empty pieces and unknown events.
    """

    def __init__(
        self, on_text: Optional[Callable[[str], None]] = None, decoder: Optional[Events] = None
    ) -> None:
        self._decoder, self._on_text = decoder or EventDecoder(), on_text
        self._message: Dict[str, Any] = {}
        self._usage: Dict[str, Any] = {}
        self._texts: List[str] = []
        self._half = ""
        self._unshown_bytes = 0
        self._blocks, self._thought, self._used_server_tool = 0, False, False
        self._is_counted = False
        self.stopped: bool = False
        self.complete: bool = False
        # It began with an error event, which is not billed.
        self.refused: bool = False
        self.steps: int = 0

    def feed(self, chunk: bytes) -> None:
        """Raises CallError for an error event, BadReplyError for what is no event of this API."""
        if self.complete:
            return
        try:
            for event in self._decoder.feed(chunk):
                self._take(event)
                if self.complete:
                    return
        except CallError:
            if not self.stopped:
                raise
            # The answer is whole: whatever this was, it is not part of it.
            self.complete = True

    def end(self) -> None:
        """The body has ended. Its last event may lack the empty line that should follow it."""
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
        self._blocks += 1
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
        if self._half or "\ud800" <= text[-1] <= "\udbff":
            text = self._with_half(text)
        if text:
            text = without_halves(text)
            self._texts.append(text)
            if self._on_text is not None:
                self._on_text(text)

    def _with_half(self, text: str) -> str:
        """`text` with the half of a character that came before it, and without one that is continued."""
        text, self._half = joined_halves(self._half + text), ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text

    def _update(self, event: Dict[str, Any]) -> None:
        self._message.update(_member(event, "delta"))
        # What the first event says of the answer's tokens is only their number so far.
        self._is_counted |= _object(event.get("usage")).get("output_tokens") is not None
        self._usage = merged_usage(self._usage, event.get("usage"))
        if self._message.get("stop_reason") is not None:
            self.stopped = True

    @property
    def model(self) -> str:
        """The model that answers; "" as long as that is unknown."""
        return _model(self._message)

    def billed(self, most: int = _MOST_TOKENS, thinks: bool = False) -> Optional[Usage]:
        """What is billed so far, at its most; None where no answer has begun.

        An answer that broke off has at most a token for each byte that came, and at most `most`. Thinking is
        not sent, so an answer that may have begun with it (`thinks`) counts as `most`. What a tool of the
        server's has added to the prompt is unknown until the end.
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
        if self._thought or (thinks and not self._blocks):
            return replace(usage, output_tokens=max(usage.output_tokens, most))
        size = self._unshown_bytes + sum(map(byte_size, self._texts))
        return replace(usage, output_tokens=max(usage.output_tokens, min(size, most)))

    def is_whole(self) -> bool:
        """Whether the answer is there, however its connection ended."""
        return self.stopped

    def reply(self, request_id: Optional[str]) -> Reply:
        """Raises ConnectionFailedError when the stream ended before its stop reason and `message_stop`."""
        if not self.stopped:
            raise ConnectionFailedError(_CUT_OFF, request_id=request_id)
        if self._half:
            # Half a character that was never continued.
            half, self._half = without_halves(self._half), ""
            self._texts.append(half)
            if self._on_text is not None:
                self._on_text(half)
        usage = self.billed() or Usage(is_known=False)
        return _reply(self._message, "".join(self._texts), usage, request_id)


class BodyReader:
    """The answer of a request that was not streamed. Its parts tell nothing before all of it is there."""

    stopped: bool = False
    complete: bool = False
    refused: bool = False

    def __init__(self) -> None:
        self._body = bytearray()
        self._usage: Optional[Usage] = None
        self.model: str = ""
        self.steps: int = 0

    def feed(self, chunk: bytes) -> None:
        self._body += chunk
        # Gateways send blanks as a sign of life.
        self.steps += not chunk.isspace()

    def end(self) -> None:
        """The body has ended."""

    def billed(self, most: int = _MOST_TOKENS, thinks: bool = False) -> Optional[Usage]:
        """None for what can't be read."""
        return self._usage

    def is_whole(self) -> bool:
        """Whether the answer is there, however its connection ended."""
        try:
            return isinstance(json.loads(self._body), dict)
        except (ValueError, RecursionError):
            return False

    def reply(self, request_id: Optional[str]) -> Reply:
        """Raises the error that the body is, BadReplyError for anything but a message."""
        message = _json_object(self._body)
        self.refused = is_error(message)
        if self.refused:
            raise from_body(message)
        self._usage = usage = read_usage(message.get("usage"))
        self.model = _model(message)
        blocks = message.get("content")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise BadReplyError("The answer has no list of content blocks", request_id=request_id)
        text = "".join(_text(block) for block in blocks if block.get("type") == "text")
        return _reply(message, without_halves(joined_halves(text)), usage, request_id)


Reader = Union[StreamReader, BodyReader]


def joined_halves(text: str) -> str:
    """`text` with each pair of surrogates as the character that it means: JSON may have its halves in two
    strings."""
    return text if text.isascii() else _PAIR.sub(_character, text)


def without_halves(text: str) -> str:
    """`text` with a replacement character for each lone half of a pair, which has no UTF-8."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def _character(pair: Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


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
        value = _loads(data)
    except (ValueError, RecursionError) as error:
        raise BadReplyError(f"The server sent malformed JSON ({error})") from error
    if isinstance(value, list) and len(value) == 1 and _is_error_object(value[0]):
        # Google's error where a stream was asked for.
        value = value[0]
    if not isinstance(value, dict):
        raise BadReplyError("The server sent JSON that is not an object")
    return value


def _loads(data: Union[bytes, bytearray]) -> Any:
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        # One wrong byte does not spoil an answer that is paid for.
        return json.loads(data.decode("utf-8", "replace"))


def _is_error_object(value: Any) -> bool:
    return isinstance(value, dict) and is_error(value)
