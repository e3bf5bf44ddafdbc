"""What the package logs, on stderr for the length of one command."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import Iterator

from ..errors import ClaudeForceError, InputError
from . import streams

_logger = logging.getLogger("claude_force")


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
def without_attempts() -> Iterator[None]:
    """As long as this lasts, attempts that failed are shown elsewhere."""

    def is_other(record: logging.LogRecord) -> bool:
        return not hasattr(record, "attempt")

    handlers = list(_logger.handlers)
    for handler in handlers:
        handler.addFilter(is_other)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_other)


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
