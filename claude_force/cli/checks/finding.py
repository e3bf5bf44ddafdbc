"""What one check found."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class CheckResult(NamedTuple):
    """`state` is OK, WARNING for what may fail or mislead, PROBLEM for what does; `advice` is the mend."""

    name: str
    state: str
    text: str
    advice: str = ""
