"""Figures of the ledger in words, unknown ones among them, and pictures that fit into a line of text."""

from __future__ import annotations

import sys
from typing import Any, List, Mapping, Optional, Sequence, TextIO

from .. import formatting as spelled
from ..formatting import format_usd

MOST_DAYS = 60
_BAR_CELLS = 12

_LEVELS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_PLAIN_LEVELS, _PLAIN_FULL = "_.-=oO#@", "#"


def percent(share: Optional[float]) -> str:
    """Of a share from 0 to 1."""
    return "unknown" if share is None else spelled.format_percent(share)


def duration(milliseconds: Optional[float]) -> str:
    """Of a time in the ledger."""
    return "-" if milliseconds is None else spelled.format_duration(milliseconds / 1000)


def spread(figures: Mapping[str, Any]) -> str:
    """Percentiles, mean and maximum in one line."""
    if figures["mean"] is None:
        return "unknown"
    names = ("p50", "p95", "p99", "mean", "max")
    about = "" if figures["exact"] else " (percentiles within 1 %)"
    return ", ".join(f"{name} {duration(figures[name])}" for name in names) + about


def money(known: float, unknown: int) -> str:
    """A sum, and of how many amounts it does not know."""
    if not unknown:
        return format_usd(known)
    return f"{format_usd(known)} + {unknown:,} unknown" if known else f"unknown ({unknown:,})"


def rate(value: Optional[float]) -> str:
    """Of something in a unit of time."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def compact(value: float) -> str:
    """A count in few characters: "1.5", "980", "12k", "1.2M"."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        # As it is rounded: 999,999 is 1M and not 1000k.
        if value >= 9.995 * size:
            return f"{value / size:,.0f}{unit}"
        if value >= 0.9995 * size:
            return f"{value / size:.1f}".replace(".0", "") + unit
    # A limit of 1.5 a minute is not 2.
    return f"{value:.1f}".replace(".0", "") if value < 10 else f"{value:,.0f}"


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, as high as it is beside the highest."""
    levels = _LEVELS if shows(_LEVELS) else _PLAIN_LEVELS
    most = max(values, default=0)
    if most <= 0:
        return levels[0] * len(values)
    return "".join(levels[round(max(value, 0) / most * (len(levels) - 1))] for value in values)


def bars(values: Sequence[float]) -> List[str]:
    """A bar for each value, as long as it is beside the longest."""
    most = max(values, default=0)
    return [_bar(max(value, 0) / most if most > 0 else 0) for value in values]


def _bar(share: float) -> str:
    if not shows(_EIGHTHS):
        return _PLAIN_FULL * round(share * _BAR_CELLS)
    full, eighths = divmod(round(share * _BAR_CELLS * 8), 8)
    return (_EIGHTHS[-1] * full + (_EIGHTHS[eighths] if eighths else "")) or ("▏" if share else "")


def shows(text: str, stream: Optional[TextIO] = None) -> bool:
    """Whether a stream, stdout unless another is given, can write these characters."""
    try:
        text.encode((stream or sys.stdout).encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
