"""Figures as a reader wants them: units, separators, and a dash for what is not known. Pure."""

from __future__ import annotations

import math
from datetime import datetime, timezone, tzinfo
from html import escape as _escape
from typing import Optional

from .. import formatting as spelled

NOTHING = "\N{EN DASH}"
# Some days before the end of the year 9999.
LAST_MOMENT = 253_400_000_000.0


def escaped(text: object) -> str:
    """For HTML, between tags and in quoted attributes. What UTF-8 can't hold is replaced."""
    return _escape(str(text).encode("utf-8", "replace").decode("utf-8"), quote=True)


def duration(ms: Optional[float]) -> str:
    """Of a time in the ledger."""
    return NOTHING if ms is None else spelled.format_duration(ms / 1000)


def axis_dollars(usd: float, step: float) -> str:
    """A mark of an axis whose marks are `step` apart."""
    return f"${usd:,.{max(0 if step >= 1 else 2, -math.floor(math.log10(step)))}f}"


def number(value: int) -> str:
    """With separators between thousands."""
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """In percent."""
    return spelled.format_percent(part / whole) if whole else NOTHING


def moment(unix: float, zone: tzinfo = timezone.utc, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """To the second, in `zone`; what no calendar holds is moved to the nearest moment that one does."""
    return datetime.fromtimestamp(min(max(unix, 0.0), LAST_MOMENT), zone).strftime(form)


def offset_seconds(unix: float, zone: tzinfo) -> float:
    """Of `zone` from UTC at that moment."""
    offset = datetime.fromtimestamp(min(unix, LAST_MOMENT), zone).utcoffset()
    return offset.total_seconds() if offset else 0.0
