"""What holds for one call beside its question, and who is told how it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Tuple

from ..errors import CallError
from .bill import Bill
from .budget import Budget


class Watch:
    """Is told of a call's attempts; this one does nothing about it. Seconds throughout."""

    def started(self, attempt: int) -> None:
        """Attempt number `attempt` goes onto the wire."""

    def wrote(self, text: str) -> None:
        """The next piece of a streamed answer has come; `retried` says that it was in vain."""

    def retried(self, attempt: int, delay: float, error: BaseException) -> None:
        """Attempt number `attempt` failed, and another follows after `delay`."""

    def paused(self, seconds: float, error: CallError) -> None:
        """No attempt of any call begins for so long."""


NOBODY = Watch()


def listener(watch: Watch) -> Optional[Callable[[str], None]]:
    """What is to be called with each piece of text; None where nobody listens, who then costs nothing."""
    return None if type(watch).wrote is Watch.wrote else watch.wrote


@dataclass(frozen=True)
class Terms:
    """`first_of_many`: of calls that share a system prompt, one goes first and fills the prompt cache.

    `bill` is the call's own, for a caller who wants to know of it before the call has ended.
    """

    budgets: Tuple[Budget, ...] = ()
    watch: Watch = NOBODY
    first_of_many: bool = False
    bill: Optional[Bill] = None


ORDINARY = Terms()
