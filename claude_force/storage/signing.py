"""Signs with HMAC-SHA256, by a secret that is given, taken from the environment, or made once for the folder.

Source of the construction: RFC 2104. Compare signatures with `hmac.compare_digest`, in constant time.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Union

from .. import settings
from ..errors import CacheError
from .private_files import UnsafePathError, open_private, read_private

_BYTES = 32
_SHORTEST, _LONGEST = 16, 4096
ID_BYTES = 8


class Secret:
    """Signs. Its id tells entries of another secret, which can't be verified, from forged ones."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self.id = hmac.digest(value, b"claude-force cache secret", "sha256")[:ID_BYTES]

    def sign(self, signed: Union[bytes, memoryview]) -> bytes:
        return hmac.digest(self._value, signed, "sha256")


def find_secret(given: Union[str, bytes, None], folder: Path) -> bytes:
    """Returns the given secret, else CLAUDE_CACHE_SECRET, else that of the folder, which is made once.

    Raises CacheError for an empty secret, and for a file that others may read or that is not a regular file.
    """
    chosen = settings.cache_secret() if given is None else given
    if chosen is not None:
        if not chosen:
            raise CacheError("The cache secret is empty: give a long random text, or none at all.")
        return chosen.encode() if isinstance(chosen, str) else chosen
    try:
        return _read_secret(folder / "secret")
    except UnsafePathError as error:
        raise CacheError(f"The cache's secret can't be used: {error}. Remove it.") from error


def _read_secret(path: Path) -> bytes:
    if not path.exists():
        _make_secret(path)
    with os.fdopen(read_private(path), "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise CacheError(f"{path} can be read by others: chmod 600 it, or remove it with the cache.")
        secret = file.read(_LONGEST + 1)
    if not _SHORTEST <= len(secret) <= _LONGEST:
        raise CacheError(f"{path} does not hold a complete secret: remove it; the cache then starts empty.")
    return secret


def _make_secret(path: Path) -> None:
    # Written to a temporary name, then linked: the first of several processes wins, and none reads half a
    # secret.
    draft = path.with_name(f"secret.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = open_private(draft, os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
