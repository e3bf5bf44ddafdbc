"""Writes files of a workspace: whole or not at all, through no link, with the mode that they had."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from contextlib import contextmanager, suppress
from typing import Iterator, Optional

from ..errors import FileAccessError
from ..storage.folders import Folders, ReplacedError
from ..storage.path_text import one_line
from ..storage.private_files import PUBLIC_FILE
from ..storage.project_files import Parts
from ..storage.regular_files import checked_descriptor, read_all, unreadable
from .protocol import ToolError
from .read_tool import MOST_WHOLE
from .workspace import Place, failed

# Held from the reading of a file to its writing: two agents of this process must not edit it at once.
_WRITES = threading.Lock()
# A name may have 255 bytes.
_MOST_NAME = 50


class ChangedError(Exception):
    """The file was replaced or written by somebody else since it was read here."""


class OpenFile:
    """A file that is to be written.

    Attributes:
        data: what it holds; None where it isn't there yet.
    """

    def __init__(self, place: Place, reads: bool) -> None:
        """Raises ToolError. `reads`: whether the content is needed; else `data` is only empty or not."""
        self._place, self._folders = place, place.files.folders
        self._info: Optional[os.stat_result] = None
        self.data: Optional[bytes] = None
        parts, missing = place.reached.parts, place.reached.missing
        whole = (*parts, *missing)
        self._folder, self._name = whole[:-1], whole[-1]
        self._made = len(parts)
        if not missing:
            self._info = place.reached.info
            self.data = self._read() if reads or not self._info.st_size else b"\n"

    def _read(self) -> bytes:
        descriptor = self._folders.open(self._folder, self._name)
        checked_descriptor(descriptor, self._place.path, MOST_WHOLE)
        try:
            self._info = os.fstat(descriptor)
            return read_all(descriptor, self._place.path, MOST_WHOLE)
        finally:
            os.close(descriptor)

    def write(self, data: bytes) -> None:
        """Puts `data` in the place of the content; makes the folders that are missing.

        Raises ChangedError, ReplacedError, OSError.
        """
        if self._info is not None:
            self._folders.expect_writable(self._folder, self._name)
        for depth in range(self._made, len(self._folder)):
            with suppress(FileExistsError):
                self._folders.make(self._folder[:depth], self._folder[depth])
        part = f".{self._name[:_MOST_NAME]}.{secrets.token_hex(6)}.tmp"
        try:
            self._fill(part, data)
            self._expect_unchanged()
            self._folders.replace(self._folder, part, self._name)
        except BaseException:
            _remove(self._folders, self._folder, part)
            raise

    def _fill(self, part: str, data: bytes) -> None:
        descriptor = self._folders.create(self._folder, part, PUBLIC_FILE)
        with open(descriptor, "wb") as file:
            if self._info is not None:
                _copy_owner_and_mode(descriptor, self._info)
            file.write(data)

    def _expect_unchanged(self) -> None:
        if self._info is None:
            return
        try:
            now = self._folders.lstat(self._folder, self._name)
        except FileNotFoundError as error:
            raise ChangedError from error
        if _version(now) != _version(self._info):
            raise ChangedError


@contextmanager
def open_for_writing(place: Place, tool: str, reads: bool) -> Iterator[OpenFile]:
    """Opens what `place` leads to. Only one file at a time is open. Raises ToolError.

    `tool`: the name of the tool, for the texts of errors.
    """
    with _WRITES:
        try:
            yield OpenFile(place, reads)
        except ReplacedError as error:
            raise failed(
                f"{one_line(place.path)} was replaced while it was being opened. Try again."
            ) from error
        except FileAccessError as error:
            raise failed(str(error)) from error
        except UnicodeEncodeError as error:
            raise failed("The text has half of a surrogate pair, which no file can hold.") from error
        except OSError as error:
            raise ToolError(_system_error(tool, place.path, error)) from error


def refuse_other_kinds(place: Place, tool: str) -> None:
    """Raises ToolError for whatever is no regular file, is a link, or lies below a file."""
    reached = place.reached
    if reached.is_link:
        target = one_line(place.real)
        raise ToolError(
            f"Refusing to write {one_line(place.path)}: it is a symbolic link. "
            f"Write to the link's target path instead: {target}."
        )
    if reached.missing and (not reached.is_folder or ".." in reached.missing):
        raise failed(f"Error calling tool ({tool}): ENOTDIR: not a directory, stat '{one_line(place.path)}'")
    if not reached.missing and not reached.is_folder and not stat.S_ISREG(reached.info.st_mode):
        raise failed(f"Cannot write '{one_line(place.path)}': it is not a regular file.")


def _version(info: os.stat_result) -> object:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _copy_owner_and_mode(descriptor: int, info: os.stat_result) -> None:
    if os.name != "posix":
        return
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (info.st_uid, info.st_gid):
        # Only the superuser may give files away; for others the new file is theirs.
        with suppress(PermissionError):
            os.fchown(descriptor, info.st_uid, info.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(info.st_mode) & 0o777)


def _remove(folders: Folders, folder: Parts, name: str) -> None:
    with suppress(OSError, ReplacedError):
        folders.unlink(folder, name)


def _system_error(tool: str, path: str, error: OSError) -> str:
    code = errno.errorcode.get(error.errno or 0, "")
    if not code:
        return str(failed(str(unreadable(path, error))))
    reason = (error.strerror or "").lower()
    return str(failed(f"Error calling tool ({tool}): {code}: {reason}, open '{one_line(path)}'"))
