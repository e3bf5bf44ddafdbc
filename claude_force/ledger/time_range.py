"""Which span of time is asked for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from ..advice import naming
from ..errors import InvalidOptionError

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class TimeRange:
    """From `since` on and before `until`, Unix time in seconds; None for no bound."""

    since: Optional[float] = None
    until: Optional[float] = None

    def holds(self, moment: float) -> bool:
        """Whether it lies inside."""
        if self.since is not None and moment < self.since:
            return False
        return self.until is None or moment < self.until

    @property
    def is_everything(self) -> bool:
        return self.since is None and self.until is None


EVERYTHING = TimeRange()


def window_of(
    now: float, hours: Optional[float] = None, since: Optional[str] = None, until: Optional[str] = None
) -> TimeRange:
    """The last `hours`, or between two moments as `moment_of` reads them; `now` is Unix time in seconds.

    Raises InvalidOptionError.
    """
    if hours is not None and not 0 < hours < float("inf"):
        raise InvalidOptionError(naming(f"{{}} is {hours!r}; give a number above 0.", "hours"))
    if hours is not None and since is not None:
        raise InvalidOptionError(
            naming("{} and {} both say where to begin; leave one out.", "hours", "since")
        )
    begin = now - hours * 3600 if hours is not None else moment_of(since, now) if since else None
    end = moment_of(until, now) if until else None
    if begin is not None and end is not None and begin >= end:
        raise InvalidOptionError(f"Nothing lies between {since or f'{hours:g} hours ago'} and {until}.")
    return TimeRange(begin, end)


def moment_of(text: str, now: float) -> float:
    """Unix time of "2026-11-25", "2026-11-25T08:30+01:00", or of so long ago: "45m", "3h", "2d", "1w".

    Without an offset a time is local. Raises InvalidOptionError.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now - float(ago.group(1)) * _SECONDS[ago.group(2)]
    try:
        return unix_of(text.strip())
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidOptionError(
            f"{text!r} is no moment; give a date as 2026-11-25, a time as 2026-11-25T08:30, or how long ago "
            "as 45m, 3h, 2d or 1w."
        ) from error


def unix_of(iso: str) -> float:
    """Seconds; a time without an offset is local. Raises ValueError, OverflowError, OSError."""
    if iso[-1:] in ("Z", "z"):
        # Which Python before 3.11 does not read.
        iso = iso[:-1] + "+00:00"
    return datetime.fromisoformat(iso).timestamp()
