"""Who answers a call, as a part of the question: the address, custom headers and the SDK's profile."""

from __future__ import annotations

import hashlib
import stat
from functools import lru_cache
from pathlib import Path
from typing import Optional, Tuple

from .. import settings
from .key import encode

# Fields of the question by name, beside those of the call.
Service = Tuple[Tuple[str, str], ...]

_SMALL_BYTES = 2**16


def service(api_key: Optional[str], base_url: Optional[str]) -> Service:
    """What decides who answers: the API or the cloud, its address, custom headers and the SDK's profile.

    The API key is not part of it: a new key for the same address gives the same answers.
    """
    names = settings.clouds(api_key)
    if names:
        fields = [("endpoint", " ".join(_cloud(name, base_url) for name in names))]
    else:
        fields = [("endpoint", (base_url or settings.endpoint()).rstrip("/"))]
    headers = settings.custom_headers()
    if headers:
        fields.append(("headers", _digest(_header_fields(headers))))
    # An explicit key, or one of the environment, keeps the SDK from its profiles.
    if api_key is None and not names and not settings.credentials():
        fields += _profile()
    return tuple(fields)


def _cloud(name: str, base_url: Optional[str]) -> str:
    place = [name, (base_url or settings.endpoint(name)).rstrip("/"), settings.region(name)]
    place.append(settings.vertex_project() if name == "vertex" else settings.aws_profile())
    return " ".join(filter(None, place))


def _profile() -> Service:
    """The SDK's profile by its name and the text of its file, else the ids of a workload identity."""
    name = settings.sdk_profile()
    if not name and any(settings.workload()):
        return (("profile", _digest(settings.workload())),)
    folder = settings.sdk_folder()
    if folder is None:
        return (("profile", name),) if name else ()
    name = name or small_text(folder / "active_config").strip() or "default"
    text = small_text(folder / "configs" / f"{name}.json")
    return (("profile", _digest((name, text))),) if text or name != "default" else ()


def _header_fields(text: str) -> Tuple[str, ...]:
    """The headers as the SDK reads them: names in any case, and the order does not matter."""
    pairs = (line.partition(":") for line in text.split("\n") if ":" in line)
    found = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return tuple(part for name in sorted(found) for part in (name, found[name]))


def _digest(parts: Tuple[str, ...]) -> str:
    """A hash, because headers can hold secrets, and a question is kept in memory."""
    return hashlib.sha256(encode(parts)).hexdigest()


def small_text(path: Path) -> str:
    """The beginning of a small regular file of the user's, read again only when it has changed; "" where it
    can't be read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return ""
        return _text_of(path, found.st_ino, found.st_mtime_ns, found.st_size)
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=16)
def _text_of(path: Path, inode: int, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return file.read(_SMALL_BYTES).decode("utf-8", "replace")
