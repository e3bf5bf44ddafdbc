"""Maps error answers to typed errors: the class, whether it is retried, whether it ends a run. Pure.

The one table of statuses, error types and messages. A class below TransientError is retried; "run" and
"model" in the last column say for which other calls the answer holds too (`CallError.fatal_for`).

    status              error                  also holds for
    400, 422            RequestRefusedError
    401                 AuthenticationError    run
    402                 SpendLimitError        run
    403, 451            PermissionDeniedError  model   (a 403 of no type, such as a firewall's: none)
    404, 405, 410       ModelNotFoundError     model
    407                 AuthenticationError    run     (the proxy asks for a password)
    408, 409, 425       ServerError
    413                 RequestTooLargeError
    429                 RateLimitError
    503, 529            OverloadedError
    any other 4xx       RequestRefusedError
    any other 5xx       ServerError
    below 100, over 599 ServerError
    1xx, 3xx            BadReplyError

Before the status count: a spend limit, by type, code or message, under any status (SpendLimitError, run,
never retried); a disabled organisation, workspace, account or key in a 400 or 403 (PermissionDeniedError,
run); a model that does not exist in a 400 (model). `x-should-retry` decides over the class, but not over
spend limits. The same holds for errors in a stream and in the body of a 200, whose status is that of their
type or code.

Sources: the API's reference, chapter "Errors" (types, 413, 529, `error.details.error_code`) and the SDK's
`_should_retry` (408, 409, 429, 5xx, x-should-retry, retry-after-ms); RFC 9110, 15 (an unknown status is the
x00 of its class, an invalid one a 5xx), 10.2.3 (retry-after); RFC 8470, 5.2 (425); Cloudflare's support
pages, "Cloudflare 5xx errors" (520 to 530); Amazon Bedrock's runtime reference,
"InvokeModelWithResponseStream"; Google's `google.rpc.Code`; the error types of llama-server, LiteLLM and
OpenAI in their sources.
"""

from __future__ import annotations

import json
import re
from datetime import timezone
from email.utils import parsedate_to_datetime
from html import unescape
from typing import Any, Dict, Mapping, NamedTuple, Optional, Type

from ..errors import (
    MODEL,
    RUN,
    AuthenticationError,
    BadReplyError,
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
from .redaction import redact


class Meaning(NamedTuple):
    """The class of an error, and the other calls it holds for (`CallError.fatal_for`)."""

    error: Type[CallError]
    fatal_for: Optional[str] = None


_BY_STATUS: Mapping[int, Meaning] = {
    400: Meaning(RequestRefusedError),
    401: Meaning(AuthenticationError, RUN),
    402: Meaning(SpendLimitError, RUN),
    403: Meaning(PermissionDeniedError, MODEL),
    404: Meaning(ModelNotFoundError, MODEL),
    405: Meaning(ModelNotFoundError, MODEL),
    407: Meaning(AuthenticationError, RUN),
    408: Meaning(ServerError),
    409: Meaning(ServerError),
    410: Meaning(ModelNotFoundError, MODEL),
    413: Meaning(RequestTooLargeError),
    422: Meaning(RequestRefusedError),
    425: Meaning(ServerError),
    429: Meaning(RateLimitError),
    451: Meaning(PermissionDeniedError, MODEL),
    500: Meaning(ServerError),
    502: Meaning(ServerError),
    503: Meaning(OverloadedError),
    504: Meaning(ServerError),
    529: Meaning(OverloadedError),
}
# In lower case. A word with two meanings, such as OpenAI's "tokens", has its meaning in an error.
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
    # Amazon Bedrock.
    "validationexception": 400,
    "unrecognizedclientexception": 401,
    "expiredtokenexception": 401,
    "accessdeniedexception": 403,
    "resourcenotfoundexception": 404,
    "modeltimeoutexception": 408,
    "throttlingexception": 429,
    "modelnotreadyexception": 429,
    "internalserverexception": 500,
    "modelstreamerrorexception": 500,
    "serviceunavailableexception": 503,
    # Google.
    "invalid_argument": 400,
    "failed_precondition": 400,
    "out_of_range": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "aborted": 409,
    "resource_exhausted": 429,
    "internal": 500,
    "unknown": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
    # llama-server, LiteLLM and OpenAI.
    "exceed_context_size_error": 400,
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "auth_error": 401,
    "no_db_connection": 401,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "throttling_error": 429,
    "requests": 429,
    "tokens": 429,
    "server_error": 500,
    "internal_server_error": 500,
    "unavailable_error": 503,
    "service_unavailable": 503,
}
_SPENT_KINDS = frozenset(
    {"billing_error", "insufficient_quota", "insufficient_credits", "insufficient_funds", "budget_exceeded"}
)
_SPENT = re.compile(
    r"credit balance is too low"
    r"|(reached|exceeded) (your|its|the) [\w' ]{0,60}?\b(usage|spend|spending|billing|credit) (limit|cap)"
    r"|\busage limits? (has been |have been |was )?reached"
    r"|\b(spend|spending) (limit|cap)s? (has been |was )?(reached|exceeded)"
    r"|\bbudget (has been |was )?exceeded|\bexceeded budget"
    r"|\b(out of|insufficient|not enough) (credits?|funds|balance)\b",
    re.IGNORECASE,
)
_DISABLED = re.compile(
    r"\b(organi[sz]ation|workspace|account|subscription|project|api[ -]key|credential)\b[\w' ]{0,40}"
    r"\b(is|has been|was|have been) (currently |temporarily |permanently )?"
    r"(disabled|suspended|deactivated|archived|blocked|revoked|deleted|terminated|expired)\b"
    r"|\bapi[ -]key (not valid|expired|is invalid|is not valid)",
    re.IGNORECASE,
)
_NO_SUCH_MODEL = re.compile(
    r"model identifier is invalid|\binvalid model (name|id)\b"
    r"|\bmodel\b[^.]{0,100}?\b(not found|does not exist|doesn't exist|is unknown)",
    re.IGNORECASE,
)
_CLOUDFLARE: Mapping[int, str] = {
    520: "the server behind Cloudflare sent an answer that it can't read",
    521: "the server behind Cloudflare is down",
    522: "the connection from Cloudflare to the server timed out",
    523: "Cloudflare can't reach the server",
    524: "the server behind Cloudflare took too long to answer",
    525: "the TLS handshake between Cloudflare and the server failed",
    526: "Cloudflare does not accept the server's certificate",
    527: "the connection between Cloudflare and the server broke",
    530: "Cloudflare can't find the server",
}
_OF_A_PROXY = "Put the proxy's name and password into HTTPS_PROXY: http://NAME:PASSWORD@HOST:PORT."
_OF_DISABLED = "Ask the organisation's administrator, or use the key of another one; waiting does not help."
# Bounded, because tags that are never closed would take quadratic time.
_TITLE = re.compile(r"<(title|h1)\b[^<>]{0,500}>(.{0,1000}?)</\1", re.IGNORECASE | re.DOTALL)
_PAGE = re.compile(r"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
_LONGEST_MESSAGE, _LONGEST_TITLE = 500, 120
# In characters: where the title of a page is looked for.
_BEGINNING_OF_A_PAGE = 16 * 1024
# A longer retry-after is a mistake, or means that no retry of this run is worth making.
_LONGEST_WAIT = 86_400.0


def from_status(status: int, body: Any, headers: Mapping[str, str], now: float) -> CallError:
    """The error for an answer whose status is not 2xx. `now` is Unix time in seconds."""
    detail = _error_of(body)
    kind = _kind(detail, headers)
    message = _text(detail.get("message")) or readable(body) or _CLOUDFLARE.get(status, "")
    text = f"The API answered {status}" + (f" {kind}" if kind else "") + (f": {message}" if message else "")
    error = _made(status, detail, kind, message, text)
    note_headers(error, headers, now)
    if error.request_id is None:
        error.request_id = _text(_member(body, "request_id")) or None
    return error


def from_body(body: Mapping[str, Any], opening: str = "The API answered 200") -> CallError:
    """The error in the body of a 200 or in an event of a stream. Its status follows from its type, or is the
    one it names, as by servers other than Anthropic's."""
    detail = _error_of(body)
    kind = _kind(detail, {}) or "error"
    message = _text(detail.get("message"))
    status = _status_of(detail)
    text = f"{opening} with {kind}" + (f": {message}" if message else "")
    error = _made(status, detail, kind, message, text)
    error.request_id = _text(_member(body, "request_id")) or None
    return error


def is_error(body: Mapping[str, Any]) -> bool:
    """Whether the body of a 200 is an error, in the form of this API or of others."""
    return body.get("type") == "error" or (bool(body.get("error")) and "content" not in body)


def _made(
    status: Optional[int],
    detail: Mapping[str, Any],
    kind: str,
    message: str,
    text: str,
) -> CallError:
    meaning = _meaning(status, detail, kind, message)
    error = meaning.error(text, advice=_advice(status, meaning), status=status, kind=kind or None)
    if error.fatal_for != meaning.fatal_for:
        error.fatal_for = meaning.fatal_for
    return error


def note_headers(error: CallError, headers: Mapping[str, str], now: float) -> None:
    """Adds what the answer's headers say: the request id, and whether and when to retry."""
    error.request_id = error.request_id or request_id(headers)
    if error.retry_after is None:
        error.retry_after = read_retry_after(headers, now)
    retry = headers.get("x-should-retry", "").strip().lower()
    if retry in ("true", "false") and (error.kind or error.status) and not isinstance(error, SpendLimitError):
        error.retryable = retry == "true"


def _meaning(status: Optional[int], detail: Mapping[str, Any], kind: str, message: str) -> Meaning:
    if _says_spend_limit(detail, message):
        return Meaning(SpendLimitError, RUN)
    if status in (400, 403) and _DISABLED.search(message):
        return Meaning(PermissionDeniedError, RUN)
    if status == 403 and not kind:
        # From a firewall, which may only object to the words of this request.
        return Meaning(PermissionDeniedError)
    if status == 400 and _status_of(detail) in (401, 404):
        # From a gateway whose error type says more than its status.
        return _of_status(_status_of(detail))
    if status in (400, 422) and _NO_SUCH_MODEL.search(message):
        return Meaning(RequestRefusedError, MODEL)
    return _of_status(status)


def _of_status(status: Optional[int]) -> Meaning:
    if status is None:
        return Meaning(ServerError)
    found = _BY_STATUS.get(status)
    if found is not None:
        return found
    if 400 <= status < 500:
        return Meaning(RequestRefusedError)
    return Meaning(BadReplyError if 100 <= status < 400 else ServerError)


def _advice(status: Optional[int], meaning: Meaning) -> Optional[str]:
    if status == 407:
        return _OF_A_PROXY
    if meaning == (PermissionDeniedError, RUN):
        return _OF_DISABLED
    if status is not None and 400 <= status < 500 and status not in _BY_STATUS:
        return f"Status {status} is not one that the API documents."
    return None


def request_id(headers: Mapping[str, str]) -> Optional[str]:
    """The service's id of the request."""
    return headers.get("request-id") or headers.get("x-amzn-requestid")


def parsed(text: str) -> Any:
    """Parses the body of an error as JSON; returns its text if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_retry_after(headers: Mapping[str, str], now: float) -> Optional[float]:
    """Seconds that the server asks to wait, by retry-after-ms or retry-after (RFC 9110, 10.2.3: seconds or a
    date). None if neither makes sense or the wait is longer than a day."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _wait(milliseconds / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    return _wait(seconds if seconds is not None else _seconds_until(value, now))


def _number(value: Optional[str]) -> Optional[float]:
    try:
        found = float(value) if value is not None else None
    except ValueError:
        return None
    # NaN and infinity are not times.
    return found if found is not None and abs(found) < float("inf") else None


def _seconds_until(date: str, now: float) -> Optional[float]:
    try:
        found = parsedate_to_datetime(date)
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp() - now
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _wait(seconds: Optional[float]) -> Optional[float]:
    return None if seconds is None or seconds > _LONGEST_WAIT else max(0.0, seconds)


def _status_of(detail: Mapping[str, Any]) -> Optional[int]:
    for name in ("type", "code", "status"):
        value = detail.get(name)
        found = _STATUS_OF_KIND.get(value.lower()) if isinstance(value, str) else None
        if found is not None:
            return found
    for name in ("code", "status"):
        code = str(detail.get(name))
        if len(code) == 3 and code.isdecimal() and 400 <= int(code) < 600:
            return int(code)
    return None


def _says_spend_limit(detail: Mapping[str, Any], message: str) -> bool:
    if _text(_member(detail.get("details"), "error_code")).endswith("spend_limit_reached"):
        return True
    kinds = {str(detail.get(name)).lower() for name in ("type", "code")}
    return bool(kinds & _SPENT_KINDS) or _SPENT.search(message) is not None


def _kind(detail: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The error's type: in the body, for Google under another name, for AWS in a header before a URL."""
    aws = headers.get("x-amzn-errortype", "").partition(":")[0]
    return _text(detail.get("type")) or _text(detail.get("status")) or _text(aws)


def _error_of(body: Any) -> Dict[str, Any]:
    if isinstance(body, list) and len(body) == 1:
        # Google wraps the error of a stream in a list.
        body = body[0]
    error = _member(body, "error")
    if isinstance(error, dict):
        return error
    # AWS sends only a message, which its services spell differently; others send a text.
    message = _member(body, "message") or _member(body, "Message") or _member(body, "detail") or error
    return {"message": message} if message else {}


def readable(body: Any) -> str:
    """The words of a body that is not JSON: its text, or the title of an HTML page."""
    if not isinstance(body, str) or _PAGE.match(body) is None:
        return _text(body)
    found = _TITLE.search(body[:_BEGINNING_OF_A_PAGE])
    title = " ".join(unescape(_TAG.sub(" ", found[2])).split()) if found else ""
    return _text(title[:_LONGEST_TITLE]) or "a page of HTML"


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Any) -> str:
    text = redact(value).strip() if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "..."
