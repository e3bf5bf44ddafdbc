"""Resolves paths that the user gives for reading, on the command line or as arguments of Python.

A path inside the project of the working directory is read within the bounds of that project. In any other
path, which only the user can have chosen, links are followed, and it must lead to a regular file. A pattern
is bounded by the project of its folder, wherever that is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Optional, Union

from .file_walk import PathSpot
from .project_files import ProjectFiles
from .project_root import project_root, working_folder
from .regular_files import missing_file, read_all, unreadable

_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")


class InputPath(NamedTuple):
    """A path below the root that bounds what is read."""

    root: Path
    spot: PathSpot


class InputPaths:
    """Paths relative to the working directory."""

    def __init__(self) -> None:
        self._start = os.path.realpath(working_folder())
        self.root = project_root(self._start)

    def has(self, path: Union[str, Path]) -> bool:
        """Whether the path lies in the project of the working directory."""
        return self._inside(str(path)) is not None

    def file(self, path: Union[str, Path]) -> InputPath:
        """Resolves the path of a file. Raises FileAccessError where its folder does not exist."""
        inside = self._inside(str(path))
        if inside is not None:
            return InputPath(self.root, PathSpot(inside, str(path)))
        folder, name = os.path.split(self._real(str(path)))
        if not os.path.isdir(folder):
            raise missing_file(path)
        return InputPath(Path(folder), PathSpot(name, str(path)))

    def folder(self, path: str) -> InputPath:
        """Resolves the folder of a pattern. Raises FileAccessError."""
        inside = self._inside(path or ".")
        if inside is not None:
            return InputPath(self.root, PathSpot(inside, path))
        real = self._real(path)
        root = project_root(real)
        return InputPath(root, PathSpot(os.path.relpath(real, root), path))

    def _real(self, path: str) -> str:
        try:
            return os.path.realpath(os.path.join(self._start, path))
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error

    def _inside(self, path: str) -> Optional[str]:
        """Returns the path below the project's root; None for a path elsewhere."""
        if "\0" in path:
            raise unreadable(path, ValueError())
        full = os.path.normpath(os.path.join(self._start, path))
        root = str(self.root)
        if full == root or full.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(full, root)
        return _by_another_name(full, root)


def open_input(path: Union[str, Path], most: Optional[int] = None, takes_streams: bool = False) -> int:
    """Returns a descriptor for reading of a file of at most `most` bytes that the user gave.

    `takes_streams` allows `/dev/stdin`, `/dev/fd/N` and thereby `<(...)` of a shell.
    Raises FileAccessError.
    """
    if takes_streams and _is_stream(str(path)):
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            raise unreadable(path, error) from error
    grant = InputPaths().file(path)
    with ProjectFiles(grant.root) as files:
        return files.open(grant.spot.name, most, grant.spot.label)


def read_input(path: Union[str, Path], most: int, takes_streams: bool = False) -> bytes:
    """Returns the bytes of a file that the user gave, at most `most`. Raises FileAccessError."""
    descriptor = open_input(path, most, takes_streams)
    try:
        return read_all(descriptor, path, most)
    finally:
        os.close(descriptor)


def _is_stream(path: str) -> bool:
    return path == "/dev/stdin" or any(
        path.startswith(prefix) and path[len(prefix) :].isdecimal() for prefix in _DESCRIPTORS
    )


def _by_another_name(full: str, root: str) -> Optional[str]:
    """Returns the path below the root that a folder above it is under another name, such as a link."""
    try:
        wanted = os.stat(root)
        for folder in [full, *map(str, Path(full).parents)]:
            if os.path.exists(folder) and os.path.samestat(os.stat(folder), wanted):
                return os.path.relpath(full, folder)
    except (OSError, ValueError):
        return None
    return None
