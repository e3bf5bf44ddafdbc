"""What the package logs, on stderr for the length of one command."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import Iterator

from ..errors import InputError

_logger = logging.getLogger("claude_force")


@contextmanager
def logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Warnings only, or everything. Errors are left out of the first: the command reports those itself."""
    handler, before = _handler(verbose), _logger.level
    _logger.addHandler(handler)
    _logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
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


def _handler(verbose: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    if verbose:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("claude-force: warning: %(message)s"))
        handler.addFilter(lambda record: record.levelno < logging.ERROR)
    return handler
