"""What the package logs, on stderr for the length of one command."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import Dict, Iterator, Tuple

from ..errors import ClaudeForceError, InputError
from . import streams

_logger = logging.getLogger("claude_force")

_MOST_OF_A_KIND = 3


@contextmanager
def logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Warnings only, unless stderr is to be quiet, or everything.

    Errors are left out of the first: the command reports those itself.
    """
    handler, before = _handler(verbose), _logger.level
    _logger.addHandler(handler)
    quiet = logging.ERROR if streams.is_quiet() else logging.WARNING
    _logger.setLevel(logging.DEBUG if verbose else quiet)
    try:
        yield
    except InputError:
        raise
    except Exception:
        _logger.debug("The command failed", exc_info=True)
        raise
    finally:
        _logger.setLevel(before)
        _logger.removeHandler(handler)


@contextmanager
def few_warnings(attempts: bool = False) -> Iterator[None]:
    """For a command with many calls: of warnings that differ only in their figures, a few are shown and the
    others counted at the end. Failed attempts are shown elsewhere, unless they are asked for."""
    if is_verbose():
        yield
        return
    kinds = _Kinds(attempts)
    handlers = list(_logger.handlers)
    for handler in handlers:
        handler.addFilter(kinds.is_shown)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(kinds.is_shown)
        for message, number in kinds.more():
            streams.warn(f"{number:,} more of: {message}")


class _Kinds:
    """Warnings by the text that their figures are filled into."""

    def __init__(self, attempts: bool) -> None:
        self._attempts = attempts
        self._counts: Dict[str, int] = {}
        self._first: Dict[str, str] = {}

    def is_shown(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if hasattr(record, "attempt") and not self._attempts:
            return False
        kind = str(record.msg)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._first.setdefault(kind, _message(record))
        return self._counts[kind] <= _MOST_OF_A_KIND

    def more(self) -> Iterator[Tuple[str, int]]:
        for kind, number in self._counts.items():
            if number > _MOST_OF_A_KIND:
                yield self._first[kind], number - _MOST_OF_A_KIND


def is_verbose() -> bool:
    """Whether everything is logged."""
    return _logger.isEnabledFor(logging.DEBUG)


def _handler(verbose: bool) -> logging.Handler:
    if verbose:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    else:
        handler = _Warnings()
        handler.addFilter(lambda record: record.levelno < logging.ERROR)
    return handler


class _Warnings(logging.Handler):
    """As the command's own, so that they find their place beside what is drawn on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        streams.warn(_message(record))


def _message(record: logging.LogRecord) -> str:
    """Errors among the arguments of a message speak of options, not of Python's arguments."""
    if not isinstance(record.args, tuple):
        return record.getMessage()
    told = (one.for_shell() if isinstance(one, ClaudeForceError) else one for one in record.args)
    return str(record.msg) % tuple(told)


class _Formatter(logging.Formatter):
    """Takes secrets and orders to a terminal out of messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return streams.harmless(streams.without_secrets(super().format(record)))
