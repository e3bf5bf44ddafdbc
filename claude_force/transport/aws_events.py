"""AWS event streams, in which Amazon Bedrock wraps the events of the Messages API.

Source of the rules: the Bedrock runtime's reference, "InvokeModelWithResponseStream".
"""

from __future__ import annotations

import base64
import importlib
import json
from typing import Any, Dict, Iterator, Mapping, Optional

from ..errors import BadReplyError

MEDIA_TYPE = "application/vnd.amazon.eventstream"


class AwsEventDecoder:
    """Bytes of an AWS event stream in, decoded events out, however the bytes are cut."""

    def __init__(self) -> None:
        # From the extra, which other calls do without.
        eventstream = importlib.import_module("botocore.eventstream")
        self._buffer, self._broken = eventstream.EventStreamBuffer(), eventstream.ParserError

    def feed(self, chunk: bytes) -> Iterator[Dict[str, Any]]:
        """Raises BadReplyError for what is no such stream."""
        try:
            self._buffer.add_data(chunk)
            for message in self._buffer:
                event = _event(message.headers, message.payload)
                if event is not None:
                    yield event
        except (self._broken, ValueError, RecursionError) as error:
            raise BadReplyError(f"The server sent a malformed event stream ({error})") from error


def _event(headers: Mapping[str, Any], payload: bytes) -> Optional[Dict[str, Any]]:
    if headers.get(":message-type") != "event":
        return _error(headers, payload)
    if headers.get(":event-type") != "chunk":
        return None
    return _object(base64.b64decode(_object(payload).get("bytes") or ""))


def _error(headers: Mapping[str, Any], payload: bytes) -> Dict[str, Any]:
    kind = headers.get(":exception-type") or headers.get(":error-code")
    message = headers.get(":error-message") or _object(payload or b"{}").get("message")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _object(data: bytes) -> Dict[str, Any]:
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("an event is not an object")
    return value
