"""What the package logs as JSON: one line for each event, for machines to read."""

from __future__ import annotations

import json
import logging
import math
import re
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Dict, Optional, TextIO, Type

from ..transport.error_mapping import redact

__all__ = ["JsonFormatter", "JsonLogs", "log_as_json"]

_logger = logging.getLogger("claude_force")
# What every record has; all else was put on it with `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_NAME = re.compile(r"api[-_]?key|auth[-_]?token|authorization|password|secret", re.IGNORECASE)
_DEEPEST = 8


def log_as_json(stream: Optional[TextIO] = None, level: int = logging.INFO) -> JsonLogs:
    """Writes what the package logs, from `level` on, to `stream` or stderr, until `stop` of what it returns.

    A line has `timestamp` (ISO 8601, UTC), `level`, `logger`, `message`, the event's own fields (`agent`,
    `model`, `duration_seconds`, `cost_usd`, ...) and, where there is one, the `exception` as text. Nothing
    that looks like a key is written. Other handlers stay, and may get more than before: all from `level` on.
    """
    return JsonLogs(stream, level)


class JsonLogs:
    """A handler on the package's logger; as a context manager, it is taken off at the end of the block."""

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
        """Takes the handler off, and the level back to what it was unless another has changed it."""
        _logger.removeHandler(self._handler)
        if _logger.level == self._level:
            _logger.setLevel(self._before)

    def __enter__(self) -> JsonLogs:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()


class JsonFormatter(logging.Formatter):
    """A record as one line of ASCII, whatever is in it; for handlers of the application's own."""

    def format(self, record: logging.LogRecord) -> str:
        members: Dict[str, Any] = {
            "timestamp": _iso(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(_message(record)),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                members[name if name not in members else f"extra_{name}"] = _member(name, value, 0)
        if record.exc_info:
            members["exception"] = redact(self.formatException(record.exc_info))
        if record.stack_info:
            members["stack"] = redact(record.stack_info)
        return json.dumps(members)


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # The arguments don't fit the text, or one can't be shown: that must not cost the line.
        return f"{_text(record.msg)} {_text(record.args)}"


def _member(name: Any, value: Any, depth: int) -> Any:
    """`value` as JSON can hold it; a name that says that it is a secret is believed."""
    return "***" if value and _SECRET_NAME.search(_text(name)) else _plain(value, depth)


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, (dict, list, tuple, set, frozenset)) and depth == _DEEPEST:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {redact(_text(key)): _member(key, each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each, depth + 1) for each in value]
    return redact(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        # Its own `__str__` failed, which must not cost the line.
        return f"<{type(value).__name__}>"
