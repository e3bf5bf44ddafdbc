"""The text form of calls and outcomes, and the ids of calls. Pure.

Texts are JSON. Reading one creates nothing but this package's own types: errors are looked up by name.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

from ..cache.request_key import RequestKey, request_key
from ..conversation import Conversation, content_of, stored_content
from ..engine.call_settings import CallSettings
from ..engine.result_json import error_fields, error_from
from ..errors import CallError, ClaudeForceError, InvalidOptionError
from ..limits.call_context import CallContext
from ..limits.prices import Prices
from ..types import Attempt, Call, Reply, Usage

# Part of DBOS's application version: workers take only calls in their format, the others stay queued.
FORMAT = 2

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

Outcome = Union[Reply, ClaudeForceError]


def checked_run_id(given: Optional[str]) -> str:
    """Returns the given id, else a new one. Raises InvalidOptionError for characters that ids can't have."""
    if given is not None and not _RUN_ID.fullmatch(given):
        raise InvalidOptionError(f"run_id is {given!r}; use up to 64 letters, digits, '_' and '-'.")
    return given or uuid.uuid4().hex


def checked_request_key(call: Call, settings: CallSettings) -> RequestKey:
    """Returns what identifies the call. Raises InvalidOptionError for an option that is not plain data."""
    key = request_key(call, settings.service)
    if key is None:
        raise _not_plain(call)
    return key


def new_call_id(context: CallContext, key: RequestKey) -> str:
    """Returns "run:place:fingerprint": the same id for the same text in the same place of a run."""
    return f"{context.call_id or 'call-' + uuid.uuid4().hex}:{key.digest().hex()}"


def run_of(call_id: str) -> str:
    return call_id.partition(":")[0]


@dataclass(frozen=True)
class CallRequest:
    """What a worker is given to make a call. Contains no credentials.

    Attributes:
        policy: the cache policy, as of `execute_agent`.
        budgets: ids of the budgets that pay for it.
        prices: the caller's own, in USD per million tokens, by model.

    Example: `load_request(dump_request(CallRequest(call, "use")))` equals the request.
    """

    call: Call
    policy: str
    first_of_many: bool = False
    budgets: Tuple[str, ...] = ()
    prices: Prices = field(default_factory=dict)


def dump_request(request: CallRequest) -> str:
    """Raises InvalidOptionError for an option that is not plain data."""
    try:
        return _dumps({"format": FORMAT, **_request_fields(request)})
    except (TypeError, ValueError) as error:
        raise _not_plain(request.call, f": {error}") from error


def _request_fields(request: CallRequest) -> Dict[str, Any]:
    conversation = request.call.conversation
    fields = asdict(replace(request, call=replace(request.call, conversation=None)))
    del fields["call"]["conversation"]
    if conversation is not None:
        fields["call"]["conversation"] = conversation.to_fields()
    return fields


def _not_plain(call: Call, why: str = "") -> InvalidOptionError:
    return InvalidOptionError(
        f"An option of the call to {call.agent_name} can't be written to the database{why}. "
        "Give plain values: text, numbers, lists and dicts."
    )


def load_request(text: str) -> CallRequest:
    """Reads the text of `dump_request`."""
    fields = json.loads(text)
    given = fields["call"]
    if "conversation" in given:
        given["conversation"] = Conversation.from_fields(given["conversation"])
    call = Call(**{**given, "system": tuple(given["system"])})
    return CallRequest(
        call, fields["policy"], fields["first_of_many"], tuple(fields["budgets"]), dict(fields["prices"])
    )


def dump_outcome(outcome: Outcome, began: float, budgets: Tuple[str, ...] = ()) -> Tuple[str, str]:
    """Returns an outcome's figures and its text, both as JSON.

    `began` is the start of the call on the clock of its attempts; `budgets` are ids of those that paid.
    """
    charged = {"budgets": budgets} if budgets else {}
    if isinstance(outcome, Reply):
        reply = {**outcome.__dict__, "usage": asdict(outcome.usage)}
        reply["timeline"] = _times(outcome.timeline, began)
        text = reply.pop("text")
        if reply.pop("content"):
            reply["content"] = stored_content(outcome.content)
        return _dumps({"reply": reply, **charged}), _dumps(text)
    fields = error_fields(outcome)
    if isinstance(outcome, CallError):
        fields = {**fields, "timeline": _times(outcome.timeline, began)}
    return _dumps({"error": fields, **charged}, str), '""'


def load_outcome(figures: str, text: str, now: float) -> Outcome:
    """Reads the texts of `dump_outcome`. The timeline ends at `now`, on the reader's clock."""
    fields = json.loads(figures)
    if "error" in fields:
        return _load_error(fields["error"], now)
    reply = fields["reply"]
    reply["usage"] = Usage(**reply["usage"])
    reply["timeline"] = _timeline(reply["timeline"], now)
    reply["content"] = content_of(reply.get("content", [])) or ()
    return Reply(text=json.loads(text), **reply)


def charged_budgets(figures: str) -> Tuple[str, ...]:
    """Returns the ids of the budgets that paid for the outcome."""
    return tuple(json.loads(figures).get("budgets", ()))


def _dumps(value: Any, default: Optional[Callable[[Any], str]] = None) -> str:
    """Returns JSON that a text column takes: without NUL characters and lone surrogates.

    `default` makes text of values that JSON doesn't know.
    """
    text = json.dumps(value, ensure_ascii=False, default=default)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=default)
    return text


def _times(timeline: Tuple[Attempt, ...], began: float) -> Any:
    return [[one.began - began, one.ended - began, one.window, one.error] for one in timeline]


def _timeline(times: Any, now: float) -> Tuple[Attempt, ...]:
    """Shifts the attempts so that the last one ended now: worker and driver have different clocks."""
    shift = now - times[-1][1] if times else 0.0
    return tuple(
        Attempt(began + shift, ended + shift, window, error) for began, ended, window, error in times
    )


def _load_error(fields: Mapping[str, Any], now: float) -> ClaudeForceError:
    error = error_from(fields, CallError)
    if isinstance(error, CallError):
        error.timeline = _timeline(fields.get("timeline", ()), now)
    return error
