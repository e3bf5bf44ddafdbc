"""Opens the files that the package writes, and never through a link that a project could have put there.

A path is walked part by part from a folder that the user trusts. Below it no part may be a link, and the file
itself must be a regular one: nothing waits for a FIFO, and no device is touched. Where the system can't open
relative to a folder (Windows), each part is looked at before it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import List, Optional, Type

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
# What the user's umask then narrows.
PUBLIC_FILE, PUBLIC_FOLDER = 0o666, 0o777

_RELATIVE = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# O_NONBLOCK: to open a FIFO or a terminal must not wait for its other end.
_REGULAR = _NOFOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
# O_PATH: a folder that may be entered need not be one that may be listed.
_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_REPARSE_POINT = 0x400
_DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal")
# How often a file may come and go between two looks at it.
_MOST_TRIES = 100
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnsafePathError(OSError):
    """A path that the package does not write to. `str()` and `strerror` name the part that is at fault."""

    def __str__(self) -> str:
        return str(self.strerror)


class Folder:
    """An open folder. Its methods reach the files in it by name, without following a link.

    Context manager. Raises UnsafePathError where a part of the path below `base` is a link, OSError.
    """

    def __init__(self, path: Path, base: Path, make: bool = False, mode: int = PRIVATE_FOLDER) -> None:
        """Opens `path`.

        Args:
            base: a folder at or above `path`; links above it and in it are the user's own, and followed.
            make: whether missing folders are made.
            mode: that of the folders that are made; PRIVATE_FOLDER holds whatever the umask is.
        """
        self.path, self._make, self._mode = path, make, mode
        self._descriptor: Optional[int] = None
        if make:
            make_folders(base)
        if _RELATIVE:
            self._descriptor = os.open(base, _ENTER)
        elif not base.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(base))
        try:
            here = base
            for part in path.relative_to(base).parts:
                here = here / part
                self._enter(part, here)
        except BaseException:
            self.close()
            raise

    def _enter(self, part: str, here: Path) -> None:
        name = self._name(part, here)
        if self._make:
            self._make_one(name)
        if not _RELATIVE:
            _expect_folder(os.lstat(here), here)
            return
        try:
            inner = os.open(name, _ENTER | _NOFOLLOW, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                _expect_folder(os.lstat(name, dir_fd=self._descriptor), here)
            error.filename = str(here)
            raise
        # O_PATH opens a link itself on some systems.
        _close(self._descriptor)
        self._descriptor = inner
        _expect_folder(os.fstat(inner), here)

    def _make_one(self, name: str) -> None:
        try:
            os.mkdir(name, self._mode, dir_fd=self._descriptor)
        except FileExistsError:
            return
        if self._mode == PRIVATE_FOLDER and os.name == "posix":
            found = os.lstat(name, dir_fd=self._descriptor)
            if stat.S_IMODE(found.st_mode) != PRIVATE_FOLDER and stat.S_ISDIR(found.st_mode):
                os.chmod(name, PRIVATE_FOLDER, dir_fd=self._descriptor)

    def _name(self, name: str, path: Optional[Path] = None) -> str:
        """`name` as it is given to the system: relative to the descriptor, or whole."""
        return name if _RELATIVE else str(self.path / name if path is None else path)

    def open(self, name: str, flags: int = 0, mode: int = PRIVATE_FILE) -> int:
        """A descriptor for reading and writing of a regular file, made with `mode` if it is missing.

        `flags`: O_APPEND, O_TRUNC, O_EXCL. Raises UnsafePathError for a link, for anything but a regular file
        and for a file that has another name elsewhere (a hard link); OSError.
        """
        shown = self.path / name
        found = _open_regular(self._name(name), shown, flags, mode, self._descriptor)
        try:
            if os.fstat(found).st_nlink > 1:
                raise UnsafePathError(
                    errno.EMLINK, f"{shown} is a hard link to a file with another name", str(shown)
                )
            _truncate_if(flags, found)
        except BaseException:
            os.close(found)
            raise
        return found

    def read(self, name: str) -> int:
        """A descriptor for reading of a regular file. Raises FileNotFoundError, UnsafePathError, OSError."""
        return _open_existing(self._name(name), self.path / name, os.O_RDONLY, self._descriptor)

    def replace(self, old: str, new: str) -> None:
        """Renames a file over another, or over nothing. Raises OSError."""
        at = self._descriptor
        os.replace(self._name(old), self._name(new), src_dir_fd=at, dst_dir_fd=at)

    def unlink(self, name: str) -> None:
        """Removes a name; of a link the link itself. Raises OSError."""
        os.unlink(self._name(name), dir_fd=self._descriptor)

    def stat(self, name: str) -> os.stat_result:
        """Of the name itself, not of what a link leads to. Raises OSError."""
        return os.lstat(self._name(name), dir_fd=self._descriptor)

    def has(self, name: str) -> bool:
        """Whether there is anything of this name; a link counts wherever it leads. Raises OSError."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def expect_file(self, name: str) -> None:
        """Raises UnsafePathError where the name is there and is no regular file; OSError."""
        with suppress(FileNotFoundError):
            _expect_regular(self.stat(name), self.path / name)

    def names(self) -> List[str]:
        """What is in it. Raises OSError."""
        if self._descriptor is None:
            return os.listdir(self.path)
        listing = os.open(".", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0), dir_fd=self._descriptor)
        try:
            return os.listdir(listing)
        finally:
            os.close(listing)

    def close(self) -> None:
        """Ends its use; a second time does nothing."""
        _close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def open_private(path: Path, flags: int = 0) -> int:
    """A descriptor for reading and writing of a regular file that is made, with mode 0600, if it is missing.

    The folder is one that the package trusts; `path` itself is not followed where it is a link. `flags`:
    O_APPEND, O_TRUNC, O_EXCL. Raises UnsafePathError, OSError.
    """
    found = _open_regular(str(path), path, flags, PRIVATE_FILE, None)
    _truncate_if(flags, found)
    return found


def read_private(path: Path) -> int:
    """A descriptor for reading of a regular file, not through a link. Raises UnsafePathError, OSError."""
    return _open_existing(str(path), path, os.O_RDONLY, None)


def check_database(path: Path) -> None:
    """Raises UnsafePathError where SQLite would open a link, or no regular file, at `path` or beside it."""
    for suffix in _DATABASE_SUFFIXES:
        part = path.with_name(path.name + suffix)
        try:
            found = os.lstat(part)
        except FileNotFoundError:
            continue
        _expect_regular(found, part)


def make_folders(path: Path) -> None:
    """Makes `path` and what is missing above it, mode 0700 whatever the umask is. Raises OSError."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        try:
            folder.mkdir(PRIVATE_FOLDER)
        except FileExistsError:
            continue
        if os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) != PRIVATE_FOLDER:
            folder.chmod(PRIVATE_FOLDER)


def make_private(folder: Path) -> None:
    """Gives a folder that is the package's own the mode 0700; not through a link. Raises OSError."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != PRIVATE_FOLDER:
            os.fchmod(descriptor, PRIVATE_FOLDER)
    finally:
        os.close(descriptor)


def _open_regular(name: str, shown: Path, flags: int, mode: int, at: Optional[int]) -> int:
    """As it is; or made, and then with exactly PRIVATE_FILE where that is asked for."""
    wanted = os.O_RDWR | (flags & os.O_APPEND)
    for _ in range(_MOST_TRIES):
        if not flags & os.O_EXCL:
            try:
                return _open_existing(name, shown, wanted, at)
            except FileNotFoundError:
                pass
        try:
            made = os.open(name, wanted | os.O_CREAT | os.O_EXCL | _REGULAR, mode, dir_fd=at)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            # Another process has made it in this moment.
            continue
        return _with_mode(made, mode)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(shown))


def _with_mode(made: int, mode: int) -> int:
    try:
        # The mode of a new file has passed through the umask.
        if (
            os.name == "posix"
            and mode == PRIVATE_FILE
            and stat.S_IMODE(os.fstat(made).st_mode) != PRIVATE_FILE
        ):
            os.fchmod(made, PRIVATE_FILE)
    except BaseException:
        os.close(made)
        raise
    return made


def _open_existing(name: str, shown: Path, flags: int, at: Optional[int]) -> int:
    try:
        if not _NOFOLLOW:
            _expect_regular(os.lstat(name), shown)
        found = os.open(name, flags | _REGULAR, dir_fd=at)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, UnsafePathError)):
            raise
        # Says what it is, where that is the reason: ELOOP for a link, ENXIO for a socket.
        _expect_regular(os.lstat(name, dir_fd=at), shown)
        error.filename = str(shown)
        raise
    try:
        _expect_regular(os.fstat(found), shown)
    except BaseException:
        os.close(found)
        raise
    return found


def _truncate_if(flags: int, descriptor: int) -> None:
    # Not by opening it: what it is must be known first.
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)


def _expect_regular(found: os.stat_result, shown: Path) -> None:
    _refuse_link(found, shown)
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for test, words in _KINDS if test(found.st_mode)), "something else")
        code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise UnsafePathError(code, f"{shown} is not a file but {kind}", str(shown))


def _expect_folder(found: os.stat_result, shown: Path) -> None:
    _refuse_link(found, shown)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{shown} is not a folder", str(shown))


def _refuse_link(found: os.stat_result, shown: Path) -> None:
    is_reparse = getattr(found, "st_file_attributes", 0) & _REPARSE_POINT
    if stat.S_ISLNK(found.st_mode) or is_reparse:
        text = f"{shown} is a symbolic link, and inside a project nothing is read or written through one"
        raise UnsafePathError(errno.ELOOP, text, str(shown))


def _close(descriptor: Optional[int]) -> None:
    if descriptor is not None:
        os.close(descriptor)
