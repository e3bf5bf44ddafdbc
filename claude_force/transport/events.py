"""Decodes streamed answers: server-sent events, and the AWS event streams that wrap them. Pure.

Source of the rules: the HTML standard's chapter "Server-sent events"; the Bedrock runtime's reference,
"InvokeModelWithResponseStream".
"""

from __future__ import annotations

import base64
import importlib
import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Protocol, Union

from ..errors import BadReplyError
from .error_mapping import is_error

EVENTS_MEDIA_TYPE = "text/event-stream"
AWS_MEDIA_TYPE = "application/vnd.amazon.eventstream"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Events(Protocol):
    """Decodes the bytes of a stream to events, however the bytes are split."""

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]: ...


class EventDecoder:
    """Decodes server-sent events, however their bytes are split.

    Lines end in LF, CRLF or CR. Comments, unknown fields and a byte order mark are ignored.
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
        # Joined once: a line of many pieces would be copied with each of them.
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
                    # The end mark of OpenAI's protocol, which some gateways send too.
                    if event.strip() != b"[DONE]":
                        yield _event(name, json_object(event))

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        # The LF of a CRLF may come with the next piece.
        if self._ends_in_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._ends_in_cr = chunk.endswith(b"\r") if chunk else False
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(name: bytes, data: Dict[str, Any]) -> Dict[str, Any]:
    """The event in the form of this API: some servers send errors in another form."""
    if name == b"error" or "type" not in data:
        error = data.get("error")
        if name == b"error" and not isinstance(error, dict):
            error = data
        if isinstance(error, dict):
            return {**data, "type": "error", "error": error}
    return data


def json_object(data: Union[bytes, bytearray]) -> Dict[str, Any]:
    """The object that JSON from a server holds. Raises BadReplyError for anything else."""
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
        # Half of the time of json.loads, which looks for the encoding first.
        text = str(data, "utf-8").strip()
        value, end = _decode(text)
    except ValueError:
        return _loads_any(data)
    return value if end == len(text) else _loads_any(data)


def _loads_any(data: Union[bytes, bytearray]) -> Any:
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        # One wrong byte does not spoil an answer that is paid for.
        return json.loads(data.decode("utf-8", "replace"))


_decode = json.JSONDecoder().raw_decode


def _is_error_object(value: Any) -> bool:
    return isinstance(value, dict) and is_error(value)


class AwsEventDecoder:
    """Decodes AWS event streams, however their bytes are split."""

    def __init__(self) -> None:
        # Installed with the extra `bedrock` only.
        eventstream = importlib.import_module("botocore.eventstream")
        self._buffer, self._broken = eventstream.EventStreamBuffer(), eventstream.ParserError

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]:
        """Raises BadReplyError for malformed frames."""
        try:
            self._buffer.add_data(chunk)
            for message in self._buffer:
                event = _aws_event(message.headers, message.payload)
                if event is not None:
                    yield event
        except (self._broken, ValueError, RecursionError) as error:
            raise BadReplyError(f"The server sent a malformed event stream ({error})") from error


def _aws_event(headers: Mapping[str, Any], payload: bytes) -> Optional[Dict[str, Any]]:
    if headers.get(":message-type") != "event":
        return _aws_error(headers, payload)
    if headers.get(":event-type") != "chunk":
        return None
    return _aws_object(base64.b64decode(_aws_object(payload).get("bytes") or ""))


def _aws_error(headers: Mapping[str, Any], payload: bytes) -> Dict[str, Any]:
    kind = headers.get(":exception-type") or headers.get(":error-code")
    message = headers.get(":error-message") or _aws_object(payload or b"{}").get("message")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _aws_object(data: bytes) -> Dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("an event is not an object")
    return value
