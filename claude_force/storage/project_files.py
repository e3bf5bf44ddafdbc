"""Reads files below a root and never outside it, whatever links lie there.

A path is walked part by part, each folder opened relative to the descriptor of the one above it, and the
system follows no link. A link is read instead, and its target is walked in the same way, as long as it stays
inside. A link that is swapped in while a file is being opened is not followed either.

Only regular files are opened, and no more of one is read than the caller allows. A hard link looks like any
other file and is read; git makes none. For Windows see `folders.PathFolders`.

`label` is the name of a file in messages: as the user gave it.
"""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

from ..errors import FileAccessError
from .folders import HAVE_DESCRIPTORS, DescriptorFolders, Folders, PathFolders, ReplacedError
from .mounted_folders import MountedFolder, MountedFolders
from .path_text import Name, printable
from .regular_files import checked_descriptor, missing_file, read_all, refuse_irregular, unreadable

MOST_LINKS = 40
MOST_FOLDERS = 64
# How often a walk is repeated when a part of the path was replaced meanwhile.
_MOST_WALKS = 16
Parts = Tuple[str, ...]


class ResolvedPath(NamedTuple):
    """Where a name leads: a path below the root without links, and the status of what is there."""

    parts: Parts
    info: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.info.st_mode)


class Reached(NamedTuple):
    """How far a name leads.

    Attributes:
        parts: the path below the root that is there, without links.
        info: its status.
        missing: the names below it that are not there. Where they follow a file, it is not a folder.
        is_link: whether the last part of the name is a link.
    """

    parts: Parts
    info: os.stat_result
    missing: Parts
    is_link: bool

    @property
    def is_folder(self) -> bool:
        """Whether what is there is a folder."""
        return stat.S_ISDIR(self.info.st_mode)


class OutsideError(FileAccessError):
    """A path leads out of the root.

    Attributes:
        target: the absolute path that it leads to, as far as the root tells.
        is_link: whether the last part of the path is a link.
    """

    target: str = ""
    is_link: bool = False


class FolderEntry(NamedTuple):
    """One name that a folder lists."""

    name: str
    is_folder: bool
    is_link: bool


class ProjectFiles:
    """The files below `root`. Context manager; for one thread at a time.

    >>> with ProjectFiles("project") as files:
    ...     text = files.read_text(".claude/claude.json", most=1024 * 1024)

    A link may lead anywhere below the root, but not out of a repository inside the root that it lies in.
    `own` lifts that restriction for a root that is the user's own. `by_path` works without descriptors of
    folders.

    Attributes:
        folders: accesses the folders by their parts, for what these methods don't do.
    """

    def __init__(
        self,
        root: Name,
        own: bool = False,
        by_path: bool = not HAVE_DESCRIPTORS,
        descriptor: Optional[int] = None,
        mounts: Sequence[MountedFolder] = (),
    ) -> None:
        """Opens the root. Raises FileAccessError.

        `mounts`: folders of other places that are shown in it.

        `descriptor` is one of the root, which stays the caller's: then `root` has to be a path without links,
        and it is only a name, so that the folder may have been renamed.
        """
        self.root = Path(os.path.realpath(root) if descriptor is None else root)
        self._bases = (_split(str(self.root)), _split(os.path.abspath(root)))
        self._own, self._keeps_folders = own, not by_path
        self._folder: Tuple[Optional[str], Parts] = (None, ())
        try:
            self.folders = _folders(str(self.root), by_path, descriptor, mounts)
        except OSError as error:
            raise unreadable(root, error) from error

    def __enter__(self) -> ProjectFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.folders.close()

    def path(self, place: ResolvedPath) -> Path:
        """The real path of a place."""
        return self.root.joinpath(*place.parts)

    def below(self, path: Name) -> Optional[List[str]]:
        """Returns the parts of an absolute path below the root; None for a path elsewhere."""
        parts = _split(str(path))
        for base in self._bases:
            if parts[: len(base)] == base:
                return parts[len(base) :]
        return None

    def find(self, name: Name, label: Optional[Name] = None) -> Optional[ResolvedPath]:
        """Returns where `name`, a path below the root, leads; None where there is nothing.

        Raises FileAccessError for a path that leaves the root by dots or by a link, and where the system
        refuses access.
        """
        label = label or name
        beside = self._find_beside(str(name))
        if beside is not None:
            return beside
        for _ in range(_MOST_WALKS):
            try:
                return self._noted(_Walk(self, self.folders, name, label).run(), str(name))
            except ReplacedError:
                continue
            except FileNotFoundError:
                return None
            except (OSError, UnicodeEncodeError) as error:
                raise unreadable(label, error) from error
        raise _replaced_again(label)

    def reach(self, name: Name, label: Optional[Name] = None) -> Reached:
        """Returns how far `name` leads: where `find` has None, it tells what is there of it.

        Raises FileAccessError as `find` does; OutsideError where the name leaves the root.
        """
        label = label or name
        for _ in range(_MOST_WALKS):
            walk = _Walk(self, self.folders, name, label)
            try:
                return walk.reach()
            except ReplacedError:
                continue
            except (OSError, UnicodeEncodeError) as error:
                raise unreadable(label, error) from error
        raise _replaced_again(label)

    def _noted(self, place: ResolvedPath, name: str) -> ResolvedPath:
        """Remembers the folder of a name without links on its way, for `_find_beside`."""
        if self._keeps_folders and "/".join(place.parts) == name:
            self._folder = name.rpartition("/")[0], place.parts[:-1]
        return place

    def _find_beside(self, name: str) -> Optional[ResolvedPath]:
        """Looks in the folder of the last name, which is still open. None where a walk is needed."""
        folder, _, last = name.rpartition("/")
        if folder != self._folder[0] or last in ("", ".", ".."):
            return None
        parts = self._folder[1]
        try:
            info = self.folders.lstat(parts, last)
        except (OSError, ValueError, ReplacedError):
            return None
        return None if stat.S_ISLNK(info.st_mode) else ResolvedPath((*parts, last), info)

    def open(
        self,
        name: Name,
        most: Optional[int] = None,
        label: Optional[Name] = None,
        place: Optional[ResolvedPath] = None,
    ) -> int:
        """Returns a descriptor for reading of the regular file `name`, of at most `most` bytes.

        `place` is what `find` has just returned for it. Raises FileAccessError for a file that is missing,
        not regular, larger, outside the root, or not readable.
        """
        label = label or name
        for _ in range(_MOST_WALKS):
            place = place or self.find(name, label)
            if place is None:
                raise missing_file(label)
            refuse_irregular(label, place.info)
            try:
                descriptor = self.folders.open(place.parts[:-1], place.parts[-1])
            except (ReplacedError, FileNotFoundError):
                place = None
                continue
            except OSError as error:
                raise unreadable(label, error) from error
            return checked_descriptor(descriptor, label, most)
        raise _replaced_again(label)

    def read(
        self, name: Name, most: int, label: Optional[Name] = None, place: Optional[ResolvedPath] = None
    ) -> bytes:
        """Returns the bytes of the file. Raises FileAccessError as `open` does."""
        descriptor = self.open(name, most, label, place)
        try:
            return read_all(descriptor, label or name, most)
        finally:
            os.close(descriptor)

    def read_text(
        self, name: Name, most: int, label: Optional[Name] = None, place: Optional[ResolvedPath] = None
    ) -> str:
        """Returns the text of a UTF-8 file, without its byte order mark. Raises FileAccessError."""
        try:
            return self.read(name, most, label, place).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 at byte {error.start}"
            raise FileAccessError(printable(label or name), what, "Save it as UTF-8.") from error

    def entries(
        self, place: ResolvedPath, label: Optional[Name] = None, most: Optional[int] = None
    ) -> List[FolderEntry]:
        """Lists a folder, in no order, or the first `most` entries of it. Raises FileAccessError."""
        name = label or "/".join(place.parts) or self.root
        try:
            with self.folders.scan(place.parts) as found:
                return [
                    FolderEntry(one.name, one.is_dir(follow_symlinks=False), one.is_symlink())
                    for one in islice(found, most)
                ]
        except ReplacedError as error:
            raise _replaced_again(name) from error
        except OSError as error:
            raise unreadable(name, error) from error

    def fence(self, folder: Sequence[str]) -> int:
        """Returns how many parts of `folder` name the repository that bounds its links; 0 for the root."""
        depths = () if self._own else range(len(folder), 0, -1)
        return next((depth for depth in depths if self._is_repository(folder[:depth])), 0)

    def _is_repository(self, folder: Sequence[str]) -> bool:
        try:
            self.folders.lstat(folder, ".git")
        except FileNotFoundError:
            return False
        return True


class _NotAFolderError(FileNotFoundError):
    """A part of the name is there and no folder, and more parts follow it."""


class _Walk:
    """One walk from the root along a name."""

    def __init__(self, files: ProjectFiles, folders: Folders, name: Name, label: Name) -> None:
        self._files, self._folders, self._name, self._label = files, folders, name, label
        self._done: List[str] = []
        self._links = 0
        self._ends_in_link = False
        # The parts still to walk, the next one last; each with the number of parts that it can't leave.
        self._rest: List[Tuple[str, int]] = []

    def run(self) -> ResolvedPath:
        """Raises FileAccessError, OSError, UnicodeEncodeError, ReplacedError."""
        self._begin()
        info: Optional[os.stat_result] = None
        while self._rest:
            info = self._step(*self._rest.pop())
        return ResolvedPath(tuple(self._done), info or self._folders.lstat(self._done, "."))

    def reach(self) -> Reached:
        """Raises as `run` does, but not FileNotFoundError."""
        self._begin()
        missing: Parts = ()
        while self._rest:
            part, fence = self._rest.pop()
            try:
                self._step(part, fence)
            except FileNotFoundError as error:
                # The name that is missing, unless it is there and only no folder.
                first = () if isinstance(error, _NotAFolderError) else (part,)
                missing = (*first, *self._names_left())
                break
        info = self._folders.lstat(self._done[:-1], self._done[-1] if self._done else ".")
        return Reached(tuple(self._done), info, missing, self._ends_in_link)

    def _begin(self) -> None:
        parts = _split(str(self._name))
        if "\0" in str(self._name):
            raise unreadable(self._label, OSError())
        if os.path.isabs(self._name):
            inside = self._files.below(self._name)
            if inside is None:
                raise self._outside(0, os.path.normpath(self._name))
            parts = inside
        self._add(parts, 0)

    def _step(self, part: str, fence: int) -> Optional[os.stat_result]:
        """Walks one part. Returns its status; None for `..` and links."""
        if part == "..":
            if len(self._done) <= fence:
                raise self._outside(fence, self._path_left(".."))
            self._done.pop()
            return None
        info = self._folders.lstat(self._done, part)
        if stat.S_ISLNK(info.st_mode):
            self._follow(part, fence)
            return None
        if self._rest and not stat.S_ISDIR(info.st_mode):
            self._done.append(part)
            raise _NotAFolderError(part)
        if len(self._done) > MOST_FOLDERS:
            what = f"lies deeper than {MOST_FOLDERS} folders"
            raise FileAccessError(printable(self._label), what, "Move it further up.")
        self._done.append(part)
        return info

    def _follow(self, part: str, fence: int) -> None:
        self._links += 1
        self._ends_in_link = self._ends_in_link or not self._rest
        if self._links > MOST_LINKS:
            what = f"is a link in a circle, or one of more than {MOST_LINKS} links"
            raise FileAccessError(printable(self._label), what, "Remove it.")
        target = self._folders.readlink(self._done, part)
        fence = max(fence, self._files.fence(self._done))
        if not os.path.isabs(target):
            self._add(_split(target), fence)
            return
        inside = self._files.below(target)
        if inside is None or inside[:fence] != self._done[:fence]:
            raise self._outside(fence, self._path_left(target))
        del self._done[fence:]
        self._add(inside[fence:], fence)

    def _add(self, parts: Sequence[str], fence: int) -> None:
        self._rest.extend((part, fence) for part in reversed(parts))

    def _names_left(self) -> Parts:
        return tuple(name for name, _ in reversed(self._rest))

    def _path_left(self, target: str) -> str:
        """Returns the absolute path that `target`, seen from here, and the rest of the name lead to."""
        here = self._files.root.joinpath(*self._done)
        return os.path.normpath(os.path.join(here, target, *self._names_left()))

    def _outside(self, fence: int, target: str) -> OutsideError:
        root = self._files.root.joinpath(*self._done[:fence])
        how = "is a link that leads outside" if self._links else "lies outside"
        advice = "Remove the link, or put there what it leads to." if self._links else "Put the file there."
        error = OutsideError(printable(self._label), f"{how} {printable(root)}", advice, is_outside=True)
        error.target, error.is_link = target, self._ends_in_link
        return error


def _replaced_again(name: Name) -> FileAccessError:
    return FileAccessError(printable(name), "is replaced again and again", "Try again when it is settled.")


def _folders(root: str, by_path: bool, descriptor: Optional[int], mounts: Sequence[MountedFolder]) -> Folders:
    if by_path:
        return PathFolders(root)
    folders: Folders = DescriptorFolders(root if descriptor is None else descriptor)
    if mounts:
        folders = MountedFolders(folders, mounts)
    return folders


def _split(path: str) -> List[str]:
    """Returns the parts of a path, without the leading slash and without `.`."""
    if os.sep != "/":
        path = path.replace(os.sep, "/")
    return [part for part in path.split("/") if part not in ("", ".")]
