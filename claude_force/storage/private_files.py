"""Opens the files that the package writes, and never through a link that a project could have put there.

A path is walked part by part from a folder that the user trusts. Below that folder no part may be a link, and
the file itself must be a regular one: nothing waits for a FIFO, and no device is touched. Where the system
can't open relative to a folder (Windows), each part is checked before it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
# The user's umask narrows these.
PUBLIC_FILE, PUBLIC_FOLDER = 0o666, 0o777

HAVE_DESCRIPTORS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# O_NONBLOCK: opening a FIFO or a terminal must not wait for its other end.
_REGULAR = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
# O_PATH: entering a folder needs no permission to list it.
_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
# The descriptor of a closed folder: the system refuses it, where None would mean the working directory.
_CLOSED = -1
_REPARSE_POINT = 0x400
DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal")
# How often a file may be made and removed by others while it is being opened.
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

        with Folder(Path("project/.claude/metrics"), base=Path("project"), make=True) as folder:
            descriptor = folder.open("executions.jsonl", os.O_APPEND)
    """

    def __init__(
        self,
        path: Path,
        base: Path,
        make: bool = False,
        mode: int = PRIVATE_FOLDER,
        by_path: bool = not HAVE_DESCRIPTORS,
    ) -> None:
        """Opens `path`.

        Args:
            base: a folder at or above `path`; links above it and in it are the user's own, and followed.
            make: whether missing folders are made.
            mode: the mode of folders that are made; PRIVATE_FOLDER holds whatever the umask is.
            by_path: works without descriptors of folders, as on Windows.
        """
        self.path, self._make, self._mode, self._by_path = path, make, mode, by_path
        self._descriptor: Optional[int] = None
        if make:
            make_folders(base)
        if by_path:
            expect_folder(os.stat(base), base)
        else:
            self._descriptor = os.open(base, _ENTER)
        try:
            here = base
            for part in path.relative_to(base).parts:
                here = here / part
                self._enter(part, here)
        except BaseException:
            self.close()
            raise

    def _enter(self, part: str, here: Path) -> None:
        name = str(here) if self._by_path else part
        with _naming(here):
            if self._make:
                self._make_one(name)
            if self._by_path:
                expect_folder(os.lstat(name), here)
                return
            try:
                inner = os.open(name, _ENTER | _NOFOLLOW, dir_fd=self._descriptor)
            except OSError:
                # For a link it is ELOOP, ENOTDIR or EMLINK, depending on the system.
                expect_folder(os.lstat(name, dir_fd=self._descriptor), here)
                raise
        self.close()
        self._descriptor = inner

    def _make_one(self, name: str) -> None:
        try:
            os.mkdir(name, self._mode, dir_fd=self._descriptor)
        except FileExistsError:
            return
        if self._mode == PRIVATE_FOLDER and os.name == "posix":
            found = os.lstat(name, dir_fd=self._descriptor)
            if stat.S_IMODE(found.st_mode) != PRIVATE_FOLDER and stat.S_ISDIR(found.st_mode):
                os.chmod(name, PRIVATE_FOLDER, dir_fd=self._descriptor)

    def _name(self, name: str) -> str:
        """`name` as it is given to the system: relative to the descriptor, or a whole path."""
        return str(self.path / name) if self._by_path else name

    def _target(self, name: str) -> _Target:
        return _Target(self._name(name), self.path / name, self._descriptor, self._by_path)

    def open(self, name: str, flags: int = 0, mode: int = PRIVATE_FILE) -> int:
        """Returns a descriptor for reading and writing of a regular file, made with `mode` if it is missing.

        `flags`: O_APPEND, O_TRUNC, O_EXCL. Raises UnsafePathError for a link, for anything but a regular file
        and for a file that has another name elsewhere (a hard link); OSError.
        """
        target = self._target(name)
        found = _open_regular(target, flags, mode)
        with _closed_on_error(found):
            if os.fstat(found).st_nlink > 1:
                text = f"{target.shown} is a hard link to a file with another name"
                raise UnsafePathError(errno.EMLINK, text, str(target.shown))
            _truncate_if(flags, found)
        return found

    def read(self, name: str) -> int:
        """Returns a descriptor for reading of a regular file.

        Raises FileNotFoundError, UnsafePathError, OSError.
        """
        return _open_existing(self._target(name), os.O_RDONLY)

    def replace(self, old: str, new: str) -> None:
        """Renames a file over another, or over nothing. Raises OSError."""
        at = self._descriptor
        os.replace(self._name(old), self._name(new), src_dir_fd=at, dst_dir_fd=at)

    def unlink(self, name: str) -> None:
        """Removes a name; of a link the link itself. Raises OSError."""
        os.unlink(self._name(name), dir_fd=self._descriptor)

    def stat(self, name: str) -> os.stat_result:
        """Returns the status of the name itself, not of what a link leads to. Raises OSError."""
        return os.lstat(self._name(name), dir_fd=self._descriptor)

    def has(self, name: str) -> bool:
        """Whether there is anything of this name; a link counts wherever it leads. Raises OSError."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def expect_file(self, name: str) -> None:
        """Raises UnsafePathError where the name exists and is not a regular file; OSError."""
        with suppress(FileNotFoundError):
            expect_regular(self.stat(name), self.path / name)

    def names(self) -> List[str]:
        """Lists the folder. Raises OSError."""
        if self._by_path:
            return os.listdir(self.path)
        listing = os.open(".", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0), dir_fd=self._descriptor)
        try:
            return os.listdir(listing)
        finally:
            os.close(listing)

    def close(self) -> None:
        """Ends its use; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, None if self._by_path else _CLOSED
        if descriptor is not None and descriptor != _CLOSED:
            os.close(descriptor)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Target(NamedTuple):
    """A file as it is given to the system (`name`, relative to `folder`) and as messages name it."""

    name: str
    shown: Path
    folder: Optional[int] = None
    by_path: bool = not HAVE_DESCRIPTORS

    def open(self, flags: int, mode: int = PRIVATE_FILE) -> int:
        flags |= _REGULAR if self.by_path else _REGULAR | _NOFOLLOW
        return os.open(self.name, flags, mode, dir_fd=self.folder)

    def expect_regular(self) -> None:
        expect_regular(os.lstat(self.name, dir_fd=self.folder), self.shown)


def open_private(path: Path, flags: int = 0) -> int:
    """Returns a descriptor for reading and writing of a regular file, made with mode 0600 if it is missing.

    The package trusts the folder; `path` itself is not followed where it is a link. `flags`:
    O_APPEND, O_TRUNC, O_EXCL. Raises UnsafePathError, OSError.
    """
    found = _open_regular(_Target(str(path), path), flags, PRIVATE_FILE)
    _truncate_if(flags, found)
    return found


def read_private(path: Path) -> int:
    """Returns a descriptor for reading of a regular file, not through a link.

    Raises UnsafePathError, OSError.
    """
    return _open_existing(_Target(str(path), path), os.O_RDONLY)


def check_database(path: Path) -> None:
    """Raises UnsafePathError where SQLite would open a link or an irregular file, at `path` or beside it."""
    for suffix in DATABASE_SUFFIXES:
        part = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):
            expect_regular(os.lstat(part), part)


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
    """Gives a folder of the package the mode 0700; not through a link. Raises OSError."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != PRIVATE_FOLDER:
            os.fchmod(descriptor, PRIVATE_FOLDER)
    finally:
        os.close(descriptor)


def _open_regular(target: _Target, flags: int, mode: int) -> int:
    """Opens the file as it is, or makes it."""
    wanted = os.O_RDWR | (flags & os.O_APPEND)
    if not flags & os.O_EXCL:
        for _ in range(_MOST_TRIES):
            with suppress(FileNotFoundError):
                return _open_existing(target, wanted)
            # Another process may have made it in this moment.
            with suppress(FileExistsError):
                return _make_file(target, wanted, mode)
    return _make_file(target, wanted, mode)


def _make_file(target: _Target, flags: int, mode: int) -> int:
    with _naming(target.shown):
        made = target.open(flags | os.O_CREAT | os.O_EXCL, mode)
        with _closed_on_error(made):
            # The umask has narrowed the mode.
            if os.name == "posix" and mode == PRIVATE_FILE != stat.S_IMODE(os.fstat(made).st_mode):
                os.fchmod(made, PRIVATE_FILE)
        return made


def _open_existing(target: _Target, flags: int) -> int:
    with _naming(target.shown):
        if target.by_path:
            target.expect_regular()
        try:
            found = target.open(flags)
        except OSError:
            # Says what it is where that is the reason: ELOOP for a link, ENXIO for a socket.
            target.expect_regular()
            raise
        with _closed_on_error(found):
            expect_regular(os.fstat(found), target.shown)
        return found


def _truncate_if(flags: int, descriptor: int) -> None:
    # Opening with O_TRUNC would empty the file before it is checked.
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)


@contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Gives errors of the system the whole path, where they have a name relative to a folder."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def kind_of(found: os.stat_result) -> str:
    """What there is, in words, where it is not a regular file."""
    return next((words for matches, words in _KINDS if matches(found.st_mode)), "a special file")


def expect_regular(found: os.stat_result, shown: Path) -> None:
    """Raises UnsafePathError for the status of anything but a regular file."""
    _refuse_link(found, shown)
    if not stat.S_ISREG(found.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise UnsafePathError(code, f"{shown} is not a file but {kind_of(found)}", str(shown))


def expect_folder(found: os.stat_result, shown: Path) -> None:
    """Raises UnsafePathError for the status of a link, NotADirectoryError for that of another thing."""
    _refuse_link(found, shown)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{shown} is not a folder", str(shown))


def _refuse_link(found: os.stat_result, shown: Path) -> None:
    # A junction of Windows is a folder with an attribute.
    is_reparse_point = getattr(found, "st_file_attributes", 0) & _REPARSE_POINT
    if stat.S_ISLNK(found.st_mode) or is_reparse_point:
        text = f"{shown} is a symbolic link, and inside a project nothing is read or written through one"
        raise UnsafePathError(errno.ELOOP, text, str(shown))
