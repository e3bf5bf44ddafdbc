"""Writes paths on one line, for messages. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Union

Name = Union[str, Path]


def printable(name: Name) -> str:
    """Returns a path on one line, with control characters and bytes that are not UTF-8 as escapes."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def one_line(name: Name) -> str:
    """As `printable`, but with unusual spaces and marks as they are, so that the path can be opened."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(_escaped(one) if _breaks_lines(one) else one for one in text)


def _breaks_lines(character: str) -> bool:
    """Whether it is a control character, a line end, or half of a surrogate pair."""
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or code in (0x2028, 0x2029) or 0xD800 <= code < 0xE000


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # A byte of a name that is not UTF-8.
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
