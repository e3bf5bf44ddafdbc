"""`-o FILE` of `run agent` and `run workflow`: what was answered, in a file beside standard output."""

from __future__ import annotations

import os
import stat
from typing import Any, Optional

from ..errors import InputError
from ..storage.places import folder_of, granted_path, is_granted_special
from ..storage.private_files import PUBLIC_FILE, Folder


class AnswerFile:
    """Opened before anything is sent, so that no answer is paid for that can't be written.

    A file that is there keeps its content until there is something to write. One that was made for nothing
    is removed. Inside a project no link is followed; outside of one the path is as the user gave it.
    """

    def __init__(self, path: Optional[str]) -> None:
        """None, and "-" for standard output, which gets the answer anyway, stand for no file."""
        self._path = None if path == "-" else path
        self._descriptor: Optional[int] = None
        # The file's name, and its folder, as long as the file is new and empty.
        self._name = ""
        self._new_in: Optional[Folder] = None

    def __enter__(self) -> AnswerFile:
        """Raises InputError."""
        if self._path is not None:
            try:
                self._open(self._path)
            except (OSError, ValueError) as error:
                raise self._unwritable(error) from error
        return self

    def _open(self, path: str) -> None:
        if is_granted_special(path):
            self._descriptor = os.open(path, os.O_WRONLY)
            return
        self._name = granted_path(path).name
        folder = folder_of(path)
        try:
            is_new = not folder.has(self._name)
            self._descriptor = folder.open(self._name, mode=PUBLIC_FILE)
        except BaseException:
            folder.close()
            raise
        if is_new:
            self._new_in = folder
        else:
            folder.close()

    def write(self, text: str) -> None:
        """Replaces what the file holds. Raises InputError."""
        if self._descriptor is None:
            return
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        self._close_folder()
        try:
            if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                os.ftruncate(self._descriptor, 0)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def __exit__(self, *_: Any) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            if self._new_in is not None:
                self._new_in.unlink(self._name)
                self._close_folder()

    def _close_folder(self) -> None:
        if self._new_in is not None:
            self._new_in.close()
            self._new_in = None

    def _unwritable(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(f"{self._path} can't be written: {reason}.")
