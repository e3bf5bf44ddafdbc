"""Options of an orchestrator and of a call: one frozen object holds those of an orchestrator. Pure."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal, Mapping, Optional, Sequence, Type, TypeVar, Union

from . import settings
from .advice import Wording, naming, option
from .errors import InvalidOptionError

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec, dataclass_transform

    from .clock import Clock
    from .limits.budget import Prices
    from .response_cache import ResponseCache
    from .types import Observer

    P = ParamSpec("P")
else:

    def dataclass_transform(**_: Any) -> Any:
        """Says something to type checkers only."""
        return lambda function: function


T = TypeVar("T")

AUTO = "auto"
# A whole number from 1 up, or AUTO.
MaxConcurrent = Union[int, Literal["auto"]]

# Fields of the Messages API that are no call's to choose, and what decides them.
_SET_BY_THE_ENGINE = {
    "messages": "the task is the only message",
    "stream": "the orchestrator has it, as `stream`",
    "system": "the agent's file is the system prompt",
}


@dataclass_transform(field_specifiers=(field,))
def _frozen(*, kw_only: bool = False) -> Callable[[Type[T]], Type[T]]:
    """A frozen dataclass. Type checkers see attributes that can be set, which those of orchestrators can."""
    # Before Python 3.10 no dataclass has keyword-only fields: there they may be given by position as well.
    named = {"kw_only": kw_only} if sys.version_info >= (3, 10) else {}
    return dataclass(frozen=True, eq=False, **named)


@_frozen()
class _Positional:
    """Options that may be given by position, as in claude-force 1.x."""

    config_path: Union[str, Path, None] = None
    api_key: Optional[str] = field(default=None, repr=False)
    max_concurrent: MaxConcurrent = settings.MAX_CONCURRENT
    timeout_seconds: Optional[float] = settings.TIMEOUT_SECONDS
    max_retries: int = settings.MAX_ATTEMPTS
    enable_tracking: bool = True
    enable_memory: bool = True
    enable_cache: bool = True
    cache_ttl_hours: float = settings.CACHE_TTL_HOURS
    cache_max_size_mb: float = settings.CACHE_MAX_SIZE_MB


@_frozen(kw_only=True)
class _ByName:
    """Options that are given by name. A new one is a line here; AsyncAgentOrchestrator documents it."""

    response_cache: Optional[ResponseCache] = None
    budget_usd: Optional[float] = None
    prices: Optional[Prices] = None
    rpm: Optional[float] = None
    input_tpm: Optional[float] = None
    output_tpm: Optional[float] = None
    base_url: Optional[str] = None
    deadline_seconds: Optional[float] = None
    quiet_seconds: float = settings.QUIET_SECONDS
    stream: bool = True
    observers: Sequence[Observer] = ()
    durable: Optional[str] = field(default=None, repr=False)
    clock: Optional[Clock] = None


@_frozen()
class Options(_ByName, _Positional):
    """All options of an orchestrator. Raises InvalidOptionError for a senseless limit."""

    def __post_init__(self) -> None:
        check_limits(
            *(self.max_concurrent, self.timeout_seconds, self.max_retries),
            *(self.deadline_seconds, self.quiet_seconds),
        )
        check_rates(rpm=self.rpm, input_tpm=self.input_tpm, output_tpm=self.output_tpm)
        if not isinstance(self.observers, list):
            object.__setattr__(self, "observers", list(self.observers))


@_frozen()
class _SyncPositional:
    config_path: Union[str, Path, None] = None
    anthropic_api_key: Optional[str] = field(default=None, repr=False)
    enable_tracking: bool = True
    enable_memory: bool = True
    validate_api_key: bool = False


@_frozen(kw_only=True)
class SyncOptions(_ByName, _SyncPositional):
    """The same options with the names and positions that AgentOrchestrator had in claude-force 1.x."""

    api_key: Optional[str] = field(default=None, repr=False)
    max_concurrent: MaxConcurrent = settings.MAX_CONCURRENT
    timeout_seconds: Optional[float] = settings.TIMEOUT_SECONDS
    max_retries: int = settings.MAX_ATTEMPTS
    enable_cache: bool = True
    cache_ttl_hours: float = settings.CACHE_TTL_HOURS
    cache_max_size_mb: float = settings.CACHE_MAX_SIZE_MB

    def as_options(self) -> Options:
        """Raises InvalidOptionError."""
        given = {one.name: getattr(self, one.name) for one in fields(Options)}
        return Options(**{**given, "api_key": self.api_key or self.anthropic_api_key})


def takes(kind: Callable[P, T]) -> Callable[[Callable[[Any, T], None]], Callable[Concatenate[Any, P], None]]:
    """Decorates an `__init__` that takes one object of `kind`: it then takes the arguments that make one."""

    def decorate(method: Callable[[Any, T], None]) -> Callable[Concatenate[Any, P], None]:
        @wraps(kind.__init__)
        def init(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
            method(self, kind(*args, **kwargs))

        init.__doc__ = method.__doc__
        return init

    return decorate


def _attribute(name: str) -> property:
    def read(self: Any) -> Any:
        return getattr(self._options, name)

    def write(self: Any, value: Any) -> None:
        self._configure(replace(self._options, **{name: value}), name)

    # The parts of an orchestrator are made with these two.
    return property(read, None if name in ("durable", "clock") else write)


if TYPE_CHECKING:
    Configurable = Options
else:

    class Configurable:
        """Has each option as an attribute. Setting one makes new options, which hold from the next call."""

        _options: Options

        def _configure(self, options: Options, changed: str) -> None:
            """`changed` is the name of the option that was set."""
            self._options = options

    for _option in fields(Options):
        setattr(Configurable, _option.name, _attribute(_option.name))


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
        # Not sent.
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
        # Dates and pydantic models have a form: see transport.request.to_json.
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
