"""Faults that the stand-in can inject. Values only; `fault_injection.py` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple, Union


@dataclass(frozen=True)
class Fault:
    """One failure. `after_events` counts the server-sent events that still arrive whole; `body` is text, or a
    mapping that is sent as JSON; `headers` are added to those of the answer."""

    kind: str
    code: int = 200
    retry_after: Optional[Union[float, str]] = None
    message: Optional[str] = None
    error_code: Optional[str] = None
    after_events: int = 1
    headers: Tuple[Tuple[str, str], ...] = ()
    body: Optional[Union[str, Mapping[str, Any]]] = None
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        if self.after_events < 1:
            raise ValueError(f"after_events is {self.after_events!r}; it must be from 1 up.")


def status(
    code: int,
    retry_after: Optional[Union[float, str]] = None,
    message: Optional[str] = None,
    error_code: Optional[str] = None,
    headers: Optional[Mapping[str, str]] = None,
) -> Fault:
    """An error status with the API's own error body.

    `retry_after` is the header's value, seconds or an HTTP date; `error_code` is
    `error.details.error_code`, such as "enforced_spend_limit_reached"; `headers` are added to the answer's.
    """
    if not 400 <= code <= 599:
        raise ValueError(f"code is {code!r}; it must be an error status, 400 to 599.")
    return Fault("status", code, retry_after, message, error_code, headers=_pairs(headers))


def body(
    content: Union[str, Mapping[str, Any]],
    code: int = 200,
    content_type: str = "application/json",
    headers: Optional[Mapping[str, str]] = None,
) -> Fault:
    """Any status with any body: text as it is, a mapping as JSON. For errors inside a 200, for pages of
    proxies, and for the errors of other servers."""
    return Fault("body", code, headers=_pairs(headers), body=content, content_type=content_type)


def labelled(content_type: str) -> Fault:
    """The whole answer under another media type."""
    return Fault("labelled", content_type=content_type)


def large_headers(size: int = 20_000) -> Fault:
    """The whole answer, with a header of so many bytes, as gateways add them."""
    return Fault("headers", headers=(("x-gateway-policy", "x" * size),))


def pings(after_events: int = 3) -> Fault:
    """A stream that sends only pings after some events, twenty times a second, until the client disconnects
    or the server stops. A plain answer sends blanks."""
    return Fault("pings", after_events=after_events)


def open_after_stop_reason(follows: str = "pings") -> Fault:
    """A stream with a stop reason but no `message_stop`. What `follows` is "pings", "silence" or
    "garbage", each without end, or "reset". A plain answer is healthy."""
    if follows not in ("pings", "silence", "garbage", "reset"):
        raise ValueError(f"follows is {follows!r}; it must be pings, silence, garbage or reset.")
    return Fault("open_after_stop_reason", message=follows)


def reset() -> Fault:
    """The connection is reset (RST) before any byte of the answer."""
    return Fault("reset")


def silence_before_first_byte() -> Fault:
    """Nothing arrives, until the client disconnects or the server stops."""
    return Fault("silence_before_first_byte")


def silence_in_mid_stream(after_events: int = 3) -> Fault:
    """The stream stops but stays open. A plain answer stops in the middle of its body."""
    return Fault("silence_in_mid_stream", after_events=after_events)


def truncated_stream(after_events: int = 5) -> Fault:
    """The connection closes before `message_stop`, a plain one in the middle of its body."""
    return Fault("truncated_stream", after_events=after_events)


def overloaded_in_stream(after_events: int = 5) -> Fault:
    """An `error` event with overloaded_error after some deltas. A plain request is answered with 529."""
    return Fault("overloaded_in_stream", after_events=after_events)


def malformed_json() -> Fault:
    """Status 200 with a body, or in a stream one event, whose JSON is cut off."""
    return Fault("malformed_json", after_events=4)


def wrong_content_type() -> Fault:
    """Status 200 with an HTML page, as a proxy or a login portal sends it."""
    return Fault("wrong_content_type")


def endless_answer() -> Fault:
    """Sends text without end, until the client disconnects or the server stops."""
    return Fault("endless_answer", after_events=3)


def in_one_piece() -> Fault:
    """The whole answer as one JSON object though a stream was asked for, as some gateways send it."""
    return Fault("in_one_piece")


def _pairs(headers: Optional[Mapping[str, str]]) -> Tuple[Tuple[str, str], ...]:
    return tuple((headers or {}).items())


ALL: Tuple[Fault, ...] = (
    *(status(code) for code in (400, 401, 402, 403, 404, 413, 422)),
    status(429, retry_after=1),
    *(status(code) for code in (500, 502, 503, 504, 529)),
    reset(),
    silence_before_first_byte(),
    silence_in_mid_stream(),
    truncated_stream(),
    overloaded_in_stream(),
    malformed_json(),
    wrong_content_type(),
)
