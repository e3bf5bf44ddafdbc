"""Checks of this machine: Python, packages, credentials, the cache, the ledger's folder."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

from .. import __version__, settings
from ..errors import CacheError
from ..formatting import format_bytes, pluralize

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class CheckResult(NamedTuple):
    """What a check found.

    Attributes:
        name: what was checked.
        state: OK, WARNING for what may fail or mislead, or PROBLEM for what will.
        text: the fact.
        advice: what to do about it; "" for nothing.
    """

    name: str
    state: str
    text: str
    advice: str = ""


def ok(name: str, text: str, advice: str = "") -> CheckResult:
    """Returns a result without a fault."""
    return CheckResult(name, OK, text, advice)


def warning(name: str, text: str, advice: str = "") -> CheckResult:
    """Returns a result that may fail or mislead."""
    return CheckResult(name, WARNING, text, advice)


def problem(name: str, text: str, advice: str = "") -> CheckResult:
    """Returns a result that will fail."""
    return CheckResult(name, PROBLEM, text, advice)


_NEWEST_TESTED = (3, 13)
# This many signatures take a moment; `cache verify` checks all.
_MAX_SIGNATURES = 1000
_NO_CACHE = "it can't be used: every answer is paid for"


def python() -> CheckResult:
    """Checks the version of Python."""
    text = f"claude-force {__version__} on Python {platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] > _NEWEST_TESTED:
        newest = ".".join(map(str, _NEWEST_TESTED))
        return warning("python", text, f"It is not tested on this version; the newest tested is {newest}.")
    return ok("python", text)


def sdk() -> CheckResult:
    """Checks the packages that send calls, without importing them."""
    found = {name: _version(name) for name in ("anthropic", "aiohttp")}
    for name, version in found.items():
        if version is None:
            return problem("sdk", f"{name} is not installed", f"Run: pip install {name}")
    return ok("sdk", f"anthropic {found['anthropic']} with aiohttp {found['aiohttp']}")


def _version(package: str) -> Optional[str]:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def credentials() -> CheckResult:
    """Checks the credentials of the environment; only the SDK knows what else it finds."""
    clouds = settings.clouds()
    if clouds:
        return _cloud_credentials(clouds)
    names = settings.credentials()
    if names:
        return ok("credentials", f"from {names[0]}")
    advice = "Run: export ANTHROPIC_API_KEY=..., unless a profile of the SDK has them."
    return warning("credentials", "none in the environment", advice)


def _cloud_credentials(clouds: Tuple[str, ...]) -> CheckResult:
    switches = " and ".join(map(settings.cloud_switch, clouds))
    if len(clouds) > 1:
        return problem("credentials", f"{switches} are both set", "Unset one of them.")
    missing = settings.missing_for(clouds[0])
    if missing:
        advice = f"Set {' and '.join(missing)}."
        return problem("credentials", f"{switches} is set without {' and '.join(missing)}", advice)
    return ok("credentials", f"{switches} is set: those of that cloud are used")


def cache() -> Iterator[CheckResult]:
    """Checks whether the cache can be used, and the signatures of its latest entries."""
    folder = settings.user_folder() / "cache"
    if _existing(folder) != folder:
        yield _new_cache(folder)
        return
    from ..response_cache import ResponseCache

    try:
        with ResponseCache() as opened:
            stats, checked = opened.get_stats(), opened.verify(most=_MAX_SIGNATURES)
    except (CacheError, OSError) as error:
        yield problem("cache", _NO_CACHE, getattr(error, "strerror", None) or str(error))
        return
    yield ok(
        "cache",
        f"{pluralize(stats['entries'], 'answer')}, {format_bytes(stats['size_mb'] * 2**20)} in {folder}",
    )
    yield _signatures(checked)


def _new_cache(folder: Path) -> CheckResult:
    existing = _existing(folder)
    if _is_writable(existing):
        return ok("cache", f"no answers yet; {folder} is made with the first one")
    return problem("cache", _NO_CACHE, f"{existing} can't be written: make it a folder of your own.")


def _existing(folder: Path) -> Path:
    # Path.exists raises where the folder above can't be searched.
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(str(folder), os.W_OK | os.X_OK)


def _signatures(checked: Dict[str, int]) -> CheckResult:
    if not checked:
        return problem("signatures", "the cache can't be read", "-v shows why.")
    bad = checked["forged"] + checked["unreadable"]
    if bad:
        advice = "Such entries are never returned. Run: claude-force cache verify --remove"
        return problem("signatures", f"{bad} of {checked['checked']} are wrong", advice)
    if checked["other_secret"]:
        text = f"{checked['other_secret']} of {checked['checked']} were made with another secret"
        advice = (
            "They are misses until that secret is set again. Run `claude-force cache clear` if it is gone."
        )
        return warning("signatures", text, advice)
    where = "CLAUDE_CACHE_SECRET" if settings.cache_secret() is not None else "the folder's own, mode 0600"
    return ok("signatures", f"all {checked['checked']} that were checked are valid; the secret is {where}")


def metrics(folder: Path) -> CheckResult:
    """Checks whether executions can be recorded in `folder`."""
    existing = _existing(folder)
    if _is_writable(existing):
        return ok("metrics", f"executions are recorded in {folder}")
    return warning(
        "metrics",
        f"{existing} can't be written: no execution is recorded",
        f"Make it a folder that you can write. Run: chmod u+rwx {existing}",
    )
