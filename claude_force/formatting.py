"""Figures as a person reads them, each kind in one spelling wherever it stands. Pure.

The script of the report has the same rules for what it draws itself (report/assets/format.js).
"""

from __future__ import annotations

# USD: less than a token of any model, such as what is left where sums of floats cancel out.
_LEAST = 1e-9
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def format_usd(usd: float) -> str:
    """To the cent, or to the digits that matter where it is less than a dollar; what is not nothing does not
    read as nothing."""
    size, sign = abs(usd), "-" if usd < 0 else ""
    if size < _LEAST:
        return "$0.00"
    if size < 0.000001:
        return f"{sign}<$0.000001"
    # As they are rounded: 0.99996 is $1.00.
    digits = 2 if size >= 0.99995 else 4 if size >= 0.0000995 else 6
    return f"{sign}${size:,.{digits}f}"


def format_duration(seconds: float) -> str:
    """A time that was measured, to about three digits."""
    ms = seconds * 1000
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    return format_duration_coarse(seconds)


def format_duration_coarse(seconds: float) -> str:
    """A time that is still running or was guessed: whole seconds, in its two largest units."""
    left = round(seconds)
    for place, (unit, length) in enumerate(_UNITS[:-1]):
        if left >= length:
            lesser, part = _UNITS[place + 1]
            return f"{left // length} {unit} {left % length // part} {lesser}"
    return f"{left} s"


def format_percent(share: float) -> str:
    """Of a share from 0 to 1; what is not nothing does not read as nothing."""
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def pluralize(number: int, thing: str, things: str = "") -> str:
    """ "1 call", "2,000 calls"."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def format_bytes(octets: float) -> str:
    """Bytes in the unit that suits them; a kB has 1,024 of them, a MB as many kB."""
    kilo = octets / 1024
    if kilo < 1:
        return pluralize(round(octets), "byte")
    return f"{kilo:,.0f} kB" if kilo < 1000 else f"{kilo / 1024:,.1f} MB"


def byte_size(text: str) -> int:
    """Bytes in UTF-8; for most texts without encoding them."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
