"""Limits that a caller sets: what makes no sense is refused before anything is sent. Pure."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidOptionError


def check_limits(max_concurrent: Any, timeout_seconds: Any, max_retries: Any, deadline_seconds: Any) -> None:
    """Raises InvalidOptionError that names the limit and what it may be."""
    _whole("max_concurrent", max_concurrent)
    _whole("max_retries", max_retries)
    _seconds("timeout_seconds", timeout_seconds)
    _seconds("deadline_seconds", deadline_seconds)


def check_max_tokens(max_tokens: Any) -> None:
    """Raises InvalidOptionError unless it is a whole number from 1 up."""
    _whole("max_tokens", max_tokens)


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOptionError(f"{name} is {value!r}; it must be a whole number from 1 up.")


def _seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidOptionError(f"{name} is {value!r}; it must be a number of seconds above 0, or None.")
