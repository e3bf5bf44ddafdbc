"""From a status, a body and headers to the one error that says what happened. Pure.

Source: the API's reference, chapter "Errors".
"""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime
from typing import Any, Dict, Mapping, Optional, Type

from ..errors import (
    AuthenticationError,
    CallError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestRefusedError,
    RequestTooLargeError,
    ServerError,
    SpendLimitError,
)

_BY_STATUS: Mapping[int, Type[CallError]] = {
    400: RequestRefusedError,
    401: AuthenticationError,
    402: SpendLimitError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    408: ServerError,
    409: ServerError,
    413: RequestTooLargeError,
    422: RequestRefusedError,
    429: RateLimitError,
    500: ServerError,
    502: ServerError,
    503: OverloadedError,
    504: ServerError,
    529: OverloadedError,
}
_STATUS_OF_KIND: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # Amazon Bedrock's, in a stream.
    "validationException": 400,
    "modelTimeoutException": 408,
    "throttlingException": 429,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
}
_STATUS_TEXTS = frozenset(map(str, _BY_STATUS))
_SECRET = re.compile(
    r"(sk-ant-|Bearer\s+|\bSignature=|x-amz-security-token:\s*)[\w.~+/=-]{4,}", re.IGNORECASE
)
_LONGEST_MESSAGE = 500


def from_status(status: int, body: Any, headers: Mapping[str, str], now: float) -> CallError:
    """The error for an answer with an error status; `now` is Unix time in seconds."""
    detail = _error_of(body)
    kind = _kind(detail, headers)
    message = _text(detail.get("message")) or _text(body if isinstance(body, str) else None)
    cls = _BY_STATUS.get(status, CallError)
    if status == 429 and _says_spend_limit(detail):
        cls = SpendLimitError
    return cls(
        f"The API answered {status}" + (f" {kind}" if kind else "") + (f": {message}" if message else ""),
        advice=None if status in _BY_STATUS else f"Status {status} is not one that the API documents.",
        status=status,
        kind=kind or None,
        request_id=request_id(headers) or _text(_member(body, "request_id")) or None,
        retry_after=read_retry_after(headers, now),
    )


def request_id(headers: Mapping[str, str]) -> Optional[str]:
    """The service's own id of the request."""
    return headers.get("request-id") or headers.get("x-amzn-requestid")


def parsed(text: str) -> Any:
    """The body of an error: JSON where it is any, else its text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def from_stream_error(event: Mapping[str, Any]) -> CallError:
    """The error for an `error` event; the status is the one that its type has outside a stream, or that it
    names itself, as servers other than Anthropic's do."""
    detail = _error_of(event)
    kind = _text(detail.get("type")) or "error"
    status = _STATUS_OF_KIND.get(kind) or _status_in(detail)
    cls = _BY_STATUS[status] if status else ServerError
    return cls(
        f"The answer broke off with {kind}: {_text(detail.get('message'))}",
        status=status,
        kind=kind,
        request_id=_text(event.get("request_id")) or None,
    )


def read_retry_after(headers: Mapping[str, str], now: float) -> Optional[float]:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3: seconds or a date), or None."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def redact(text: str) -> str:
    """`text` without anything that looks like a key."""
    return _SECRET.sub(r"\1***", text)


def _status_in(detail: Mapping[str, Any]) -> Optional[int]:
    code = str(detail.get("code"))
    return int(code) if code in _STATUS_TEXTS else None


def _says_spend_limit(detail: Mapping[str, Any]) -> bool:
    return _text(_member(detail.get("details"), "error_code")).endswith("spend_limit_reached")


def _kind(detail: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The API has it in the body; so has Google, under another name; AWS has it in a header, before a URL."""
    aws = headers.get("x-amzn-errortype", "").partition(":")[0]
    return _text(detail.get("type")) or _text(detail.get("status")) or _text(aws)


def _error_of(body: Any) -> Dict[str, Any]:
    if isinstance(body, list) and len(body) == 1:
        # Google's answer to a request for a stream.
        body = body[0]
    error = _member(body, "error")
    if isinstance(error, dict):
        return error
    # AWS gives nothing but a message, which not all of its services spell the same.
    message = _member(body, "message") or _member(body, "Message")
    return {"message": message} if message else {}


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Any) -> str:
    text = redact(value).strip() if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "..."
