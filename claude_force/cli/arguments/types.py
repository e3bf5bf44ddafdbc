"""The types of option values. argparse names a type in its message by the function's `__name__`."""

from __future__ import annotations

import argparse
from typing import Any, Optional, Union


def concurrent(text: str) -> Union[int, str]:
    """A number of requests, or "auto"."""
    return text if text == "auto" else int(text)


def whole(text: str) -> int:
    """A whole number."""
    return int(text)


def number(text: str) -> float:
    """A finite number."""
    value = float(text)
    if value - value != 0:  # nan, inf
        raise ValueError(text)
    return value


class TextOrJson(argparse.Action):
    """`--format text|json` of 1.x: another spelling of `--json`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Optional[str] = None,
    ) -> None:
        """Sets `json`."""
        namespace.json = values == "json"


concurrent.__name__ = "whole number or auto"
whole.__name__ = "whole number"
