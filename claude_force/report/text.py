"""Figures as a reader wants them: units, separators, and a dash for what is not known. Pure."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo
from html import escape as _escape
from typing import Optional

NOTHING = "–"


def escaped(text: object) -> str:
    """For HTML, between tags and in quoted attributes. Characters that can't be written as UTF-8 are replaced."""
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


def number(value: Optional[int]) -> str:
    """With separators between thousands."""
    return NOTHING if value is None else f"{value:,}"


def share(part: int, whole: int) -> str:
    """Percent, with one digit after the point."""
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def counted(value: int, thing: str, things: str = "") -> str:
    """ "1 call", "2 calls"."""
    return f"{value:,} {thing if value == 1 else things or thing + 's'}"


def moment(unix: float, zone: tzinfo = timezone.utc) -> str:
    """The second, in `zone`."""
    return datetime.fromtimestamp(unix, zone).strftime("%Y-%m-%d %H:%M:%S")
