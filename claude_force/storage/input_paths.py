"""Paths that the user names: on the command line, or as arguments of Python.

A path inside the project of the working directory is read within the bounds of that project. Any other is the
user's own word: links that it names are followed, and what it leads to has to be a regular file. A pattern is
bounded by the project that the folder of the pattern lies in, wherever that is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Optional, Union

from .file_walk import PathSpot
from .project_files import ProjectFiles, missing_file, read_all, unreadable
from .project_root import project_root, working_folder

_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")


class InputPath(NamedTuple):
    """What a path stands for: a place below the root that bounds what is read."""

    root: Path
    spot: PathSpot


class InputPaths:
    """Paths relative to the working directory, or to `start`."""

    def __init__(self, start: Optional[Path] = None) -> None:
        self._start = os.path.realpath(start or working_folder())
        self.root = project_root(self._start)

    def has(self, path: Union[str, Path]) -> bool:
        """Whether the path lies in the project of the working directory."""
        return self._inside(str(path)) is not None

    def file(self, path: Union[str, Path]) -> InputPath:
        """For a file. Raises FileAccessError where its folder is not there."""
        inside = self._inside(str(path))
        if inside is not None:
            return InputPath(self.root, PathSpot(inside, str(path)))
        folder, name = os.path.split(self._real(str(path)))
        if not os.path.isdir(folder):
            raise missing_file(path)
        return InputPath(Path(folder), PathSpot(name, str(path)))

    def folder(self, path: str) -> InputPath:
        """For the folder in which a pattern is looked for."""
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
        """The path below the project's root; None where it does not lie there."""
        if "\0" in path:
            raise unreadable(path, ValueError())
        full = os.path.normpath(os.path.join(self._start, path))
        root = str(self.root)
        if full == root or full.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(full, root)
        return _by_another_name(full, root)


def open_input(path: Union[str, Path], most: Optional[int] = None, takes_streams: bool = False) -> int:
    """A descriptor for reading of the file of at most `most` bytes that the user names.

    With `takes_streams` also of `/dev/stdin`, `/dev/fd/N` and what a shell puts in the place of `<(...)`.
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
    """The bytes of the file that the user names, at most `most`. Raises FileAccessError as `open_input`."""
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
    """The path below the root where a folder above it is the root by another name, such as a link to it."""
    try:
        wanted = os.stat(root)
        for folder in [full, *map(str, Path(full).parents)]:
            if os.path.exists(folder) and os.path.samestat(os.stat(folder), wanted):
                return os.path.relpath(full, folder)
    except (OSError, ValueError):
        return None
    return None
