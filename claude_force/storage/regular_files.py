"""Checks and reads open files, and makes the errors for those that can't be read."""

from __future__ import annotations

import os
import stat
from typing import List, Optional

from ..errors import FileAccessError
from ..formatting import format_bytes
from .path_text import Name, printable
from .private_files import kind_of

_CHUNK = 1024 * 1024


def refuse_irregular(name: Name, info: os.stat_result) -> None:
    """Raises FileAccessError for anything but a regular file."""
    if not stat.S_ISREG(info.st_mode):
        what = f"can't be read: it is {kind_of(info)}, and only regular files are read"
        raise FileAccessError(printable(name), what, "Name another file, or put a regular one there.")


def checked_descriptor(descriptor: int, name: Name, most: Optional[int]) -> int:
    """Returns the descriptor of a regular file of at most `most` bytes; closes any other.

    Raises FileAccessError.
    """
    try:
        info = os.fstat(descriptor)
        refuse_irregular(name, info)
        if most is not None and info.st_size > most:
            raise too_large(name, most)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def too_large(name: Name, most: int) -> FileAccessError:
    return FileAccessError(
        printable(name), f"is over {format_bytes(most)} ({most:,} bytes)", "Make it smaller."
    )


def missing_file(name: Name) -> FileAccessError:
    what = "can't be read: No such file or directory"
    return FileAccessError(printable(name), what, "Check the name.", is_missing=True)


def unreadable(name: Name, error: Exception) -> FileAccessError:
    """Makes the error for one of the system: the file is missing, or can't be read."""
    if isinstance(error, FileNotFoundError):
        return missing_file(name)
    # Half of a surrogate pair, which JSON can contain and no file system accepts.
    reason = getattr(error, "strerror", None) or "it has a character that no path can have"
    return FileAccessError(printable(name), f"can't be read: {reason}", "Check the path and its permissions.")


def read_all(descriptor: int, name: Name, most: int) -> bytes:
    """Reads to the end of the file, which may have grown since it was checked. Raises FileAccessError."""
    chunks: List[bytes] = []
    left = most + 1
    try:
        while left > 0:
            chunk = os.read(descriptor, min(left, _CHUNK))
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
            left -= len(chunk)
    except OSError as error:
        raise unreadable(name, error) from error
    raise too_large(name, most)
