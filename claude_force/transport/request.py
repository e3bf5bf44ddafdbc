"""Builds requests to the Messages API: body, headers and query. Pure.

The table of fields is here, not the installed SDK's, so that every field can be sent on every Python. Source:
the Messages API reference, chapter "Create a Message", and `messages.create` of the newest SDK.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from .. import settings
from ..errors import InvalidOptionError
from ..types import Call

if TYPE_CHECKING:
    from ..conversation import Conversation

# Sent in the body as they are given.
BODY_FIELDS = frozenset(
    {
        *("model", "max_tokens", "messages", "system", "stream", "metadata", "stop_sequences", "thinking"),
        *("temperature", "top_k", "top_p", "tools", "tool_choice", "service_tier", "container"),
        *("cache_control", "output_config", "inference_geo", "speed", "diagnostics"),
    }
)
# Sent as headers.
HEADER_FIELDS: Mapping[str, str] = {
    "user_profile_id": "anthropic-user-profile-id",
    "workspace_id": "anthropic-workspace-id",
    "betas": "anthropic-beta",
}
# As in the SDK's methods. `timeout` is in seconds, for connecting and for each read.
CLIENT_FIELDS = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
_KNOWN = frozenset({*BODY_FIELDS, *HEADER_FIELDS, *CLIENT_FIELDS})

# A wrong length would make the rest of a request the beginning of the next one.
_OF_THE_CONNECTION = frozenset({"content-length", "transfer-encoding", "expect"})
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_LONGEST_TIMEOUT = 2**31

VERSION_HEADER = "anthropic-version"
_CACHE_CONTROL: Mapping[str, Mapping[str, str]] = {
    "5m": {"type": "ephemeral"},
    "1h": {"type": "ephemeral", "ttl": "1h"},
}
_OF_A_CONVERSATION = ("tools", "tool_choice", "messages")


class JsonText(NamedTuple):
    """The value of a field as pieces of JSON text in UTF-8, which are sent as they stand."""

    pieces: Sequence[bytes]


class Request(NamedTuple):
    """What is particular to one request. `headers` override those of all requests."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    query: Mapping[str, Any]
    timeout: Any


def request_fields(call: Call, stream: bool) -> Dict[str, Any]:
    """The fields of the request for a call, with the cache breakpoint on the last block of `system`."""
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
    if call.conversation is not None:
        fields.update(_conversation_fields(call.conversation, call.cache_ttl))
    return fields


def _conversation_fields(conversation: Conversation, cache_ttl: str) -> Dict[str, Any]:
    """Tools and messages, neither decoded nor encoded again: the prompt cache knows them by their bytes."""
    fields: Dict[str, Any] = {}
    if conversation.tools != "[]":
        fields["tools"] = JsonText([conversation.tools.encode("utf-8", "surrogatepass")])
    fields["messages"] = JsonText(conversation.messages_json(json.dumps(_CACHE_CONTROL[cache_ttl])))
    if conversation.tool_choice == "none" and "tools" in fields:
        fields["tool_choice"] = {"type": "none"}
    return fields


def check_conversation(options: Mapping[str, Any]) -> None:
    """Raises InvalidOptionError for an option in the place of what a conversation has of its own."""
    for given in (options, options.get("extra_body") or {}):
        for name in _OF_A_CONVERSATION:
            if name in given:
                raise InvalidOptionError(
                    f"Option {name!r} can't be given to an agent that uses its tools: they set it. Leave the "
                    "option out, or run the agent without tools."
                )


def check_fields(options: Mapping[str, Any]) -> None:
    """Raises InvalidOptionError for an unknown option, or one of the wrong type."""
    for name in sorted(options.keys() - _KNOWN):
        near = difflib.get_close_matches(name, _KNOWN, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidOptionError(
            f"The Messages API has no option {name!r}.{hint} A field that is newer than this package can be "
            "sent in extra_body."
        )
    for name in sorted(options.keys() & {"extra_headers", "extra_query", "extra_body"}):
        if not isinstance(options[name] or {}, Mapping):
            raise InvalidOptionError(f"Option {name!r} is not a mapping of names to values.")
    seconds = options.get("timeout")
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 < seconds < _LONGEST_TIMEOUT):
        raise InvalidOptionError("Option 'timeout' is not a number of seconds above 0.")
    for name in sorted(options.keys() & {"extra_headers", *HEADER_FIELDS}):
        _check_headers(name, options[name])


def _check_headers(name: str, value: Any) -> None:
    if value is None or (name == "extra_headers" and not value):
        return
    texts = value if name == "betas" and isinstance(value, (list, tuple)) else [value]
    for headers in [value] if name == "extra_headers" else [{name: text} for text in texts]:
        reason = wrong_header(headers)
        if reason is not None:
            raise InvalidOptionError(f"Option {name!r} can't be sent: {reason}.")


def wrong_header(headers: Mapping[Any, Any]) -> Optional[str]:
    """Why one of these headers can't be sent; None if all can."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            return f"{name!r} is not the name of a header"
        if name.lower() in _OF_THE_CONNECTION:
            return f"{name!r} belongs to the connection, so leave it out"
        if not isinstance(value, str) or not value.replace("\t", " ").isprintable():
            return f"the value of {name!r} is not text on one line"
    return None


def is_plain(fields: Mapping[str, Any]) -> bool:
    """Whether all fields go into the body, under the ordinary version of the API."""
    return BODY_FIELDS.issuperset(fields) and settings.SAMPLING.isdisjoint(fields)


def to_request(fields: Mapping[str, Any], pins_version: bool) -> Request:
    """Sorts fields into body, headers and query as the newest SDK does. `extra_...` win.

    `pins_version`: the user names a version for all requests, so sampling does not change it.
    """
    body = {name: value for name, value in fields.items() if name in BODY_FIELDS}
    headers = {}
    if not pins_version and not settings.SAMPLING.isdisjoint(fields):
        headers[VERSION_HEADER] = settings.API_VERSION_WITH_SAMPLING
    for name, header in HEADER_FIELDS.items():
        if fields.get(name) is not None:
            value = fields[name]
            headers[header] = value if isinstance(value, str) else ",".join(map(str, value))
    headers.update(fields.get("extra_headers") or {})
    body.update(fields.get("extra_body") or {})
    return Request(body, headers, fields.get("extra_query") or {}, fields.get("timeout"))


def to_json(body: Mapping[str, Any]) -> bytes:
    """The body as JSON; pydantic models and dates are written as by the SDK.

    Raises InvalidOptionError for other objects.
    """
    try:
        return _encoder.encode(body).encode()
    except (TypeError, ValueError) as error:
        raise InvalidOptionError(f"An option can't be written as JSON: {error}.") from error


def to_body(body: Mapping[str, Any]) -> Union[bytes, List[bytes]]:
    """The body as JSON, in pieces where it has a conversation: joined, they would be copied once more.

    Raises InvalidOptionError as `to_json`.
    """
    return _spliced(body) if isinstance(body["messages"], JsonText) else to_json(body)


def _spliced(body: Mapping[str, Any]) -> List[bytes]:
    texts = {name: value for name, value in body.items() if isinstance(value, JsonText)}
    others = to_json({name: value for name, value in body.items() if name not in texts})
    pieces = [others[: -len(b"}")]]
    # Messages last: whatever is before them is the same in all requests of a loop.
    for name, text in sorted(texts.items(), reverse=True):
        pieces += (f',"{name}":'.encode(), *text.pieces)
    return [*pieces, b"}"]


def to_objects(body: Mapping[str, Any]) -> Dict[str, Any]:
    """The body with all values decoded."""
    return {
        name: json.loads(b"".join(value.pieces)) if isinstance(value, JsonText) else value
        for name, value in body.items()
    }


def to_query(values: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """Query parameters as the SDK writes them: lists as `name[]`, mappings as `name[key]`."""
    return [pair for name, value in values.items() for pair in _query_pairs(str(name), value)]


def _query_pairs(name: str, value: Any) -> Iterator[Tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _query_pairs(f"{name}[{key}]", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _query_pairs(f"{name}[]", inner)
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _json_form(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder = json.JSONEncoder(default=_json_form, allow_nan=False)
