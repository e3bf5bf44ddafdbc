"""The bytes of the Messages API's answers: messages, streams of events, errors. Pure.

Source: the Messages API reference, chapters "Create a Message", "Streaming messages" and "Errors".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from .tokens import CHARACTERS_PER_TOKEN, estimate

_KINDS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_MESSAGES: Mapping[int, str] = {
    400: "The request is not valid.",
    401: "invalid x-api-key",
    402: "Your credit balance is too low to access the Anthropic API.",
    403: "Your API key does not have permission to use the specified resource.",
    404: "Not found",
    413: "Request exceeds the maximum size",
    422: "The request can't be processed.",
    429: "This request would exceed your organization's rate limit.",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Request timed out",
    529: "Overloaded",
}
# One encoder, because json.dumps makes a new one at each call whose arguments are not the defaults.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DELTA = (
    "event: content_block_delta\ndata: "
    '{"type":"content_block_delta","index":%d,"delta":{"type":"%s_delta","%s":%s}}\n\n'
)
_BLOCK_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
# The fields of a block that arrive in pieces: the name of their delta, and of its field.
_PIECES = {
    "text": ("text", "text"),
    "thinking": ("thinking", "thinking"),
    "input": ("input_json", "partial_json"),
}
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
BROKEN_EVENT = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"te\n\n'
# Events before the first delta, and after the last.
HEAD_EVENTS = 3
TAIL_EVENTS = 3


class Refused(Exception):
    """A request that is answered with an error status; `retry_after` is the header's value."""

    def __init__(
        self,
        status: int,
        message: Optional[str] = None,
        *,
        retry_after: Optional[str] = None,
        error_code: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message or _MESSAGES.get(status, f"Status {status}")
        self.retry_after = retry_after
        self.error_code = error_code

    def body(self, request_id: str) -> bytes:
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return to_bytes(_error(kind, self.message, request_id, self.error_code))


@dataclass(frozen=True)
class Message:
    """A whole answer. `usage` is as the API spells it, `output_tokens` among it.

    `blocks` are as the API spells them, but that the input of a tool is JSON text, which may be broken.
    """

    id: str
    model: str
    blocks: Sequence[Dict[str, Any]]
    stop_reason: str
    usage: Mapping[str, Any]

    def body(self) -> bytes:
        content = [_with_input(block) if "input" in block else block for block in self.blocks]
        return to_bytes(self._fields(content, self.stop_reason, self.usage))

    def events(self, tokens_per_delta: int) -> List[bytes]:
        """Returns the answer as server-sent events, each of them complete."""
        start = {
            "type": "message_start",
            "message": self._fields([], None, {**self.usage, "output_tokens": 1}),
        }
        delta = {
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason, "stop_sequence": None},
            "usage": {name: count for name, count in self.usage.items() if name.endswith("_tokens")},
        }
        size = tokens_per_delta * CHARACTERS_PER_TOKEN
        first, *more = (
            event
            for index, block in enumerate(self.blocks or _NO_BLOCKS)
            for event in _block_events(index, block, size)
        )
        return [_event(start), first, PING, *more, _event(delta), _STOP]

    def _fields(
        self, content: List[Any], stop_reason: Optional[str], usage: Mapping[str, Any]
    ) -> Dict[str, Any]:
        return {
            "model": self.model,
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": usage,
        }


_NO_BLOCKS: Sequence[Dict[str, Any]] = ({"type": "text", "text": ""},)


def _with_input(block: Dict[str, Any]) -> Dict[str, Any]:
    """The block with its input as an object, which in one piece is never broken."""
    try:
        return {**block, "input": json.loads(block["input"])}
    except ValueError:
        return {**block, "input": {}}


def _block_events(index: int, block: Dict[str, Any], size: int) -> Iterator[bytes]:
    """The events of one block, with deltas of `size` characters."""
    field = next((name for name in _PIECES if name in block), "")
    start = {**block, field: {} if field == "input" else ""} if field else block
    if field == "thinking":
        start["signature"] = ""
    yield _event({"type": "content_block_start", "index": index, "content_block": start})
    whole, kind, name = block.get(field, ""), *_PIECES.get(field, ("", ""))
    if field == "input":
        # As the API does.
        yield (_DELTA % (index, kind, name, '""')).encode()
    for at in range(0, len(whole), size):
        yield (_DELTA % (index, kind, name, _encode(whole[at : at + size]))).encode("utf-8", "replace")
    if field == "thinking":
        yield (_DELTA % (index, "signature", "signature", _encode(block["signature"]))).encode()
    yield _BLOCK_STOP % index


def cut(text: str, max_tokens: int) -> str:
    """`text` with at most `max_tokens` tokens."""
    return text if estimate(len(text)) <= max_tokens else text[: max_tokens * CHARACTERS_PER_TOKEN]


def stretch(text: str, tokens: int) -> str:
    """`text` repeated or cut to exactly `tokens` tokens."""
    size = tokens * CHARACTERS_PER_TOKEN
    text = text or "."
    return (text * (size // len(text) + 1))[:size]


def overloaded_event(request_id: str) -> bytes:
    return _event(_error("overloaded_error", "Overloaded", request_id, None))


def to_bytes(value: Any) -> bytes:
    # A lone surrogate, which JSON allows in a request, has no UTF-8: it becomes "?".
    return _encode(value).encode("utf-8", "replace")


def _event(data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), to_bytes(data))


def _error(kind: str, message: str, request_id: str, error_code: Optional[str]) -> Dict[str, Any]:
    error: Dict[str, Any] = {"type": kind, "message": message}
    if error_code is not None:
        error["details"] = {"error_code": error_code}
    return {"type": "error", "error": error, "request_id": request_id}
