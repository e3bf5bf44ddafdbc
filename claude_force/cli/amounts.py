"""Amounts as a person reads them, and pictures of them that fit into a line of text."""

from __future__ import annotations

import shutil
import sys
from typing import Any, List, Mapping, Optional, Sequence

MOST_DAYS = 60
_BAR_CELLS = 12

_LEVELS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_PLAIN_LEVELS, _PLAIN_FULL = "_.-=oO#@", "#"


def percent(share: Optional[float]) -> str:
    """Of a share from 0 to 1; what is not nothing does not read as nothing."""
    if share is None:
        return "unknown"
    return "<0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def duration(milliseconds: Optional[float]) -> str:
    """In the unit that it is thought of."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds / 60:,.1f} min"


def spread(figures: Mapping[str, Any]) -> str:
    """Percentiles, mean and maximum in one line."""
    if figures["mean"] is None:
        return "unknown"
    names = ("p50", "p95", "p99", "mean", "max")
    about = "" if figures["exact"] else " (percentiles within 1 %)"
    return ", ".join(f"{name} {duration(figures[name])}" for name in names) + about


def usd(amount: float) -> str:
    """To the cent, or to the digits that matter where it is less than a dollar."""
    digits = 2 if abs(amount) >= 1 or amount == 0 else 4
    return f"{'-' if amount < 0 else ''}${abs(amount):,.{digits}f}"


def money(known: float, unknown: int) -> str:
    """A sum, and of how many amounts it does not know."""
    if not unknown:
        return usd(known)
    return f"{usd(known)} + {unknown:,} unknown" if known else f"unknown ({unknown:,})"


def rate(value: Optional[float]) -> str:
    """Of something in a unit of time."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def has_room(columns: int) -> bool:
    """Whether the terminal is so wide."""
    return shutil.get_terminal_size().columns >= columns


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, as high as it is beside the highest."""
    levels = _LEVELS if _shows(_LEVELS) else _PLAIN_LEVELS
    most = max(values, default=0)
    if most <= 0:
        return levels[0] * len(values)
    return "".join(levels[round(max(value, 0) / most * (len(levels) - 1))] for value in values)


def bars(values: Sequence[float]) -> List[str]:
    """A bar for each value, as long as it is beside the longest."""
    most = max(values, default=0)
    return [_bar(max(value, 0) / most if most > 0 else 0) for value in values]


def _bar(share: float) -> str:
    if not _shows(_EIGHTHS):
        return _PLAIN_FULL * round(share * _BAR_CELLS)
    full, eighths = divmod(round(share * _BAR_CELLS * 8), 8)
    return (_EIGHTHS[-1] * full + (_EIGHTHS[eighths] if eighths else "")) or ("▏" if share else "")


def _shows(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
