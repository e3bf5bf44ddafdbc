"""One promise and what became of it."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple, Sequence


class Claim(NamedTuple):
    """`figure` is what was measured, `how` what it was measured on."""

    text: str
    figure: str
    held: bool
    how: str


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """The median, with the smallest and the largest."""
    low, middle, high = (form.format(value) for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})"
