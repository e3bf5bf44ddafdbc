"""The options of an orchestrator as one frozen object, and checks of the options of calls. Pure."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from operator import attrgetter
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Literal,
    Mapping,
    Optional,
    Sequence,
    Type,
    TypeVar,
    Union,
)

from . import settings
from .errors import InvalidOptionError
from .formatting import Wording, naming, option

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec, dataclass_transform

    from .limits.prices import Prices
    from .response_cache import ResponseCache
    from .tools.grant import GrantOption
    from .types import Clock, Observer

    P = ParamSpec("P")
else:

    def dataclass_transform(**_: Any) -> Any:
        """Does nothing at run time."""
        return lambda function: function


S = TypeVar("S")
T = TypeVar("T")

AUTO = "auto"
# An int from 1 up, or AUTO.
MaxConcurrent = Union[int, Literal["auto"]]

# Fields of the Messages API that a call can't set, and what sets them.
_SET_BY_THE_ENGINE = {
    "messages": "the task is the only message",
    "stream": "the orchestrator has it, as `stream`",
    "system": "the agent's file is the system prompt",
}
# Options of a call that are not fields of its request.
_NOT_SENT = frozenset({"cache_ttl", "max_tokens", "model", "timeout"})


@dataclass_transform(field_specifiers=(field,))
def _frozen(*, kw_only: bool = False) -> Callable[[Type[T]], Type[T]]:
    """Makes a frozen dataclass. Type checkers don't see that it is frozen: see `Configurable`."""
    # Dataclasses have keyword-only fields since Python 3.10; before, those can be given by position too.
    named = {"kw_only": kw_only} if sys.version_info >= (3, 10) else {}
    return dataclass(frozen=True, eq=False, **named)


_NO_TOOL_OPTIONS = (settings.NO_TOOLS, None, None, ())


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
    base_url: Optional[str] = field(default=None, repr=False)
    deadline_seconds: Optional[float] = None
    quiet_seconds: float = settings.QUIET_SECONDS
    stream: bool = True
    observers: Sequence[Observer] = ()
    durable: Optional[str] = field(default=None, repr=False)
    clock: Optional[Clock] = None
    tools: GrantOption = settings.NO_TOOLS
    max_turns: Optional[int] = None
    max_tool_calls: Optional[int] = None
    add_dirs: Sequence[Union[str, Path]] = ()


@_frozen()
class Options(_ByName, _Positional):
    """All options of an orchestrator. Raises InvalidOptionError for an invalid limit."""

    def __post_init__(self) -> None:
        if self.max_concurrent != AUTO:
            _check_whole("max_concurrent", self.max_concurrent, f", or {AUTO!r}")
        _check_whole("max_retries", self.max_retries)
        for name in ("timeout_seconds", "deadline_seconds", "quiet_seconds"):
            _check_positive(name, getattr(self, name), "of seconds")
        if self.quiet_seconds is None:
            raise InvalidOptionError("quiet_seconds is None; it must be a number of seconds above 0.")
        if not isinstance(self.base_url, (str, type(None))) or self.base_url == "":
            # An empty one must not send calls to Anthropic's API, which costs money.
            raise InvalidOptionError(f"base_url is {self.base_url!r}; it must be an address, or None.")
        if (self.tools, self.max_turns, self.max_tool_calls, self.add_dirs) != _NO_TOOL_OPTIONS:
            # A call without tools loads none of it.
            from .tool_options import check_defaults

            check_defaults(self.tools, self.max_turns, self.max_tool_calls, self.add_dirs)
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
    """Decorates an `__init__` that takes an object of `kind`: it then takes the arguments of `kind`."""

    def decorate(method: Callable[[Any, T], None]) -> Callable[Concatenate[Any, P], None]:
        @wraps(kind.__init__)
        def init(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
            method(self, kind(*args, **kwargs))

        init.__doc__ = method.__doc__
        return init

    return decorate


def delegated(attribute: str, method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Makes a method that calls that method of the object in `attribute`, which may be "a.b"."""
    part = attrgetter(attribute)

    @wraps(method)
    def call(self: Any, /, *args: P.args, **options: P.kwargs) -> T:
        return method(part(self), *args, **options)

    first, _, rest = (method.__doc__ or "").partition("\n\n")
    call.__doc__ = f"{first}\n\nFor more, see `{method.__qualname__}`." if rest else first
    return call


def _attribute(name: str) -> property:
    def read(self: Any) -> Any:
        return getattr(self._options, name)

    def write(self: Any, value: Any) -> None:
        self._configure(replace(self._options, **{name: value}), name)

    # The parts of an orchestrator are made with these two, once.
    return property(read, None if name in ("durable", "clock") else write)


if TYPE_CHECKING:
    # An orchestrator has the attributes of Options, and they can be set.
    Configurable = Options
else:

    class Configurable:
        """Base of classes with each option as an attribute. Setting one replaces the frozen options."""

        _options: Options

        def _configure(self, options: Options, changed: str) -> None:
            """Called when an option was set; `changed` is its name."""
            self._options = options

    for _option in fields(Options):
        setattr(Configurable, _option.name, _attribute(_option.name))


def check_rates(**rates: Any) -> None:
    """Raises InvalidOptionError unless each is None or a number above 0."""
    for name, value in rates.items():
        _check_positive(name, value, "for each minute")


def check_call_options(options: Mapping[str, Any]) -> None:
    """Checks what a caller sets for one call. Raises InvalidOptionError.

    Refuses an invalid limit, a field of the API that a call can't set, and a value without a JSON form.
    """
    if options.get("max_tokens") is not None:
        _check_whole("max_tokens", options["max_tokens"])
    ttl = options.get("cache_ttl", "5m")
    if ttl not in ("5m", "1h"):
        text = f"{{}} is {_escaped(ttl)}; the prompt cache keeps a prompt '5m' or '1h'."
        raise InvalidOptionError(naming(text, "cache_ttl"))
    for name in sorted(options.keys() - _NOT_SENT):
        if name in _SET_BY_THE_ENGINE:
            raise InvalidOptionError(
                f"Option {name!r} can't be set for a call: {_SET_BY_THE_ENGINE[name]}. Leave it out."
            )
        reason = _why_no_json(options[name])
        if reason is not None:
            raise InvalidOptionError(f"Option {name!r} can't be written as JSON: {reason}.")


# Fields that decide what a call costs.
_PRICED_FIELDS = frozenset({"thinking", "tools", "service_tier", "speed", "inference_geo"})
_PRICED = frozenset({"model", "max_tokens", *_PRICED_FIELDS})


def priced_options(options: Dict[str, Any]) -> Dict[str, Any]:
    """Returns the options with those that decide the cost where budgets and prices look: outside
    `extra_body`, and as plain data. Raises InvalidOptionError for one without a JSON form."""
    body = options.get("extra_body")
    if isinstance(body, Mapping) and not _PRICED.isdisjoint(body):
        priced = {name: body[name] for name in _PRICED.intersection(body)}
        rest = {name: value for name, value in body.items() if name not in _PRICED}
        options = {**options, **priced, "extra_body": rest}
    if _PRICED_FIELDS.isdisjoint(options):
        return options
    return {**options, **{name: _plain(options[name]) for name in _PRICED_FIELDS.intersection(options)}}


def _plain(value: Any) -> Any:
    try:
        json.dumps(value)
    except TypeError:
        from .transport.request import to_json

        return json.loads(to_json({"": value}))[""]
    except ValueError:
        # `check_call_options` says why.
        pass
    return value


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


def _check_whole(name: str, value: Any, more: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        text = f"{{}} is {_escaped(value)}; it must be a whole number from 1 up{more}."
        raise InvalidOptionError(naming(text, name))


def _check_positive(name: str, value: Any, what: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        rule = f"it must be a number {what} above 0"
        typed = f"{value:g}" if isinstance(value, float) else repr(value)
        raise InvalidOptionError(
            Wording(f"{name} is {value!r}; {rule}, or None.", f"{option(name)} is {typed}; {rule}.")
        )


def _escaped(value: Any) -> str:
    """Returns the repr of a value, to be put into a text for `str.format`."""
    return repr(value).replace("{", "{{").replace("}", "}}")
