"""Limits that a caller sets: what makes no sense is refused before anything is sent. Pure."""

from __future__ import annotations

import json
from typing import Any, Literal, Mapping, Optional, Union

from . import settings
from .advice import Wording, naming, option
from .errors import InvalidOptionError

AUTO = "auto"
# A whole number from 1 up, or AUTO.
MaxConcurrent = Union[int, Literal["auto"]]

# Fields of the Messages API that are no call's to choose, and what decides them.
_SET_BY_THE_ENGINE = {
    "messages": "the task is the only message",
    "stream": "the orchestrator has it, as `stream`",
    "system": "the agent's file is the system prompt",
}


def check_limits(
    max_concurrent: Any,
    timeout_seconds: Any,
    max_retries: Any,
    deadline_seconds: Any,
    quiet_seconds: Any = settings.QUIET_SECONDS,
) -> None:
    """Raises InvalidOptionError that names the limit and what it may be."""
    if max_concurrent != AUTO:
        _whole("max_concurrent", max_concurrent, f", or {AUTO!r}")
    _whole("max_retries", max_retries)
    _above_zero("timeout_seconds", timeout_seconds, "of seconds")
    _above_zero("deadline_seconds", deadline_seconds, "of seconds")
    if quiet_seconds is None:
        raise InvalidOptionError("quiet_seconds is None; it must be a number of seconds above 0.")
    _above_zero("quiet_seconds", quiet_seconds, "of seconds")


def check_max_tokens(max_tokens: Any) -> None:
    """Raises InvalidOptionError unless it is a whole number from 1 up."""
    _whole("max_tokens", max_tokens)


def check_rates(**rates: Any) -> None:
    """Raises InvalidOptionError unless each is None or a number above 0."""
    for name, value in rates.items():
        _above_zero(name, value, "for each minute")


def check_cache_ttl(ttl: Any) -> None:
    """Raises InvalidOptionError unless the API's prompt cache has it."""
    if ttl not in ("5m", "1h"):
        text = f"{{}} is {_shown(ttl)}; the prompt cache keeps a prompt '5m' or '1h'."
        raise InvalidOptionError(naming(text, "cache_ttl"))


def check_options(options: Mapping[str, Any]) -> None:
    """Raises InvalidOptionError for a field that would be overwritten, and for one that has no JSON."""
    for name in sorted(options):
        if name in _SET_BY_THE_ENGINE:
            raise InvalidOptionError(
                f"Option {name!r} can't be set for a call: {_SET_BY_THE_ENGINE[name]}. Leave it out."
            )
        # The SDK's own is no field.
        reason = None if name == "timeout" else _why_no_json(options[name])
        if reason is not None:
            raise InvalidOptionError(f"Option {name!r} can't be written as JSON: {reason}.")


def _why_no_json(value: Any) -> Optional[str]:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "it has half a surrogate pair"
    except (ValueError, RecursionError) as error:
        return str(error)
    except TypeError:
        # The SDK may have a form for it.
        return None
    return None


def _whole(name: str, value: Any, more: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        text = f"{{}} is {_shown(value)}; it must be a whole number from 1 up{more}."
        raise InvalidOptionError(naming(text, name))


def _above_zero(name: str, value: Any, what: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        rule = f"it must be a number {what} above 0"
        typed = f"{value:g}" if isinstance(value, float) else repr(value)
        raise InvalidOptionError(
            Wording(f"{name} is {value!r}; {rule}, or None.", f"{option(name)} is {typed}; {rule}.")
        )


def _shown(value: Any) -> str:
    """For `str.format`."""
    return repr(value).replace("{", "{{").replace("}", "}}")
