"""Reads agent files below their source folders, never outside each source's root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from ..errors import ConfigurationError, FileAccessError
from ..storage.file_walk import FileWalk, PathSpot
from ..storage.path_text import printable
from ..storage.project_files import ProjectFiles, ResolvedPath
from ..storage.regular_files import missing_file

LARGEST_FILE = 1024 * 1024
# Files and folders below one agents folder.
MOST_ENTRIES = 10_000
# Totals for one root, counting every read: a project can have any number of large files, and any number of
# plugins that list the same folder.
MOST_FILES, MOST_BYTES = 10_000, 16 * 1024 * 1024

Stamp = Tuple[int, int, int]


class Bounds(NamedTuple):
    """A source folder, as a path `below` a `root` that links must not leave.

    `own`: the root belongs to the user, not to a project.
    """

    root: Path
    below: str
    own: bool = False

    @property
    def parent(self) -> Optional[Bounds]:
        """The bounds of the parent folder; None at the root."""
        return self._replace(below=self.below.rpartition("/")[0]) if self.below else None


class FoundPath(NamedTuple):
    """What a path leads to; `real` is its resolved path if the path has links, else None."""

    spot: PathSpot
    place: ResolvedPath
    real: Optional[Path]


class FolderListing(NamedTuple):
    """The names of files in a folder. `stamp` is the folder's stamp from before it was listed; `real` is its
    resolved path if it is reached through a link."""

    file: str
    stamp: Stamp
    real: Optional[Path]
    names: List[str]


class AgentFiles:
    """Reads files below folders within their bounds. A context manager."""

    def __init__(self, bounds: Dict[Path, Bounds]) -> None:
        self._bounds = dict(bounds)
        for folder, one in bounds.items():
            if one.parent is not None:
                self._bounds.setdefault(folder.parent, one.parent)
        self._open: Dict[Tuple[Path, bool], ProjectFiles] = {}
        self._entries_left: Dict[Path, int] = {}
        self._files_left: Dict[Path, Tuple[int, int]] = {}

    def __enter__(self) -> AgentFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for files in self._open.values():
            files.close()

    def find(self, folder: Path, file: str, subject: Optional[str] = "it") -> Optional[FoundPath]:
        """Returns what is at a path relative to `folder`, or None.

        Raises ConfigurationError for a path that leaves `folder` by dots or the root by a link. The error
        names the file `subject`, or its path if that is None.
        """
        check_relative(folder, file)
        bounds = self._bounds.get(folder)
        if bounds is None:
            return None
        for name in dict.fromkeys((file, file.replace("\\", "/"))):
            spot = PathSpot(_joined(bounds.below, name), str(folder / name))
            try:
                files = self._files(bounds)
                place = files.find(*spot)
            except FileAccessError as error:
                raise _refused(error, subject) from error
            if place is not None:
                return FoundPath(spot, place, _real(files, spot, place))
        return None

    def text(self, folder: Path, file: str, found: Optional[FoundPath], subject: Optional[str] = "it") -> str:
        """Returns the text of a file that `find` found. Raises ConfigurationError as `find` does."""
        label = str(folder / file)
        try:
            if found is None:
                raise missing_file(label)
            root = self._bounds[folder].root
            number, size = self._files_left.get(root, (MOST_FILES, MOST_BYTES))
            left = self._files_left[root] = number - 1, size - found.place.info.st_size
            if min(left) < 0:
                raise _too_many(label)
            files = self._files(self._bounds[folder])
            return files.read_text(found.spot.name, LARGEST_FILE, label, found.place)
        except FileAccessError as error:
            raise _refused(error, subject) from error

    def is_folder(self, folder: Path, file: str) -> bool:
        """Whether a path leads to a folder that may be read."""
        return self._is(folder, file, True)

    def is_file(self, folder: Path, file: str) -> bool:
        """Whether a path leads to a regular file that may be read."""
        return self._is(folder, file, False)

    def folders_in(self, folder: Path, file: str) -> List[str]:
        """Returns the names of folders and links to folders in a folder. Raises ConfigurationError."""
        found = self.find(folder, file)
        if found is None or not found.place.is_folder:
            return []
        try:
            entries = sorted(self._files(self._bounds[folder]).entries(found.place, found.spot.label))
        except FileAccessError as error:
            raise _refused(error, "it") from error
        return [
            one.name
            for one in entries
            if one.is_folder or (one.is_link and self.is_folder(folder, f"{file}/{one.name}"))
        ]

    def walk(self, folder: Path, file: str, skipped: Dict[str, str]) -> Iterator[FolderListing]:
        """Yields the listings of a folder and of all folders below it.

        Adds paths that can't be entered to `skipped`, with the reasons.
        """
        bounds = self._bounds[folder]
        files = self._files(bounds)
        walk = FileWalk(files, MOST_ENTRIES)
        left = self._entries_left.get(bounds.root, MOST_ENTRIES)
        try:
            for one in walk.folders(PathSpot(_joined(bounds.below, file), str(folder / file))):
                left = self._entries_left[bounds.root] = left - len(one.files) - 1
                if left < 0:
                    raise _too_many(folder / file)
                yield FolderListing(
                    _relative(bounds, one.spot),
                    stamp_of(one.place.info),
                    _real(files, one.spot, one.place),
                    one.files,
                )
        except FileAccessError as error:
            skipped[file] = reason_of(error)
        skipped.update((_relative(bounds, spot), reason_of(error)) for spot, error in walk.skipped.items())

    def _files(self, bounds: Bounds) -> ProjectFiles:
        key = (bounds.root, bounds.own)
        if key not in self._open:
            self._open[key] = ProjectFiles(bounds.root, bounds.own)
        return self._open[key]

    def _is(self, folder: Path, file: str, is_folder: bool) -> bool:
        try:
            found = self.find(folder, file)
        except ConfigurationError:
            return False
        return found is not None and (found.place.is_folder if is_folder else found.place.is_file)


def _too_many(label: Union[str, Path]) -> FileAccessError:
    what = (
        f"is not read: agents, commands and skills have more than {MOST_FILES:,} files or "
        f"{MOST_BYTES >> 20} MB together"
    )
    return FileAccessError(printable(label), what, "Move elsewhere what is not needed.")


def reason_of(error: FileAccessError, subject: str = "it") -> str:
    """Formats an error as a problem's reason: the fault, then "; " and the advice."""
    advice = error.advice.rstrip(".")
    return f"{subject} {error.what}; {advice[:1].lower()}{advice[1:]}"


def _refused(error: FileAccessError, subject: Optional[str]) -> ConfigurationError:
    return ConfigurationError(str(error) if subject is None else reason_of(error, subject))


def check_relative(folder: Path, file: str) -> None:
    """Raises ConfigurationError unless `file` is a relative path inside `folder`."""
    if not file.strip() or not _can_be_named(file):
        raise ConfigurationError(f"{file!r} is not a path: name a file under {printable(folder)}.")
    plain = file.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":":
        raise ConfigurationError(
            f"{printable(file)} is an absolute path: name a file under {printable(folder)} relative to it."
        )
    if ".." in plain and os.path.normpath(plain).replace("\\", "/").split("/")[0] == "..":
        raise ConfigurationError(
            f"{printable(file)} points outside {printable(folder)}: keep the file in that folder."
        )


def stamp(path: Union[str, Path]) -> Stamp:
    """Returns a value that changes with the content of a path; zeros if missing. Follows no link."""
    try:
        return stamp_of(os.lstat(path))
    except (OSError, ValueError):
        return (0, 0, 0)


def stamp_of(info: os.stat_result) -> Stamp:
    return (info.st_mtime_ns, info.st_size, info.st_ino)


def _real(files: ProjectFiles, spot: PathSpot, place: ResolvedPath) -> Optional[Path]:
    return None if "/".join(place.parts) == spot.name else files.path(place)


def _relative(bounds: Bounds, spot: PathSpot) -> str:
    return spot.name[len(bounds.below) + 1 :] if bounds.below else spot.name


def _joined(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder and file else folder or file


def _can_be_named(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        # Half a surrogate pair: valid in JSON, invalid in file systems.
        return False
