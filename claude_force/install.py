"""How to install what an extra of this package needs, for messages.

Not by this package's own name: on the public registry that is the package of version 1.x.
"""

from __future__ import annotations

import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import List

_DISTRIBUTION = "claude-force"
_ROOT = Path(__file__).resolve().parent.parent


def install_command(extra: str) -> str:
    """A shell command after which this code finds the packages of `extra`, such as "durable".

    In a checkout it installs the checkout with the extra; elsewhere the packages themselves.
    """
    if (_ROOT / "pyproject.toml").is_file():
        return f"python -m pip install {shlex.quote(f'{_ROOT}[{extra}]')}"
    packages = _packages_of(extra)
    if not packages:
        return f"python -m pip install '.[{extra}]' in a checkout of this version"
    return f"python -m pip install {' '.join(map(shlex.quote, packages))}"


def _packages_of(extra: str) -> List[str]:
    """The requirements of the extra, with the markers that are not about it."""
    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    is_of_extra = re.compile(rf"""(?:\s+and\s+)?extra\s*==\s*["']{re.escape(extra)}["']""")
    return [is_of_extra.sub("", one).rstrip("; ") for one in requirements if is_of_extra.search(one)]
