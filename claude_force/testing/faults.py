"""The ways in which the stand-in can fail on demand. Values only; `breaks.py` carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple, Union


@dataclass(frozen=True)
class Fault:
    """One failure. `after_events` counts the server-sent events that still arrive whole."""

    kind: str
    code: int = 200
    retry_after: Optional[Union[float, str]] = None
    message: Optional[str] = None
    error_code: Optional[str] = None
    after_events: int = 1

    def __post_init__(self) -> None:
        if self.after_events < 1:
            raise ValueError(f"after_events is {self.after_events!r}; it must be from 1 up.")


def status(
    code: int,
    retry_after: Optional[Union[float, str]] = None,
    message: Optional[str] = None,
    error_code: Optional[str] = None,
) -> Fault:
    """An error status with the API's own error body.

    `retry_after` is the header's value, seconds or an HTTP date; `error_code` is
    `error.details.error_code`, such as "enforced_spend_limit_reached".
    """
    if not 400 <= code <= 599:
        raise ValueError(f"code is {code!r}; it must be an error status, 400 to 599.")
    return Fault("status", code, retry_after, message, error_code)


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
    """More and more text, until the client disconnects or the server stops."""
    return Fault("endless_answer", after_events=3)


def in_one_piece() -> Fault:
    """The whole answer as one JSON object though a stream was asked for, as some gateways send it."""
    return Fault("in_one_piece")


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
