"""What one check found."""

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
    """`state` is OK, WARNING for what may fail or mislead, PROBLEM for what does; `advice` is the mend."""

    name: str
    state: str
    text: str
    advice: str = ""


_NEWEST_TRIED = (3, 13)
# So many signatures are checked in a moment; `cache verify` checks all.
_SAMPLE = 1000
_NO_CACHE = "it can't be used, so that every answer is paid for"


def python() -> CheckResult:
    """Which Python runs this."""
    text = f"claude-force {__version__} on Python {platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] > _NEWEST_TRIED:
        newest = ".".join(map(str, _NEWEST_TRIED))
        return CheckResult(
            "python", WARNING, text, f"It was not tried on this one; the newest that was is {newest}."
        )
    return CheckResult("python", OK, text)


def sdk() -> CheckResult:
    """Which SDK calls are made with. It is not imported."""
    found = {name: _version(name) for name in ("anthropic", "aiohttp")}
    for name, version in found.items():
        if version is None:
            return CheckResult("sdk", PROBLEM, f"{name} is not installed", f"Run: pip install {name}")
    return CheckResult("sdk", OK, f"anthropic {found['anthropic']} with aiohttp {found['aiohttp']}")


def _version(package: str) -> Optional[str]:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def credentials() -> CheckResult:
    """What the environment has of them; what else the SDK finds, only the SDK knows."""
    clouds = settings.clouds()
    if clouds:
        return _of_clouds(clouds)
    names = settings.credentials()
    if names:
        return CheckResult("credentials", OK, f"from {names[0]}")
    advice = "Run: export ANTHROPIC_API_KEY=..., unless a profile of the SDK has them."
    return CheckResult("credentials", WARNING, "none are in the environment", advice)


def _of_clouds(clouds: Tuple[str, ...]) -> CheckResult:
    switches = " and ".join(map(settings.cloud_switch, clouds))
    if len(clouds) > 1:
        return CheckResult("credentials", PROBLEM, f"{switches} are both set", "Unset one of them.")
    missing = settings.missing_for(clouds[0])
    if missing:
        advice = f"Set {' and '.join(missing)}."
        return CheckResult(
            "credentials", PROBLEM, f"{switches} is set without {' and '.join(missing)}", advice
        )
    return CheckResult("credentials", OK, f"{switches} is set: those of that cloud, found in its own ways")


def cache() -> Iterator[CheckResult]:
    """Whether the cache can be used, and whether the signatures of its latest entries hold."""
    folder = settings.user_folder() / "cache"
    if _existing(folder) != folder:
        yield _future(folder)
        return
    from ..response_cache import ResponseCache

    try:
        with ResponseCache() as opened:
            stats, checked = opened.get_stats(), opened.verify(most=_SAMPLE)
    except (CacheError, OSError) as error:
        yield CheckResult("cache", PROBLEM, _NO_CACHE, getattr(error, "strerror", None) or str(error))
        return
    yield CheckResult(
        "cache",
        OK,
        f"{pluralize(stats['entries'], 'answer')}, {format_bytes(stats['size_mb'] * 2**20)} in {folder}",
    )
    yield _signatures(checked)


def _future(folder: Path) -> CheckResult:
    existing = _existing(folder)
    if _takes_files(existing):
        return CheckResult("cache", OK, f"nothing is kept yet; {folder} is made at the first answer")
    return CheckResult(
        "cache", PROBLEM, _NO_CACHE, f"{existing} can't be written: make it a folder of your own."
    )


def _existing(folder: Path) -> Path:
    # Not by Path, which raises where one may not look into the folder above.
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(str(folder), os.W_OK | os.X_OK)


def _signatures(checked: Dict[str, int]) -> CheckResult:
    if not checked:
        return CheckResult("signatures", PROBLEM, "the cache can't be read", "-v shows why.")
    bad = checked["forged"] + checked["unreadable"]
    if bad:
        advice = "Such entries are never given out. Run: claude-force cache verify --remove"
        return CheckResult("signatures", PROBLEM, f"{bad} of {checked['checked']} do not hold", advice)
    if checked["other_secret"]:
        text = f"{checked['other_secret']} of {checked['checked']} were made with another secret"
        advice = (
            "They are misses until that secret is set again. Run `claude-force cache clear` if it is gone."
        )
        return CheckResult("signatures", WARNING, text, advice)
    where = "CLAUDE_CACHE_SECRET" if settings.cache_secret() is not None else "the folder's own, mode 0600"
    return CheckResult(
        "signatures", OK, f"all {checked['checked']} that were checked hold; the secret is {where}"
    )


def metrics(folder: Path) -> CheckResult:
    """Whether executions can be recorded in `folder`."""
    existing = _existing(folder)
    if _takes_files(existing):
        return CheckResult("metrics", OK, f"executions are recorded in {folder}")
    return CheckResult(
        "metrics",
        WARNING,
        f"{existing} can't be written, so that no execution is recorded",
        f"Make it a folder that you can write. Run: chmod u+rwx {existing}",
    )
