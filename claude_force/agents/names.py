"""Validates names of agents, skills and models, and tasks; suggests near matches. Pure."""

from __future__ import annotations

import re
from itertools import islice
from typing import Iterable, List

from .. import settings
from ..errors import InvalidAgentNameError, InvalidTaskError
from ..lazy_pattern import pattern

_NAME = pattern(r"[a-zA-Z0-9_-]+")
_AGENT_NAME = pattern(r"(?:[a-zA-Z0-9_-]+:)?[a-zA-Z0-9_-]+")
_SKILL_NAME = pattern(r"(?:[\w-]+:)?\w[\w.-]*")
_SURROGATE = pattern("[\ud800-\udfff]")
# Comparing two names takes quadratic time, and a project can have any number of names.
_MOST_COMPARED, _LONGEST_COMPARED = 1_000, 64
_SHOWN = 60


def is_name(name: object) -> bool:
    """Whether `name` matches `^[a-zA-Z0-9_-]+$` without a trailing newline."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_agent_name(name: object) -> bool:
    """Like `is_name`, optionally with a plugin's name and ':' in front."""
    return isinstance(name, str) and _AGENT_NAME.fullmatch(name) is not None


def is_skill_name(name: str) -> bool:
    """Whether `name` can be a skill's; such a name can't lead out of the skills folder."""
    return _SKILL_NAME.fullmatch(name) is not None


def check_name(name: object) -> str:
    """Returns `name`. Raises InvalidAgentNameError."""
    if not isinstance(name, str) or not is_agent_name(name):
        shown = repr(name)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
        raise InvalidAgentNameError(
            f"Invalid agent name {shown}: use letters, digits, '_' and '-', at least one. "
            "`claude-force list agents` shows the names that there are."
        )
    return name


def check_task(task: object, is_composed: bool = False) -> str:
    """Returns `task` unchanged. Raises InvalidTaskError.

    `is_composed`: assembled by the package from answers and files; only the context bounds its length.
    """
    if not isinstance(task, str):
        raise InvalidTaskError(f"Task is {type(task).__name__}, not text: pass a str.")
    if not task or task.isspace():
        raise InvalidTaskError("Task is empty: say what the agent is to do.")
    if len(task) > settings.MAX_TASK_CHARACTERS and not is_composed:
        raise InvalidTaskError(
            f"Task too large: {len(task):,} characters, the limit is {settings.MAX_TASK_CHARACTERS:,}. "
            "Split it into several tasks."
        )
    found = None if task.isascii() else _SURROGATE.search(task)
    if found:
        raise InvalidTaskError(
            f"Task can't be sent as UTF-8: half a surrogate pair at character {found.start()}. "
            "Decode the text with the encoding that it was written in."
        )
    return task


def slug(name: str) -> str:
    """Returns a valid name: `name` if it is valid, else in lower case with '-' for invalid characters."""
    if is_name(name):
        return name
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")


def agent_slug(name: str) -> str:
    """Like `slug`, but keeps the ':' after a plugin's name."""
    return name if is_agent_name(name) else slug(name)


def is_lossy(name: str) -> bool:
    """Whether the slug of `name` loses letters or digits."""
    return not name.isascii() and any(letter.isalnum() and not letter.isascii() for letter in name)


def hashed_slug(name: str) -> str:
    """Returns a valid name that is unique to `name`, with a hash in it."""
    # Imported here because few names need it.
    import hashlib

    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug(name) or 'agent'}-{digest[:6]}"


# A further suggestion may score this much lower than the best one, of 1.
_FAR_BEHIND = 0.15


def suggest(name: str, known: Iterable[str], most: int = 3) -> List[str]:
    """Returns known names close to `name`, best first. Ignores long names and very many names."""
    if len(name) > _LONGEST_COMPARED:
        return []
    # Imported here because few names are wrong.
    import difflib

    short = (one for one in known if len(one) <= _LONGEST_COMPARED)
    by_lower = {one.lower(): one for one in islice(short, _MOST_COMPARED)}
    close = difflib.get_close_matches(name.lower(), by_lower, most, 0.6)
    # Beside "--budget" for "--buget", "--quiet" would be noise.
    alike = [difflib.SequenceMatcher(None, one, name.lower()).ratio() for one in close]
    return [by_lower[one] for one, ratio in zip(close, alike) if ratio > alike[0] - _FAR_BEHIND]


# Room for an inference profile's ARN on Bedrock.
_LONGEST_MODEL_NAME = 256
# Letters of any script, and the separators in ids of the API, of clouds and of gateways.
_MODEL_NAME = pattern(r"[\w.:/@+~=-]+(?:\[\w+\])?")


def is_model_name(text: str) -> bool:
    """Whether `text` could name a model: no blanks, commas, quotes or shell characters."""
    return len(text) <= _LONGEST_MODEL_NAME and _MODEL_NAME.fullmatch(text) is not None
