"""Regular expressions that are compiled when they are first used.

To compile one takes as long as to import a small module, and a short command uses few of them.
"""

from __future__ import annotations

import re
from typing import Any, Pattern, cast

_METHODS = ("findall", "finditer", "fullmatch", "match", "search", "split", "sub")


class _Pattern:
    """Stands for a compiled expression. Its methods become that one's own with the first use."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(name)
        compiled = re.compile(self._text, self._flags)
        for method in _METHODS:
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def pattern(text: str, flags: int = 0) -> Pattern[str]:
    """As `re.compile`, whose methods it has; an expression that is wrong is noticed with its first use."""
    return cast("Pattern[str]", _Pattern(text, flags))
