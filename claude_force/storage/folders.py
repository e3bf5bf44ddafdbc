"""Accesses folders below a root. A folder is given by its parts, none of which may be a link.

`DescriptorFolders` opens each folder in the descriptor of the folder above it: no link is ever followed.
`PathFolders` is for systems without descriptors of folders, such as Windows. It checks a path and then uses
it, so a link that is put there in between is followed.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import ContextManager, Iterator, List, Protocol, Sequence, Tuple, Union

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_LIST = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_LINK
# Passing through a folder needs no permission to list it.
_PASS = _LIST | getattr(os, "O_PATH", 0)
# Without O_NONBLOCK, opening a FIFO that was put there in between would wait for a writer.
_READ = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_READ |= getattr(os, "O_BINARY", 0)
_WRITE = os.O_WRONLY | (_READ & ~os.O_RDONLY)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | getattr(os, "O_BINARY", 0)
HAVE_DESCRIPTORS = {os.open, os.stat, os.readlink} <= os.supports_dir_fd and os.scandir in os.supports_fd


class ReplacedError(Exception):
    """A part of the path was replaced since it was checked."""


class Folders(Protocol):
    """All methods raise OSError, and ReplacedError where a part of `folder` has become a link."""

    def close(self) -> None: ...

    def lstat(self, folder: Sequence[str], name: str) -> os.stat_result: ...

    def readlink(self, folder: Sequence[str], name: str) -> str: ...

    def open(self, folder: Sequence[str], name: str) -> int: ...

    def scan(self, folder: Sequence[str]) -> ContextManager[Iterator[os.DirEntry[str]]]: ...

    def make(self, folder: Sequence[str], name: str) -> None:
        """Makes a folder. Raises FileExistsError for whatever is there, a link too."""

    def create(self, folder: Sequence[str], name: str, mode: int) -> int:
        """Returns a descriptor for writing of a new file. Raises FileExistsError."""

    def expect_writable(self, folder: Sequence[str], name: str) -> None:
        """Raises OSError where this process may not write to the file, although it may replace it."""

    def replace(self, folder: Sequence[str], old: str, new: str) -> None:
        """Renames within a folder. A link named `new` is replaced, and not followed."""

    def unlink(self, folder: Sequence[str], name: str) -> None: ...


class DescriptorFolders:
    """Holds the descriptors of the folder that was used last and of those above it."""

    def __init__(self, root: Union[str, int]) -> None:
        """`root`: a path, or a descriptor of the folder, which stays the caller's. Raises OSError."""
        self._root = os.dup(root) if isinstance(root, int) else os.open(root, _PASS)
        self._chain: List[Tuple[str, int]] = []

    def close(self) -> None:
        self._keep(0)
        os.close(self._root)

    def lstat(self, folder: Sequence[str], name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._descriptor(folder), follow_symlinks=False)

    def readlink(self, folder: Sequence[str], name: str) -> str:
        try:
            return os.readlink(name, dir_fd=self._descriptor(folder))
        except OSError as error:
            raise _replaced(error) from error

    def open(self, folder: Sequence[str], name: str) -> int:
        try:
            return os.open(name, _READ, dir_fd=self._descriptor(folder))
        except OSError as error:
            raise _replaced(error) from error

    @contextmanager
    def scan(self, folder: Sequence[str]) -> Iterator[Iterator[os.DirEntry[str]]]:
        descriptor = os.open(".", _LIST, dir_fd=self._descriptor(folder))
        try:
            with os.scandir(descriptor) as entries:
                yield entries
        finally:
            os.close(descriptor)

    def make(self, folder: Sequence[str], name: str) -> None:
        os.mkdir(name, dir_fd=self._descriptor(folder))

    def create(self, folder: Sequence[str], name: str, mode: int) -> int:
        return os.open(name, _CREATE, mode, dir_fd=self._descriptor(folder))

    def expect_writable(self, folder: Sequence[str], name: str) -> None:
        try:
            os.close(os.open(name, _WRITE, dir_fd=self._descriptor(folder)))
        except OSError as error:
            raise _replaced(error) from error

    def replace(self, folder: Sequence[str], old: str, new: str) -> None:
        descriptor = self._descriptor(folder)
        os.replace(old, new, src_dir_fd=descriptor, dst_dir_fd=descriptor)

    def unlink(self, folder: Sequence[str], name: str) -> None:
        os.unlink(name, dir_fd=self._descriptor(folder))

    def _descriptor(self, folder: Sequence[str]) -> int:
        chain = self._chain
        known = 0
        while known < len(chain) and known < len(folder) and chain[known][0] == folder[known]:
            known += 1
        self._keep(known)
        for name in folder[known:]:
            above = chain[-1][1] if chain else self._root
            try:
                chain.append((name, os.open(name, _PASS, dir_fd=above)))
            except OSError as error:
                raise _replaced(error) from error
        return chain[-1][1] if chain else self._root

    def _keep(self, depth: int) -> None:
        while len(self._chain) > depth:
            os.close(self._chain.pop()[1])


class PathFolders:
    """The same methods, by paths."""

    def __init__(self, root: str) -> None:
        """Raises OSError."""
        self._root = root
        os.stat(root)

    def close(self) -> None:
        """Does nothing: no folder is open."""

    def lstat(self, folder: Sequence[str], name: str) -> os.stat_result:
        return os.lstat(self._path(folder, name))

    def readlink(self, folder: Sequence[str], name: str) -> str:
        try:
            return os.readlink(self._path(folder, name))
        except OSError as error:
            raise _replaced(error) from error

    def open(self, folder: Sequence[str], name: str) -> int:
        path = self._path(folder, name)
        # A junction of Windows leads elsewhere, although lstat shows no link.
        if os.path.realpath(path) != path:
            raise ReplacedError
        try:
            return os.open(path, _READ)
        except OSError as error:
            raise _replaced(error) from error

    @contextmanager
    def scan(self, folder: Sequence[str]) -> Iterator[Iterator[os.DirEntry[str]]]:
        with os.scandir(self._real(folder, ".")) as entries:
            yield entries

    def make(self, folder: Sequence[str], name: str) -> None:
        os.mkdir(self._real(folder, name))

    def create(self, folder: Sequence[str], name: str, mode: int) -> int:
        return os.open(self._real(folder, name), _CREATE, mode)

    def expect_writable(self, folder: Sequence[str], name: str) -> None:
        try:
            os.close(os.open(self._real(folder, name), _WRITE))
        except OSError as error:
            raise _replaced(error) from error

    def replace(self, folder: Sequence[str], old: str, new: str) -> None:
        os.replace(self._real(folder, old), self._real(folder, new))

    def unlink(self, folder: Sequence[str], name: str) -> None:
        os.unlink(self._real(folder, name))

    def _real(self, folder: Sequence[str], name: str) -> str:
        """The path of a name in a folder that no link is on the way to. Raises ReplacedError."""
        path = self._path(folder, ".")
        if os.path.realpath(path) != os.path.normpath(path):
            raise ReplacedError
        return os.path.join(os.path.normpath(path), name)

    def _path(self, folder: Sequence[str], name: str) -> str:
        return os.path.join(self._root, *folder, name)


def _replaced(error: OSError) -> Exception:
    """Returns the error; ReplacedError where it means a link, or no link any more."""
    return ReplacedError() if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EINVAL) else error
