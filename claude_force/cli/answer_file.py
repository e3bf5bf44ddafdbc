"""`-o FILE` of `run agent` and `run workflow`: what was answered, in a file beside standard output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

from ..errors import InputError


class AnswerFile:
    """Opened before anything is sent, so that no answer is paid for that can't be written.

    A file that is there keeps its content until there is something to write. One that was made for nothing
    is removed. No symbolic link is followed.
    """

    def __init__(self, path: Optional[str]) -> None:
        """None, and "-" for standard output, which gets the answer anyway, stand for no file."""
        self._path = None if path == "-" else path
        self._descriptor: Optional[int] = None
        self._is_new = False

    def __enter__(self) -> AnswerFile:
        """Raises InputError."""
        if self._path is not None:
            self._is_new = not os.path.lexists(self._path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                self._descriptor = os.open(self._path, flags, 0o666)
            except (OSError, ValueError) as error:
                raise self._unwritable(error) from error
        return self

    def write(self, text: str) -> None:
        """Replaces what the file holds. Raises InputError."""
        if self._descriptor is None:
            return
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        self._is_new = False
        try:
            os.ftruncate(self._descriptor, 0)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def __exit__(self, *_: Any) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            if self._is_new and self._path is not None:
                Path(self._path).unlink()

    def _unwritable(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(f"{self._path} can't be written: {reason}.")
