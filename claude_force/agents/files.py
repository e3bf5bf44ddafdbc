"""Files of a `.claude` folder: read as text, never outside the folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Tuple, Union

from ..errors import ConfigurationError

LARGEST_FILE = 1024 * 1024

Stamp = Tuple[int, int, int]


def read_text(path: Path) -> str:
    """The file's text (UTF-8, with or without a BOM). Raises ConfigurationError with the reason."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigurationError(
                f"{path} is over {LARGEST_FILE:,} bytes: an agent's file is a page of text."
            )
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror or error}.") from error


def resolve_inside(folder: Path, relative: str) -> Path:
    """The real path of a file under `folder`. Raises ConfigurationError for one that leaves it."""
    if not relative.strip() or not _can_be_named(relative):
        raise ConfigurationError(f"{relative!r} is no path: name a file under {folder}.")
    plain = relative.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or Path(relative).is_absolute():
        raise ConfigurationError(f"{relative} is an absolute path: name a file under {folder}.")
    base = os.path.realpath(folder)
    real = os.path.realpath(Path(base, plain))
    if os.path.commonpath((base, real)) != base:
        raise ConfigurationError(f"{relative} points outside {folder}: keep the file in that folder.")
    return Path(real)


def stamp(path: Union[str, Path]) -> Stamp:
    """What changes with a file's or a folder's content; all zero where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _can_be_named(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        # A half of a surrogate pair, which JSON can hold and no file system takes.
        return False
