"""Writes the package's log as JSON lines."""

from __future__ import annotations

import json
import logging
import math
import re
from datetime import datetime, timezone
from typing import Any, Dict, Optional, TextIO

from ..transport.redaction import redact

__all__ = ["JsonFormatter", "JsonLogs", "log_as_json"]

_logger = logging.getLogger("claude_force")
# Attributes of every record; all others come from `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_NAME = re.compile(r"api[-_]?key|auth[-_]?token|authorization|password|secret", re.IGNORECASE)
_MAX_DEPTH = 8


def log_as_json(stream: Optional[TextIO] = None, level: int = logging.INFO) -> JsonLogs:
    """Writes the package's log from `level` on to `stream` or stderr, until `stop()` of the returned object.

    A line has `timestamp` (ISO 8601, UTC), `level`, `logger`, `message`, the fields of the event (`agent`,
    `model`, `duration_seconds`, `cost_usd`, ...), and `exception` as text if there is one. Text that looks
    like a key is masked. Other handlers stay, and also get all events from `level` on.

    Example:

        >>> with log_as_json(sys.stdout):
        ...     orchestrator.run_agent("python-expert", "Explain decorators")
    """
    return JsonLogs(stream, level)


class JsonLogs:
    """A handler on the package's logger; as a context manager, it is removed at the end of the block."""

    def __init__(self, stream: Optional[TextIO], level: int) -> None:
        self._handler = logging.StreamHandler(stream)
        self._handler.setFormatter(JsonFormatter())
        self._handler.setLevel(level)
        self._before = _logger.level
        if not _logger.isEnabledFor(level):
            _logger.setLevel(level)
        self._level = _logger.level
        _logger.addHandler(self._handler)

    def stop(self) -> None:
        """Removes the handler, and restores the logger's level unless the application has changed it."""
        _logger.removeHandler(self._handler)
        if _logger.level == self._level:
            _logger.setLevel(self._before)

    def __enter__(self) -> JsonLogs:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class JsonFormatter(logging.Formatter):
    """Formats any record as one line of ASCII; for the application's own handlers.

    Example:

        >>> handler.setFormatter(JsonFormatter())
    """

    def format(self, record: logging.LogRecord) -> str:
        members: Dict[str, Any] = {
            "timestamp": _iso(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(_message(record)),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                members[name if name not in members else f"extra_{name}"] = _masked(name, value, 0)
        if record.exc_info:
            members["exception"] = redact(self.formatException(record.exc_info))
        if record.stack_info:
            members["stack"] = redact(record.stack_info)
        return json.dumps(members)


def _iso(unix: float) -> str:
    moment = datetime.fromtimestamp(unix, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # The arguments don't match the format string, or `str` of one failed: write the line anyway.
        return f"{_text(record.msg)} {_text(record.args)}"


def _masked(name: Any, value: Any, depth: int) -> Any:
    """Returns `value` for JSON; masks it if its name is that of a secret."""
    return "***" if value and _SECRET_NAME.search(_text(name)) else _plain(value, depth)


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, (dict, list, tuple, set, frozenset)) and depth == _MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {redact(_text(key)): _masked(key, each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each, depth + 1) for each in value]
    return redact(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        # Its `__str__` failed: write the line anyway.
        return f"<{type(value).__name__}>"
