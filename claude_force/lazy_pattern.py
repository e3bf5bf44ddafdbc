"""Regular expressions that are compiled at their first use.

Compiling one takes as long as importing a small module, and a short command uses few of them.
"""

from __future__ import annotations

import re
from typing import Any, Pattern, cast

_METHODS = ("findall", "finditer", "fullmatch", "match", "search", "split", "sub")


class _Pattern:
    """Stands for a compiled pattern, whose methods it takes over at the first use."""

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
    """As `re.compile`, but an invalid expression raises at its first use."""
    return cast("Pattern[str]", _Pattern(text, flags))
