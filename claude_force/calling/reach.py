"""Whether an endpoint can be reached at all. Pure."""

from __future__ import annotations

from ..errors import CallError, ConnectionFailedError, SilenceError
from .run_gate import RUN

# So many attempts in a row without an answer are neither a restart nor one broken connection.
_ENOUGH = 10


class Reach:
    """Counts attempts that got no answer: no connection was made, it was closed, or nothing came over it."""

    def __init__(self) -> None:
        self._ever = False
        self._in_vain = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether nothing was ever answered, and enough was tried to wait for the retries of that."""
        return not self._ever and self._in_vain >= _ENOUGH

    def answered(self) -> None:
        """An answer came, of whatever kind."""
        self._ever, self._in_vain = True, 0

    def failed(self, error: BaseException, has_answer: bool) -> None:
        """An attempt failed; `has_answer` says that the server had begun to answer."""
        if has_answer:
            self.answered()
        elif _never_connected(error) or (_is_unanswered(error) and not self._ever):
            self._in_vain += 1

    def judge(self, error: CallError) -> None:
        """Marks the last error of a call, after its retries, as one that every other call would meet."""
        if _never_connected(error):
            is_dead = not self._ever or self._in_vain >= _ENOUGH
        else:
            is_dead = _is_unanswered(error) and self.is_doubtful
        if is_dead:
            error.fatal_for = RUN
            # The next run finds out anew.
            self._in_vain = 0


def _never_connected(error: BaseException) -> bool:
    return isinstance(error, ConnectionFailedError) and error.never_connected


def _is_unanswered(error: BaseException) -> bool:
    return isinstance(error, (ConnectionFailedError, SilenceError))
