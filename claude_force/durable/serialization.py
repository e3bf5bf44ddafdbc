"""Calls and their outcomes as JSON text, there and back. Pure.

Nothing here can make an object of any other kind: errors come back by name, out of this package's own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

from ..engine.result_json import error_fields, error_from
from ..errors import CallError, ClaudeForceError, InvalidOptionError
from ..limits.budget import Prices
from ..types import Attempt, Call, Reply, Usage

# A worker takes only calls of its own format: DBOS keeps those of others queued for workers that know them.
FORMAT = 2


@dataclass(frozen=True)
class CallRequest:
    """A call, and what holds for it wherever it is made. No credentials.

    `prices` are the caller's own by model, in USD per million tokens. `budgets` are ids.
    """

    call: Call
    policy: str
    first_of_many: bool = False
    budgets: Tuple[str, ...] = ()
    prices: Prices = field(default_factory=dict)


Outcome = Union[Reply, ClaudeForceError]


def order_text(order: CallRequest) -> str:
    """Raises InvalidOptionError for an option that has no written form."""
    try:
        return _plain_text({"format": FORMAT, **asdict(order)})
    except (TypeError, ValueError) as error:
        raise InvalidOptionError(
            f"An option of the call to {order.call.agent_name} can't be handed to a worker: {error}. "
            "Give plain values: text, numbers, lists and dicts."
        ) from error


def read_order(text: str) -> CallRequest:
    """What `order_text` wrote."""
    plain = json.loads(text)
    given = plain["call"]
    call = Call(**{**given, "system": tuple(given["system"])})
    return CallRequest(
        call, plain["policy"], plain["first_of_many"], tuple(plain["budgets"]), dict(plain["prices"])
    )


def outcome_texts(outcome: Outcome, began: float, budgets: Tuple[str, ...] = ()) -> Tuple[str, str]:
    """The figures and the answer's text, both as JSON. `began` is when the call did, on the clock of its
    attempts; `budgets` are ids of those that it was charged to."""
    charged = {"budgets": budgets} if budgets else {}
    if isinstance(outcome, Reply):
        plain = {**outcome.__dict__, "usage": asdict(outcome.usage)}
        plain["timeline"] = _times(outcome.timeline, began)
        text = plain.pop("text")
        return _plain_text({"reply": plain, **charged}), _plain_text(text)
    return _plain_text({"error": _error_fields(outcome, began), **charged}, str), '""'


def read_outcome(figures: str, text: str, now: float) -> Outcome:
    """The same for one to whom it is delivered at `now`, on the clock that its attempts are to be told by."""
    plain = json.loads(figures)
    if "error" in plain:
        return _error(plain["error"], now)
    reply = plain["reply"]
    reply["usage"] = Usage(**reply["usage"])
    reply["timeline"] = _attempts(reply["timeline"], now)
    return Reply(text=json.loads(text), **reply)


def charged_to(figures: str) -> Tuple[str, ...]:
    """Ids of the budgets that the outcome was charged to."""
    return tuple(json.loads(figures).get("budgets", ()))


def _plain_text(value: Any, otherwise: Optional[Callable[[Any], str]] = None) -> str:
    """JSON that a database takes as text: no NUL stands in it, and no half of a surrogate pair. `otherwise`
    makes text of what has no written form."""
    text = json.dumps(value, ensure_ascii=False, default=otherwise)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=otherwise)
    return text


def _times(timeline: Tuple[Attempt, ...], began: float) -> Any:
    return [[one.began - began, one.ended - began, one.window, one.error] for one in timeline]


def _attempts(times: Any, now: float) -> Tuple[Attempt, ...]:
    """As if the last of them had ended now: the worker's clock is not the driver's."""
    if not times:
        return ()
    shift = now - times[-1][1]
    return tuple(
        Attempt(began + shift, ended + shift, window, error) for began, ended, window, error in times
    )


def _error_fields(error: ClaudeForceError, began: float) -> Dict[str, Any]:
    fields = error_fields(error)
    return {**fields, "timeline": _times(error.timeline, began)} if isinstance(error, CallError) else fields


def _error(fields: Mapping[str, Any], now: float) -> ClaudeForceError:
    error = error_from(fields, CallError)
    if isinstance(error, CallError):
        error.timeline = _attempts(fields.get("timeline", ()), now)
    return error
