"""One promise and what became of it."""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """`figure` is what was measured, `how` what it was measured on."""

    text: str
    figure: str
    held: bool
    how: str
