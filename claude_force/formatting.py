"""Formats what people read: figures, names of options, and commands to install extras.

The report's script formats what it draws by the same rules (report/assets/format.js).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List, Optional, Tuple

# In USD. Smaller amounts than a token of any model costs are rounding errors of sums that cancel out.
_LEAST = 1e-9
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def format_usd(usd: float) -> str:
    """Returns "$1,234.56"; less than a dollar has four or six digits, and only zero reads as zero."""
    size, sign = abs(usd), "-" if usd < 0 else ""
    if size < _LEAST:
        return "$0.00"
    if size < 0.000001:
        return f"{sign}<$0.000001"
    # After rounding: 0.99996 is $1.00.
    digits = 2 if size >= 0.99995 else 4 if size >= 0.0000995 else 6
    return f"{sign}${size:,.{digits}f}"


def format_duration(seconds: float) -> str:
    """Returns a measured time to about three digits: "9.5 ms", "1.25 s", "2 min 5 s"."""
    ms = seconds * 1000
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    return format_duration_coarse(seconds)


def format_duration_coarse(seconds: float) -> str:
    """Returns an estimated or running time in its two largest units: "45 s", "2 min 5 s"."""
    left = round(seconds)
    for place, (unit, length) in enumerate(_UNITS[:-1]):
        if left >= length:
            lesser, part = _UNITS[place + 1]
            return f"{left // length} {unit} {left % length // part} {lesser}"
    return f"{left} s"


def format_percent(share: float) -> str:
    """Returns a share from 0 to 1 as "12.5 %"; only zero reads as zero."""
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def pluralize(number: int, thing: str, things: str = "") -> str:
    """Returns "1 call", "2,000 calls"."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def format_bytes(octets: float) -> str:
    """Returns "512 bytes", "12 kB" or "3.4 MB"; a kB is 1,024 bytes, a MB 1,024 kB."""
    kilo = octets / 1024
    if kilo < 1:
        return pluralize(round(octets), "byte")
    return f"{kilo:,.0f} kB" if kilo < 1000 else f"{kilo / 1024:,.1f} MB"


def byte_size(text: str) -> int:
    """Returns the bytes of a text in UTF-8; most texts need not be encoded for that."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


# Arguments whose option has another name.
_OPTIONS = {
    "timeout_seconds": "--timeout",
    "deadline_seconds": "--deadline",
    "budget_usd": "--budget",
    "add_dirs": "--add-dir",
    "call_budget_usd": "--call-budget",
}


class Wording(str):
    """A message that names Python's arguments; `shell` is the same with the options of the command."""

    shell: str

    def __new__(cls, python: str, shell: Optional[str] = None) -> Wording:
        made = super().__new__(cls, python)
        made.shell = python if shell is None else shell
        return made

    def __getnewargs__(self) -> Tuple[Any, ...]:
        return str(self), self.shell


def naming(text: str, *arguments: str) -> Wording:
    """Returns `text` with each "{}" replaced by an argument; in its shell form, by the option."""
    return Wording(text.format(*arguments), text.format(*map(option, arguments)))


def option(argument: str) -> str:
    """Returns the option that sets an argument: "--max-retries" for "max_retries"."""
    return _OPTIONS.get(argument) or "--" + argument.replace("_", "-")


def for_shell(text: str) -> str:
    """Returns the shell form of a text, or the text itself."""
    return getattr(text, "shell", text)


_DISTRIBUTION = "claude-force"
_ROOT = Path(__file__).resolve().parent.parent


def install_command(extra: str) -> str:
    """Returns a shell command that installs an extra of this package, such as "durable".

    In a checkout it installs the checkout with the extra, elsewhere the extra's packages.
    """
    import shlex

    if (_ROOT / "pyproject.toml").is_file():
        return f"python -m pip install {shlex.quote(f'{_ROOT}[{extra}]')}"
    packages = _packages_of(extra)
    if not packages:
        return f"python -m pip install '.[{extra}]' in a checkout of this version"
    return f"python -m pip install {' '.join(map(shlex.quote, packages))}"


def _packages_of(extra: str) -> List[str]:
    """Returns the requirements of the extra, with their other markers."""
    # Imported here: it would be the larger part of the start of `--help`.
    from importlib import metadata

    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    is_of_extra = re.compile(rf"""(?:\s+and\s+)?extra\s*==\s*["']{re.escape(extra)}["']""")
    return [is_of_extra.sub("", one).rstrip("; ") for one in requirements if is_of_extra.search(one)]
