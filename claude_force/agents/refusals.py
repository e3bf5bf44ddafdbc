"""Which calls can't be made, whatever the API says, by kind. For the rows of a bulk run, before it begins."""

from __future__ import annotations

from typing import Optional

from .. import settings
from ..errors import InputError, InvalidTaskError
from .names import check_task, is_agent_name
from .registry import Registry


class Refusals:
    """Knows the agents as their files were when it was made. Raises ConfigurationError as `Registry` does."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self._names = registry, registry.names()

    def kind(self, agent_name: str, task: str) -> Optional[str]:
        """Why no call can be made, in a few words, the same for all of a kind; None where one can."""
        if agent_name not in self._names:
            return "an unknown agent" if is_agent_name(agent_name) else "an invalid agent name"
        try:
            check_task(task)
        except InvalidTaskError:
            if len(task) > settings.MAX_TASK_CHARACTERS:
                return "a task that is too long"
            return "a task that is not valid Unicode" if task.strip() else "an empty task"
        return None

    def reason(self, agent_name: str, task: str) -> str:
        """The whole message for one that has a kind, with the agents that may have been meant."""
        try:
            self._registry.get(agent_name)
            check_task(task)
        except InputError as error:
            return str(error)
        return "its agent was not there a moment ago"
