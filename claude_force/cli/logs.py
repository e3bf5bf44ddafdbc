"""Shows the package's log on stderr for the length of one command."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import Dict, Iterator, Tuple

from ..errors import ClaudeForceError, InputError
from ..formatting import for_shell
from . import streams

_logger = logging.getLogger("claude_force")

_MAX_PER_TEMPLATE = 3


@contextmanager
def logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Shows warnings (none if stderr is quiet), or with `verbose` everything.

    Without `verbose`, errors are left out: the command reports them itself.
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
    """Shows the first warnings of each message template and counts the others at the end.

    Failed attempts are shown only with `attempts`. Has no effect if everything is logged.
    """
    if is_verbose():
        yield
        return
    templates = _Templates(attempts)
    handlers = list(_logger.handlers)
    for handler in handlers:
        handler.addFilter(templates.is_shown)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(templates.is_shown)
        for message, number in templates.more():
            streams.warn(f"{number:,} more of: {message}")


class _Templates:
    """Counts warnings by the text that their arguments are filled into."""

    def __init__(self, attempts: bool) -> None:
        self._attempts = attempts
        self._counts: Dict[str, int] = {}
        self._first: Dict[str, str] = {}

    def is_shown(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if hasattr(record, "attempt") and not self._attempts:
            return False
        template = str(record.msg)
        self._counts[template] = self._counts.get(template, 0) + 1
        self._first.setdefault(template, _message(record))
        return self._counts[template] <= _MAX_PER_TEMPLATE

    def more(self) -> Iterator[Tuple[str, int]]:
        for template, number in self._counts.items():
            if number > _MAX_PER_TEMPLATE:
                yield self._first[template], number - _MAX_PER_TEMPLATE


def is_verbose() -> bool:
    """Returns whether everything is logged."""
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
    """Shows a warning like the command's other messages, which a live display makes room for."""

    def emit(self, record: logging.LogRecord) -> None:
        streams.warn(_message(record))


def _message(record: logging.LogRecord) -> str:
    """Returns the message of a record; what it is given names options, not Python's arguments."""
    if not isinstance(record.args, tuple):
        return record.getMessage()
    return str(record.msg) % tuple(map(_for_shell, record.args))


def _for_shell(argument: object) -> object:
    if isinstance(argument, ClaudeForceError):
        return argument.for_shell()
    return for_shell(argument) if isinstance(argument, str) else argument


class _Formatter(logging.Formatter):
    """Removes secrets and control characters from messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return streams.strip_control_chars(streams.redact_secrets(super().format(record)))
