"""Tables and swatches in HTML. Cells are HTML already: their makers escape what they put in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Column:
    """A head; a figure is aligned at its right, and a wide one is left out on a phone."""

    head: str
    figure: bool = False
    wide: bool = False

    @property
    def kinds(self) -> str:
        """For the `class` attribute."""
        kinds = " ".join(name for name in ("figure", "wide") if getattr(self, name))
        return f' class="{kinds}"' if kinds else ""


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """It scrolls by itself where it is too wide, by keyboard too."""
    heads = "".join(f'<th scope="col"{column.kinds}>{column.head}</th>' for column in columns)
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table>'
        f'<caption class="unseen">{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(columns: Sequence[Column], row: Sequence[str]) -> str:
    first = f'<th scope="row">{row[0]}</th>'
    return first + "".join(f"<td{column.kinds}>{cell}</td>" for column, cell in zip(columns[1:], row[1:]))


def swatch(colour: str) -> str:
    """A square of a chart's colour."""
    return (
        f'<svg class="swatch" width="12" height="12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="2" class="{colour}"/></svg>'
    )
