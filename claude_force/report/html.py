"""Text, numbers and tables in HTML. Pure. Table cells are HTML: their makers escape the text in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from html import escape as _escape
from typing import Optional, Sequence

from ..formatting import format_duration, format_percent

NOT_KNOWN = "\N{EN DASH}"
# Some days before the end of the year 9999.
MAX_UNIX = 253_400_000_000.0


def escaped(value: object) -> str:
    """Returns text for HTML, between tags and in quoted attributes. Lone surrogates are replaced."""
    return _escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)


def duration(ms: Optional[float]) -> str:
    """Returns milliseconds with a unit, or a dash for None."""
    return NOT_KNOWN if ms is None else format_duration(ms / 1000)


def axis_usd(usd: float, step: float) -> str:
    """Returns the label of a tick on an axis whose ticks are `step` apart."""
    return f"${usd:,.{max(0 if step >= 1 else 2, -math.floor(math.log10(step)))}f}"


def percent(part: int, whole: int) -> str:
    """Returns `part` in percent of `whole`, or a dash if that is 0."""
    return format_percent(part / whole) if whole else NOT_KNOWN


def format_time(unix: float, zone: tzinfo = timezone.utc, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Returns the local time in `zone`; a time outside of the calendar becomes its nearest end."""
    return datetime.fromtimestamp(min(max(unix, 0.0), MAX_UNIX), zone).strftime(form)


def offset_seconds(unix: float, zone: tzinfo) -> float:
    """Returns the offset of `zone` from UTC at that time."""
    offset = datetime.fromtimestamp(min(unix, MAX_UNIX), zone).utcoffset()
    return offset.total_seconds() if offset else 0.0


@dataclass(frozen=True)
class Column:
    """A column of a table: numeric columns are aligned right, and wide columns are hidden on a phone."""

    head: str
    numeric: bool = False
    wide: bool = False

    @property
    def classes(self) -> str:
        """The `class` attribute with a leading space, or ""."""
        names = " ".join(name for name in ("numeric", "wide") if getattr(self, name))
        return f' class="{names}"' if names else ""


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in a region that scrolls sideways, by keyboard too; the first cell heads its row."""
    heads = "".join(f'<th scope="col"{column.classes}>{column.head}</th>' for column in columns)
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table>'
        f'<caption class="unseen">{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(columns: Sequence[Column], row: Sequence[str]) -> str:
    first = f'<th scope="row">{row[0]}</th>'
    return first + "".join(f"<td{column.classes}>{cell}</td>" for column, cell in zip(columns[1:], row[1:]))


def swatch(colour: str) -> str:
    """Returns a square in a chart's colour, for legends and tables."""
    return (
        f'<svg class="swatch" width="12" height="12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="2" class="{colour}"/></svg>'
    )
