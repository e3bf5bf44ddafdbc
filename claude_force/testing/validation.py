"""What the API refuses before it does any work. Pure; raises Refused."""

from __future__ import annotations

from typing import Any, Mapping

from .replies import Refused
from .request_log import RecordedRequest


def check_key(headers: Mapping[str, str]) -> None:
    """401 unless there is a key or a bearer token; any value of them will do."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if headers.get("x-api-key", "").strip() or (scheme.lower() == "bearer" and token.strip()):
        return
    raise Refused(401, "x-api-key header is required")


def check_prompt(received: RecordedRequest) -> None:
    """400 unless the body has a model and messages."""
    body = received.body
    if not body and received.raw.strip() != b"{}":
        raise Refused(400, "The request body is not a valid JSON object")
    if not isinstance(_required(body, "model"), str) or not body["model"]:
        raise Refused(400, "model: Input should be a valid string")
    messages = _required(body, "messages")
    if not isinstance(messages, list):
        raise Refused(400, "messages: Input should be a valid list")
    if not messages:
        raise Refused(400, "messages: at least one message is required")
    for number, message in enumerate(messages):
        _check_message(f"messages.{number}", message)
    _check_content("system", body.get("system", []))


def check_max_tokens(body: Mapping[str, Any]) -> None:
    """400 unless `max_tokens` is a whole number from 1 up."""
    value = _required(body, "max_tokens")
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(400, "max_tokens: Input should be a valid integer")
    if value < 1:
        raise Refused(400, "max_tokens: Input should be greater than or equal to 1")


def _check_message(place: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise Refused(400, f"{place}: Input should be a valid dictionary")
    if message.get("role") not in ("user", "assistant"):
        raise Refused(400, f"{place}.role: Input should be 'user' or 'assistant'")
    content = _required(message, "content", f"{place}.")
    if content in ("", []):
        raise Refused(400, f"{place}: all messages must have non-empty content")
    _check_content(f"{place}.content", content)


def _check_content(place: str, content: Any) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise Refused(400, f"{place}: Input should be a valid string or list")
    for number, block in enumerate(content):
        if not isinstance(block, dict):
            raise Refused(400, f"{place}.{number}: Input should be a valid dictionary")
        if block.get("type") == "text":
            _check_text(f"{place}.{number}.text", block.get("text"))


def _check_text(place: str, text: Any) -> None:
    if not isinstance(text, str):
        raise Refused(400, f"{place}: Input should be a valid string")
    if not text:
        raise Refused(400, f"{place}: text content blocks must be non-empty")


def _required(fields: Mapping[str, Any], name: str, place: str = "") -> Any:
    if name not in fields:
        raise Refused(400, f"{place}{name}: Field required")
    return fields[name]
