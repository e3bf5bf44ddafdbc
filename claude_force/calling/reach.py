"""Whether an endpoint can be reached at all. Pure."""

from __future__ import annotations

from ..errors import CallError, ConnectionFailedError
from .run_gate import RUN

# Of an endpoint that has answered before: so many attempts in a row without a connection are no restart.
_ENOUGH = 10


class Reach:
    """Counts attempts that made no connection: it was refused, the host is unknown, or TLS failed."""

    def __init__(self) -> None:
        self._ever = False
        self._in_vain = 0

    def answered(self) -> None:
        """An answer came, of whatever kind."""
        self._ever, self._in_vain = True, 0

    def failed(self, error: BaseException, has_answer: bool) -> None:
        """An attempt failed; `has_answer` says that the server had begun to answer."""
        if has_answer:
            self.answered()
        elif isinstance(error, ConnectionFailedError) and error.never_connected:
            self._in_vain += 1

    def judge(self, error: CallError) -> None:
        """Marks the last error of a call, after its retries, as one that every other call would meet."""
        is_dead = not self._ever or self._in_vain >= _ENOUGH
        if is_dead and isinstance(error, ConnectionFailedError) and error.never_connected:
            error.fatal_for = RUN
