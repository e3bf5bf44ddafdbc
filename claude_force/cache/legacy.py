"""Accepts the arguments that the cache had in claude-force 1.x."""

from __future__ import annotations

import logging
from functools import wraps
from os import PathLike
from typing import Any, Callable, Dict, Mapping, TypeVar, cast

logger = logging.getLogger(__name__)

Init = TypeVar("Init", bound=Callable[..., None])

# The order of the constructor's arguments.
_ORDER = (
    *("cache_dir", "ttl_hours", "max_size_mb", "enabled", "cache_secret", "exclude_agents"),
    "verify_integrity",
)


def takes_arguments_of_1x(init: Init) -> Init:
    """Accepts the positional arguments of claude-force 1.x, where the folder came first."""

    @wraps(init)
    def initialise(self: Any, *given: Any, **named: Any) -> None:
        # In 2.0 a number of hours comes first.
        if given and (given[0] is None or isinstance(given[0], (str, PathLike))):
            folder_first = dict(zip(_ORDER, given))
            if len(folder_first) < len(given) or not folder_first.keys().isdisjoint(named):
                raise TypeError("ResponseCache got too many arguments, or one of them twice.")
            given, named = (), {**folder_first, **named}
        if not named.get("verify_integrity", True):
            logger.warning(
                "verify_integrity=False has no effect: the signature of an entry is always checked"
            )
        init(self, *given, **named)

    return cast(Init, initialise)


def arguments_of(answer: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the arguments of `ResponseCache.set` in an answer, whose agent may be `agent` as in 1.x."""
    arguments = dict(answer)
    if "agent" in arguments:
        arguments["agent_name"] = arguments.pop("agent")
    return arguments
