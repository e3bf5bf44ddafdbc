"""One promise and its measurement."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Claim(NamedTuple):
    """`figure` is what was measured, `how` what it was measured on.

    `held` is None where the figure is one of the questions: what a cache saves depends on how often they
    are repeated.
    """

    text: str
    figure: str
    held: Optional[bool]
    how: str

    @property
    def verdict(self) -> str:
        """The word of the page."""
        return {True: "yes", False: "**no**", None: "depends on repetition"}[self.held]


def within(value: float, low: float, high: float) -> Optional[bool]:
    """Whether a figure of the questions is in the range that was promised; None for one outside of it."""
    return True if low <= value <= high else None
