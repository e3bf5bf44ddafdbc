"""What callers of claude-force 1.x expect of `ResponseCache` and what 2.0 spells differently."""

from __future__ import annotations

import logging
from functools import wraps
from numbers import Real
from typing import Any, Callable, Dict, Mapping, TypeVar, cast

logger = logging.getLogger(__name__)

Init = TypeVar("Init", bound=Callable[..., None])

# The order of the constructor's arguments in 1.x, where the folder came first.
_ORDER_OF_1X = ("cache_dir", "ttl_hours", "max_size_mb", "enabled", "cache_secret", "exclude_agents")


def takes_arguments_of_1x(init: Init) -> Init:
    """Lets a constructor take the positional order of 1.x, where a folder came first."""

    @wraps(init)
    def initialise(self: Any, *given: Any, **named: Any) -> None:
        # In 2.0 a number of hours comes first.
        if given and not isinstance(given[0], Real):
            folder_first = dict(zip((*_ORDER_OF_1X, "verify_integrity"), given))
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
    """The arguments of `set` that an answer holds, in either spelling of the agent's name."""
    arguments = dict(answer)
    if "agent" in arguments:
        arguments["agent_name"] = arguments.pop("agent")
    return arguments
