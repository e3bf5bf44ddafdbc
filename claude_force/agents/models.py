"""Which model a call goes to: aliases, their order of precedence, and models that are no more.

The ids that the installed SDK names are read from its source text: importing it takes most of a second.
"""

from __future__ import annotations

import datetime
import importlib.util
import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import List, Match, NamedTuple, Optional, Set, Tuple

from .. import settings

logger = logging.getLogger(__name__)

_ALIASES = {"opus": "opus", "sonnet": "sonnet", "haiku": "haiku", "opusplan": "opus"}
_PASS_ON = ("", "inherit", "default")
_ID = re.compile(r"claude-(?P<family>[a-z]+)-(?P<version>\d{1,2}(?:-\d{1,2})?)(?P<date>-\d{8})?")
_OLD_ID = re.compile(r"claude-(?P<version>\d(?:-\d)?)-(?P<family>[a-z]+)(?:-(?:latest|\d{8}))?")

# Source: the SDK's own list of models with their last day, as of version 2.12.
_LAST_DAYS = {
    "claude-2.0": datetime.date(2025, 7, 21),
    "claude-2.1": datetime.date(2025, 7, 21),
    "claude-3-sonnet-20240229": datetime.date(2025, 7, 21),
    "claude-3-opus-20240229": datetime.date(2026, 1, 5),
    "claude-3-7-sonnet-latest": datetime.date(2026, 2, 19),
    "claude-3-7-sonnet-20250219": datetime.date(2026, 2, 19),
    "claude-3-5-haiku-latest": datetime.date(2026, 2, 19),
    "claude-3-5-haiku-20241022": datetime.date(2026, 2, 19),
    "claude-opus-4-0": datetime.date(2026, 6, 15),
    "claude-opus-4-20250514": datetime.date(2026, 6, 15),
    "claude-sonnet-4-0": datetime.date(2026, 6, 15),
    "claude-sonnet-4-20250514": datetime.date(2026, 6, 15),
    "claude-sonnet-4-5": datetime.date(2026, 11, 30),
    "claude-sonnet-4-5-20250929": datetime.date(2026, 11, 30),
}
_RETIRED_WITHOUT_DATE = re.compile(r"claude-3-5-sonnet-.+")


class Retirement(NamedTuple):
    """A model's last day (None: it is past, the day is not known) and what takes its place."""

    date: Optional[datetime.date]
    successor: str


def resolve_model(call: Optional[str], agent: Optional[str]) -> str:
    """The model's id: the call's argument, else the agent's file, else the environment, else the default."""
    name, family = _wanted(call, agent)
    return name if family is None else settings.alias_override(family) or newest(family)


def open_alias(call: Optional[str], agent: Optional[str]) -> Optional[str]:
    """The alias that decides on the model, where the environment leaves it to this package what it means."""
    _, family = _wanted(call, agent)
    return None if family is None or settings.alias_override(family) else family


def _wanted(call: Optional[str], agent: Optional[str]) -> Tuple[str, Optional[str]]:
    """What is asked for, and the family where that is an alias."""
    for wanted in (call, agent, settings.environment_model(), settings.DEFAULT_ALIAS):
        name = (wanted or "").strip()
        plain = re.sub(r"\[\w+\]$", "", name).lower()
        if plain in _ALIASES:
            return name, _ALIASES[plain]
        if plain not in _PASS_ON:
            return name, None
    raise AssertionError("the default alias always resolves")


@lru_cache(maxsize=None)
def newest(family: str) -> str:
    """The newest id of a family, by the installed SDK and by this package."""
    candidates = [settings.NEWEST_MODELS[family]]
    candidates += [one for one in sdk_models() if _family_of(one) == family]
    return max(candidates, key=_rank)


@lru_cache(maxsize=None)
def sdk_models() -> Tuple[str, ...]:
    """The ids in the installed SDK's `Model` type, without importing it; () where they can't be read."""
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
    """When a model ends or ended, or None for one that has no known end."""
    if model not in _LAST_DAYS and not _RETIRED_WITHOUT_DATE.fullmatch(model):
        return None
    family = _family_of(model)
    known = family if family in settings.NEWEST_MODELS else settings.DEFAULT_ALIAS
    return Retirement(_LAST_DAYS.get(model), newest(known))


_warned: Set[str] = set()


def warn_if_retired(model: str, today: Optional[datetime.date] = None) -> None:
    """Logs one warning for each such model in the life of the process."""
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
    """Newest last; of two spellings of one version the one without a date."""
    match = _match(model)
    version = [int(part) for part in match.group("version").split("-")] if match else []
    return version, bool(match) and not model[-8:].isdigit()
