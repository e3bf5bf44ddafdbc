"""Figures as a reader wants them: units, separators, and a dash for what is not known. Pure."""

from __future__ import annotations

import math
from datetime import datetime, timezone, tzinfo
from html import escape as _escape
from typing import Optional

NOTHING = "\N{EN DASH}"
# Some days before the end of the year 9999.
LAST_MOMENT = 253_400_000_000.0


def escaped(text: object) -> str:
    """For HTML, between tags and in quoted attributes. What UTF-8 can't hold is replaced."""
    return _escape(str(text).encode("utf-8", "replace").decode("utf-8"), quote=True)


def duration(ms: Optional[float]) -> str:
    """`ms` milliseconds in the unit that suits them."""
    if ms is None:
        return NOTHING
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1000:.2f} s" if ms < 9_995 else f"{ms / 1000:.1f} s"
    return _long(round(ms / 1000))


def _long(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s"


def dollars(usd: Optional[float]) -> str:
    """`usd` to the digits that matter."""
    if usd is None:
        return NOTHING
    if usd == 0 or abs(usd) >= 1:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if abs(usd) >= 0.0001 else f"${usd:.6f}"


def axis_dollars(usd: float, step: float) -> str:
    """A mark of an axis whose marks are `step` apart."""
    return f"${usd:,.{max(0 if step >= 1 else 2, -math.floor(math.log10(step)))}f}"


def number(value: Optional[int]) -> str:
    """With separators between thousands."""
    return NOTHING if value is None else f"{value:,}"


def share(part: int, whole: int) -> str:
    """Percent, with one digit after the point."""
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def counted(value: int, thing: str, things: str = "") -> str:
    """ "1 call", "2 calls"."""
    return f"{value:,} {thing if value == 1 else things or thing + 's'}"


def moment(unix: float, zone: tzinfo = timezone.utc, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """To the second, in `zone`; what no calendar holds is moved to the nearest moment that one does."""
    return datetime.fromtimestamp(min(max(unix, 0.0), LAST_MOMENT), zone).strftime(form)


def offset_seconds(unix: float, zone: tzinfo) -> float:
    """Of `zone` from UTC at that moment."""
    offset = datetime.fromtimestamp(min(unix, LAST_MOMENT), zone).utcoffset()
    return offset.total_seconds() if offset else 0.0
