"""Walks a project by descriptors, and tells what belongs to a copy of it.

A copy has what git would track or call untracked: all files but the ignored ones, and links as links. What
has the name `.git` is left out everywhere: repositories in a project, such as submodules, are folders with
files.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import AbstractSet, Callable, Collection, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set

from ..errors import WorktreeError
from ..storage.path_text import one_line
from .git_commands import IgnoreCheck

logger = logging.getLogger(__name__)

MOST_ENTRIES = 200_000
# With what an agent has installed there.
_MOST_OF_COPY = 2_000_000
_MOST_DEPTH = 200
# git reads the whole file.
_MOST_IGNORE_BYTES = 1024**2
_GIT, _IGNORE_FILE = ".git", ".gitignore"
# Programs write these anew, and would fail if they could only read them.
_CACHES = frozenset({"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"})
# Each is a mount of its own for each command.
MOST_IGNORED_FOLDERS = 64
# Of ignored files, such as `.env`, that a copy has as well. The patch never has them.
MOST_IGNORED_BYTES = 1024**2
_MOST_IGNORED_FILES = 200
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class Entry(NamedTuple):
    """What a walk has found.

    Attributes:
        path: below the root, with slashes. Bytes that are not UTF-8 are surrogates, as in `os.fsdecode`.
        folder: a descriptor of the folder that it lies in, valid until the next step of the walk.
        info: its status; of a link, that of the link.
    """

    path: str
    folder: int
    info: os.stat_result

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.info.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.info.st_mode)


# Returns which of the entries of one folder a walk takes. They are paths, each with whether it is a folder.
Select = Callable[[Mapping[str, bool]], AbstractSet[str]]


def everything(entries: Mapping[str, bool]) -> AbstractSet[str]:
    """Takes all entries."""
    return entries.keys()


def walk(root: Path, select: Select = everything, most: int = MOST_ENTRIES) -> Iterator[Entry]:
    """Yields what lies below a folder, sorted, each folder before what is in it.

    Raises WorktreeError for more than `most` entries, OSError.
    """
    return _walk(root, select, False, most)


def walk_own(root: Path) -> Iterator[Entry]:
    """The same for a folder of the package's own, in which an agent may have done anything.

    What its owner may not read is made readable.
    """
    return _walk(root, everything, True, _MOST_OF_COPY)


def _walk(root: Path, select: Select, owns: bool, most: int) -> Iterator[Entry]:
    number = 0
    with _opened(str(root), None) as descriptor:
        for entry in _below(descriptor, "", select, owns, _MOST_DEPTH):
            number += 1
            if number > most:
                raise WorktreeError(
                    f"The project has over {most:,} files and folders that are not ignored, and each "
                    "agent that edits works in a copy. Name folders of data in .gitignore, or work in place "
                    "(in_place, --in-place)."
                )
            yield entry


def _below(folder: int, prefix: str, select: Select, owns: bool, depth: int) -> Iterator[Entry]:
    if not depth:
        raise WorktreeError(f"{one_line(prefix)} has too many folders in one another to be copied.")
    with os.scandir(folder) as found:
        entries = {f"{prefix}{one.name}": _is_folder(one) for one in found if one.name != _GIT}
    taken = select(entries)
    for path in sorted(taken):
        name = path[len(prefix) :]
        try:
            entry = Entry(path, folder, os.stat(name, dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            continue
        if owns and not entry.is_link:
            _make_readable(entry)
        yield entry
        if entry.is_folder:
            try:
                with _opened(name, folder) as inner:
                    yield from _below(inner, f"{path}/", select, owns, depth - 1)
            except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
                logger.warning("%s is left out of the copy: %s", one_line(path), error.strerror)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


@contextmanager
def _opened(name: str, folder: Optional[int]) -> Iterator[int]:
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_readable(entry: Entry) -> None:
    wanted = stat.S_IRWXU if entry.is_folder else stat.S_IRUSR
    if entry.info.st_mode & wanted != wanted:
        with suppress(OSError):
            os.chmod(entry.name, entry.info.st_mode | wanted, dir_fd=entry.folder)


class ProjectSelection:
    """Takes what belongs to a copy of the project: what is tracked, and what is not ignored.

    with git.ignore_check(root) as check:
        selection = ProjectSelection(check, root, tracked)
        paths = [entry.path for entry in walk(root, selection)]

    Attributes:
        ignored_folders: the ignored folders that were left out, the outermost ones.
    """

    def __init__(self, check: IgnoreCheck, root: Path, tracked: Collection[str]) -> None:
        """`tracked`: the files that git tracks, ignored ones too."""
        self._check, self._root = check, root
        self._tracked = frozenset(tracked)
        self._folders = _folders_of(self._tracked)
        self._ignored: List[str] = []
        self._files_left = _MOST_IGNORED_FILES
        self.ignored_files: Set[str] = set()

    def __call__(self, entries: Mapping[str, bool]) -> AbstractSet[str]:
        self._check_ignore_file(entries)
        taken = set(entries)
        for path in sorted(self._check.ignored(list(entries))):
            is_folder = entries[path]
            if path in self._tracked or (is_folder and path in self._folders):
                continue
            if is_folder or not self._has_room():
                taken.discard(path)
            else:
                self.ignored_files.add(path)
            if is_folder and path.rpartition("/")[2] not in _CACHES:
                self._ignored.append(path)
        return taken

    @property
    def ignored_folders(self) -> List[str]:
        """The ignored folders that were left out, without caches; the outer ones first."""
        by_depth: Dict[str, int] = {path: path.count("/") for path in self._ignored}
        return sorted(by_depth, key=lambda path: (by_depth[path], path))[:MOST_IGNORED_FOLDERS]

    def _has_room(self) -> bool:
        self._files_left -= 1
        return self._files_left >= 0

    def _check_ignore_file(self, entries: Mapping[str, bool]) -> None:
        """git would wait for a FIFO, and reads a file to its end."""
        path = next((one for one in entries if one.rpartition("/")[2] == _IGNORE_FILE), None)
        if path is None:
            return
        if blocks_git(path, os.lstat(self._root / path)):
            raise WorktreeError(f"{one_line(path)} is not a file of patterns, or too large. Correct it.")


def blocks_git(path: str, info: os.stat_result) -> bool:
    """Whether git would wait for an ignore file without end, or read too much of it."""
    if path.rpartition("/")[2] != _IGNORE_FILE or stat.S_ISLNK(info.st_mode) or stat.S_ISDIR(info.st_mode):
        return False
    return not stat.S_ISREG(info.st_mode) or info.st_size > _MOST_IGNORE_BYTES


def _folders_of(paths: Collection[str]) -> AbstractSet[str]:
    """All folders above the paths."""
    found: Set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
