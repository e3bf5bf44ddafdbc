"""Resolves model aliases, warns of retired models, and knows which models think. Reads only SDK files.

Model ids of the installed SDK are read from its source text: importing it takes most of a second.
"""

from __future__ import annotations

import datetime
import importlib.util
import logging
import re
from collections.abc import Mapping as AnyMapping
from functools import lru_cache
from pathlib import Path
from typing import Any, List, Mapping, Match, NamedTuple, Optional, Set, Tuple

from .. import settings
from ..errors import InvalidOptionError
from ..lazy_pattern import pattern
from .names import is_model_name

logger = logging.getLogger(__name__)

# The family of each alias. "best" is Fable if the organization has access to it, which is unknown here;
# "opusplan" is Opus while a session plans, and a single request has no later phase.
_ALIASES = {
    "opus": "opus",
    "sonnet": "sonnet",
    "haiku": "haiku",
    "fable": "fable",
    "best": "fable",
    "opusplan": "opus",
}
_PASS_ON = ("", "inherit", "default")
_MOST_SHOWN = 60
_SUFFIX = pattern(r"\[\w+\]$")
_ID = pattern(r"claude-(?P<family>[a-z]+)-(?P<version>\d{1,2}(?:-\d{1,2})?)(?P<date>-\d{8})?")
_OLD_ID = pattern(r"claude-(?P<version>\d(?:-\d)?)-(?P<family>[a-z]+)(?:-(?:latest|\d{8}))?")

# Models with a context of a million tokens only under a beta header; newer ones always have it.
_LONG_UNDER_BETA = pattern(r"claude-sonnet-4(?:-[05])?(?:-\d{8})?")
LONG_CONTEXT_BETA = "context-1m-2025-08-07"

# Sources: the SDK's own lists of models with their last day up to version 2.14, and the API's page of
# deprecations for those that the SDK has since left out.
_LAST_DAYS = {
    "claude-2.0": datetime.date(2025, 7, 21),
    "claude-2.1": datetime.date(2025, 7, 21),
    "claude-3-sonnet-20240229": datetime.date(2025, 7, 21),
    "claude-3-opus-20240229": datetime.date(2026, 1, 5),
    "claude-3-opus-latest": datetime.date(2026, 1, 5),
    "claude-3-haiku-20240307": datetime.date(2026, 4, 20),
    "claude-3-7-sonnet-latest": datetime.date(2026, 2, 19),
    "claude-3-7-sonnet-20250219": datetime.date(2026, 2, 19),
    "claude-3-5-haiku-latest": datetime.date(2026, 2, 19),
    "claude-3-5-haiku-20241022": datetime.date(2026, 2, 19),
    "claude-opus-4-0": datetime.date(2026, 6, 15),
    "claude-opus-4-20250514": datetime.date(2026, 6, 15),
    "claude-sonnet-4-0": datetime.date(2026, 6, 15),
    "claude-sonnet-4-20250514": datetime.date(2026, 6, 15),
    "claude-mythos-preview": datetime.date(2026, 6, 30),
    "claude-opus-4-1": datetime.date(2026, 8, 5),
    "claude-opus-4-1-20250805": datetime.date(2026, 8, 5),
    "claude-opus-4-5": datetime.date(2027, 1, 22),
    "claude-opus-4-5-20251101": datetime.date(2027, 1, 22),
    "claude-sonnet-4-5": datetime.date(2026, 11, 30),
    "claude-sonnet-4-5-20250929": datetime.date(2026, 11, 30),
}
# Families whose models are all retired, also under ids that no list has.
_RETIRED_WITHOUT_DATE = pattern(
    r"claude-(?:v?1(?:[.-].+)?|2(?:\.\d)?|instant(?:-.+)?|3(?:-[57])?-[a-z]+(?:-.+)?)"
)


class Retirement(NamedTuple):
    """A model's last day (None: past, but the day is unknown) and its successor."""

    date: Optional[datetime.date]
    successor: str


class ModelChoice(NamedTuple):
    """The model that a call is for.

    Attributes:
        name: an id, or the alias as it is written, without a suffix such as "[1m]".
        family: the family that an alias means; None for an id.
        is_long: whether "[1m]" asks for a context of a million tokens.
    """

    name: str
    family: Optional[str]
    is_long: bool = False


def resolve_model(call: Optional[str], agent: Optional[str]) -> str:
    """Returns the model's id: of the call's argument, else the agent's file, the environment, the default.

    Raises InvalidOptionError for a value that can't be a model's name.
    """
    return model_id(choose_model(call, agent))


def model_id(choice: ModelChoice) -> str:
    """Returns the id to send. Raises InvalidOptionError as `resolve_model` does."""
    if choice.family is None:
        return choice.name
    override = settings.alias_override(choice.family)
    if override is None:
        return newest_model(choice.family)
    meant = _read(override, settings.alias_variable(choice.family))
    # An alias that is set to another alias means the newest model of the other.
    return meant.name if meant.family is None else newest_model(meant.family)


def open_alias(call: Optional[str], agent: Optional[str]) -> Optional[str]:
    """Returns the alias that selects the model if no environment variable defines it, else None."""
    family = choose_model(call, agent).family
    return None if family is None or settings.alias_override(family) else family


def choose_model(call: Optional[str], agent: Optional[str]) -> ModelChoice:
    """Returns the first model asked for by the call, the agent's file or the environment.

    Raises InvalidOptionError for a value that can't be a model's name.
    """
    candidates = (
        ("model", call or ""),
        ("model of the agent's file", agent or ""),
        *settings.environment_models(),
    )
    if isinstance(call or "", str) and isinstance(agent or "", str):
        return _first_known(candidates)
    return _first(candidates)


def _first(candidates: Tuple[Tuple[str, str], ...]) -> ModelChoice:
    """`candidates` are (source, value) pairs in order of precedence."""
    for source, wanted in candidates:
        choice = _read(wanted, source)
        if choice.family is not None or choice.name.lower() not in _PASS_ON:
            return choice
    return ModelChoice(settings.DEFAULT_ALIAS, settings.DEFAULT_ALIAS)


# All calls of a run ask for the same few models.
_first_known = lru_cache(maxsize=256)(_first)


def inherits_model(wanted: Optional[str]) -> bool:
    """Whether a value leaves the choice of the model to the next source."""
    return wanted is None or (isinstance(wanted, str) and _SUFFIX.sub("", wanted.strip()).lower() in _PASS_ON)


def _read(wanted: object, source: str) -> ModelChoice:
    if not isinstance(wanted, str):
        raise InvalidOptionError(f"{source} is {type(wanted).__name__}, not text: name a model.")
    name = wanted.strip()
    plain = _SUFFIX.sub("", name)
    if plain and not is_model_name(plain):
        raise InvalidOptionError(
            f"{source} is {_shown(wanted)}, which can't be the name of a model: give one id, such as "
            f"{settings.NEWEST_MODELS['sonnet']}, or an alias: {', '.join(_ALIASES)}."
        )
    return ModelChoice(plain, _ALIASES.get(plain.lower()), name.lower().endswith("[1m]"))


def _shown(value: str) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + "..."


def betas_of(choice: ModelChoice, model: str) -> Tuple[str, ...]:
    """Returns the beta headers that a "[1m]" suffix needs."""
    return (LONG_CONTEXT_BETA,) if choice.is_long and _LONG_UNDER_BETA.fullmatch(model) else ()


# Claude models without effort levels. All others from Opus 4.5 on have them.
_WITHOUT_EFFORT = pattern(r"claude-(?:\D+-4(?:-[01])?|(?:sonnet|haiku)-4-5)")


def takes_effort(model: str) -> bool:
    """Whether the model is known to accept an effort level."""
    match = _match(re.sub(r"@\d{8}$|-\d{8}(?:-v\d+:\d+)?$", "", model.rpartition("anthropic.")[2]))
    if match is None or match.re is _OLD_ID:
        return False
    return _WITHOUT_EFFORT.fullmatch(f"claude-{match.group('family')}-{match.group('version')}") is None


@lru_cache(maxsize=None)
def newest_model(family: str) -> str:
    """Returns the newest id of a family known to the installed SDK or this package."""
    candidates = [settings.NEWEST_MODELS[family]]
    candidates += [one for one in sdk_models() if _family_of(one) == family]
    return max(candidates, key=_rank)


@lru_cache(maxsize=None)
def sdk_models() -> Tuple[str, ...]:
    """Returns the ids in the installed SDK's `Model` type without importing it; () if unreadable."""
    spec = importlib.util.find_spec("anthropic")
    if spec is None or spec.origin is None:
        return ()
    try:
        text = (Path(spec.origin).parent / "types" / "model.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        logger.info("the SDK's list of models can't be read: %s", error)
        return ()
    return tuple(re.findall(r'"(claude-[\w.-]+)"', text))


def retirement(model: str) -> Optional[Retirement]:
    """Returns when a model retires or retired; None if it has no known end."""
    if model not in _LAST_DAYS and not _RETIRED_WITHOUT_DATE.fullmatch(model):
        return None
    family = _family_of(model)
    if family is None or family not in settings.NEWEST_MODELS:
        family = "fable" if "mythos" in model else settings.alias_of(model)
    return Retirement(_LAST_DAYS.get(model), newest_model(family))


_warned: Set[str] = set()


def warn_if_retired(model: str, today: Optional[datetime.date] = None) -> None:
    """Logs one warning per process for each model that is retired or retires soon."""
    found = retirement(model)
    if found is None or model in _warned:
        return
    _warned.add(model)
    day = today or datetime.date.today()
    when = "is retired" if found.date is None or found.date < day else f"retires on {found.date}"
    logger.warning("model %s %s: use %s", model, when, found.successor, extra={"model": model})


def _match(model: str) -> Optional[Match[str]]:
    return _ID.fullmatch(model) or _OLD_ID.fullmatch(model)


def _family_of(model: str) -> Optional[str]:
    match = _match(model)
    return match.group("family") if match else None


def _rank(model: str) -> Tuple[List[int], bool]:
    """Sorts newest last; of two spellings of one version, the undated one last."""
    match = _match(model)
    version = [int(part) for part in match.group("version").split("-")] if match else []
    return version, bool(match) and not model[-8:].isdigit()


# Models that think by default. Source: the API's page on thinking, October 2026.
# Matches ids of the API and, with a prefix or suffix, those of clouds.
_THINKS = pattern(r"claude-(?:(?:fable|mythos)-5|opus-5-5|sonnet-5-5)(?![.\d])")
_OFF = ("disabled", "off", "between_tools")


def thinks(model: str, options: Mapping[str, Any]) -> bool:
    """Whether an answer may start with thinking, by the option `thinking` or by the model's default."""
    thinking = options.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, AnyMapping) else None
    if isinstance(kind, str):
        return kind not in _OFF
    return _THINKS.search(model.lower()) is not None


def default_max_tokens(model: str, options: Mapping[str, Any]) -> int:
    """Returns the default `max_tokens` for a model and its options."""
    if not thinks(model, options):
        return settings.MAX_TOKENS
    thinking = options.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, AnyMapping) else None
    # The API refuses a budget that leaves nothing for the answer.
    more = budget + settings.MAX_TOKENS if isinstance(budget, int) else 0
    return max(settings.MAX_TOKENS_THINKING, more)
