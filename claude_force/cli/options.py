"""Which of the options of a command line were given, under the names that the engine has for them."""

from __future__ import annotations

import argparse
from typing import Any, Dict, Mapping, Optional

from ..errors import InputError

_CALL_OPTIONS = {
    "model": "model",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "cache_ttl": "cache_ttl",
}


def call_options(args: argparse.Namespace) -> Dict[str, Any]:
    """Those that change the answer, under the engine's names. Raises InputError."""
    found = given(args, _CALL_OPTIONS)
    if found.get("max_tokens", 1) < 1:
        raise InputError(f"--max-tokens is {found['max_tokens']}; it must be a whole number from 1 up.")
    return found


def given(args: argparse.Namespace, names: Mapping[str, str]) -> Dict[str, Any]:
    """The options that were set; for the others the engine has its own defaults."""
    values = {name: getattr(args, option, None) for option, name in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def check_budget(budget: Optional[float]) -> None:
    """Raises InputError."""
    if budget is not None and budget <= 0:
        raise InputError(f"--budget is {budget:g}; it must be an amount in USD above 0.")
